"""Builds what is C: the shim, one static binary for each architecture, and the small libraries of the data path.

The C compiler at hand does it, or the `ziglang` package.

Run it as `python -m runner.launch.shim.build`. The package's build hook loads this file by its path, so nothing of
`runner` is imported here. `CONNECTOR_SHIM_COMPILER=zig` leaves out the C compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
BIN = Path(__file__).with_name("bin")
LIBRARIES = ("codec/count.c", "codec/mask.c", "store/checksum.c")
"""Their sources, below the package; each is built into `bin` beside it, and works without."""
PACKAGE = Path(__file__).parents[2]
LIBRARY_FLAGS = ("-O3", "-shared", "-fPIC", "-nostdlib", "-Wall", "-Wextra", "-Werror", "-s")
FLAGS = ("-Os", "-static", "-Wall", "-Wextra", "-Werror", "-s")
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
PT_INTERP = 3


class BuildError(Exception):
    """The shim could not be built; the text says what was tried and what to install."""


def build(arch: str, out_dir: Path, *, defines: tuple[str, ...] = ()) -> Path:
    """Build `out_dir/connector-shim-<arch>` and return its path; nothing is done when it is up to date.

    `defines` are further `-D` arguments (for tests). Raises BuildError.
    """
    if arch not in ELF_MACHINES:
        raise BuildError(f"there is no shim for {arch}, only for {' and '.join(ELF_MACHINES)}")
    target = out_dir / f"connector-shim-{arch}"
    mark = _mark(sorted(SOURCES.glob("*.[ch]")), (*FLAGS, *defines))
    if target.is_file() and os.access(target, os.X_OK) and mark.encode() in target.read_bytes():
        return target
    return _make(arch, target, (*FLAGS, *defines, f'-DSHIM_BUILD="{mark}"'), sorted(SOURCES.glob("*.c")), static=True)


def build_library(source: str, arch: str, out_dir: Path | None = None) -> Path:
    """Build one of `LIBRARIES` as `<name>-<arch>.so` in `out_dir` (`bin` beside it); its path. Raises BuildError."""
    place = PACKAGE / source
    target = (out_dir or place.with_name("bin")) / f"{place.stem}-{arch}.so"
    return _make(arch, target, LIBRARY_FLAGS, [place], static=False)


def _make(arch: str, target: Path, flags: tuple[str, ...], sources: list[Path], *, static: bool) -> Path:
    """Compile `sources` to `target`, whole or not at all, by the first compiler that can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        fresh = Path(folder) / target.name
        failures = []
        for compiler in _compilers(arch):
            failure = _compile(
                compiler, (*flags, "-o", str(fresh), *map(str, sources)), fresh, arch if static else None
            )
            if failure is None:
                fresh.chmod(0o755)
                fresh.replace(target)
                return target
            failures.append(f"$ {shlex.join(compiler)} …\n{failure.strip()}")
    tried = "\n".join(failures) or "no C compiler and no ziglang package found"
    raise BuildError(
        f"{target.name} could not be built: install a C compiler with a static libc, or `pip install ziglang`\n{tried}"
    )


def needs_zig(arches: tuple[str, ...]) -> bool:
    """Whether the `ziglang` package is needed: for a foreign architecture, or where no C compiler links statically."""
    if arches != (platform.machine(),):
        return True
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "try.c", Path(folder) / "try"
        source.write_text("int main(void) { return 0; }\n")
        arguments = (*FLAGS, "-o", str(binary), str(source))
        return all(_compile(compiler, arguments, binary, arches[0]) for compiler in _c_compilers())


def _mark(sources: list[Path], flags: tuple[str, ...]) -> str:
    """What an up-to-date binary contains: a hash of all that it is made from, as far as we decide it."""
    contents = [(source.name, source.read_bytes()) for source in sources]
    return hashlib.sha256(repr((contents, flags, os.environ.get("CONNECTOR_SHIM_COMPILER"))).encode()).hexdigest()[:32]


def _compilers(arch: str) -> list[list[str]]:
    """The commands to try, the best first; a C compiler at hand only builds for the machine it is on."""
    found = _c_compilers() if arch == platform.machine() else []
    if importlib.util.find_spec("ziglang"):
        found.append([sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"])
    return found


def _c_compilers() -> list[list[str]]:
    if os.environ.get("CONNECTOR_SHIM_COMPILER") == "zig":
        return []
    found: dict[tuple[str, ...], list[str]] = {}  # by what they are, as cc is often gcc
    for command in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]):
        program = shutil.which(command[0]) if command else None
        if program is not None:
            found.setdefault((os.path.realpath(program), *command[1:]), command)
    return list(found.values())


def _compile(compiler: list[str], arguments: tuple[str, ...], binary: Path, arch: str | None) -> str | None:
    """Run one compiler; None when it worked (and made a static binary for `arch`, where one is named), else why not."""
    try:
        done = subprocess.run([*compiler, *arguments], capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return done.stderr or f"exit code {done.returncode}"
    return None if arch is None or _is_static(binary, arch) else f"it made no static binary for {arch}"


def _is_static(binary: Path, arch: str) -> bool:
    """Whether it is a 64-bit ELF for `arch` that asks for no dynamic loader (elf(5))."""
    data = binary.read_bytes()
    if data[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", data, 18)[0] != ELF_MACHINES[arch]:
        return False
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return all(struct.unpack_from("<I", data, table + index * size)[0] != PT_INTERP for index in range(count))


def main() -> None:
    """Build for this machine, or for each `--arch`."""
    parser = argparse.ArgumentParser(
        description="build the shim that starts every processor, and the libraries of the data path"
    )
    parser.add_argument("--arch", action="append", choices=sorted(ELF_MACHINES), help="repeat for more than one")
    arches: list[str] = parser.parse_args().arch or [platform.machine()]
    try:
        for arch in arches:
            print(build(arch, BIN))
            for source in LIBRARIES:
                print(build_library(source, arch))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
