"""Finds out by trying whether the shim runs here and bubblewrap makes a sandbox for somebody whom nobody trusts."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from runner.errors import MachineError
from runner.launch.machine.kernel import own_ids
from runner.launch.shim.locate import shim_path
from runner.plan.facts import Bubblewrap, Shim
from runner.plan.remedies import BUILD_SHIM

LIMIT_S = 5.0
_USAGE = (2, b"usage: connector-shim")
"""What the shim exits with and says when it is given nothing."""
_ALLOW = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
"""The smallest seccomp filter: BPF_RET, SECCOMP_RET_ALLOW (seccomp(2))."""
_USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"
_PT_INTERP = 3
_INSIDE = "/connector-shim"
_PROFILE = [
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
    *("--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
    *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - in the sandbox
]


def shim() -> Shim:
    """Run it without arguments: it prints its usage."""
    try:
        path = str(shim_path())
    except MachineError as error:
        return Shim(path=None, static=False, open_to_all=False, problem=error.what, remedy=error.remedy)
    failed = _failure([path], _USAGE)
    problem = None if failed is None else f"the shim {path} does not run here: {failed}"
    return Shim(
        path=path,
        static=_is_static(Path(path)),
        open_to_all=Path(path).stat().st_mode & 0o005 == 0o005,
        problem=problem,
        remedy=None if failed is None else BUILD_SHIM,
    )


def bubblewrap(its: Shim) -> Bubblewrap:
    """Start the smallest sandbox with every wall in it, as the user that an untrusted instance would have."""
    found = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:{_USUAL_PATH}")
    if found is None:
        return Bubblewrap(path=None, version=None, setuid=False, disable_userns=False, problem=None)
    path = os.path.abspath(found)  # noqa: PTH100 - as it is called, without looking at links
    problem, strict = "it was not tried, as the shim does not run", False
    if its.problem is None and its.path is not None:
        without = _sandbox(path, its.path, [])
        strict = without is None and _sandbox(path, its.path, ["--disable-userns"]) is None
        problem = without or ""
    return Bubblewrap(
        path=path,
        version=_version(path),
        setuid=bool(Path(path).stat().st_mode & stat.S_ISUID),
        disable_userns=strict,
        problem=problem or None,
    )


def _sandbox(bwrap: str, program: str, more: list[str]) -> str | None:
    """Run the shim in a sandbox; why that failed.

    The shim is handed over as an open file: its folder may be closed to the user in the sandbox.
    """
    try:
        with open(program, "rb") as file, tempfile.TemporaryFile() as seccomp:  # noqa: PTH123 - the descriptor
            seccomp.write(_ALLOW)
            seccomp.seek(0)
            arguments = ["--seccomp", str(seccomp.fileno()), "--perms", "0555"]
            arguments += ["--ro-bind-data", str(file.fileno()), _INSIDE]
            return _failure([bwrap, *_PROFILE, *more, *arguments, _INSIDE], _USAGE, (file, seccomp), apart=True)
    except OSError as error:
        return error.strerror or str(error)


def _version(bwrap: str) -> str | None:
    try:
        done = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[-1] if words else None


def _failure(
    command: list[str], wanted: tuple[int, bytes], files: tuple[IO[bytes], ...] = (), *, apart: bool = False
) -> str | None:
    """Run it; None when it exits and says as `wanted`, else what is wrong, in its own words where it has some.

    `apart`: as a user such as untrusted instances have, where the runner may become one.
    """
    user, group = own_ids() or (None, None) if apart else (None, None)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            cwd="/",
            pass_fds=[file.fileno() for file in files],
            user=user,
            group=group,
            extra_groups=None if user is None else (),
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {LIMIT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == wanted[0] and done.stderr.startswith(wanted[1]):
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    how = f"exit {done.returncode}" if done.returncode >= 0 else f"killed by signal {-done.returncode}"
    return said[-1].removeprefix("bwrap: ")[:200] if said else how


def _is_static(binary: Path) -> bool:
    """Whether a 64-bit ELF asks for no dynamic loader (elf(5)), so that it runs in a container without any library."""
    try:
        data = binary.read_bytes()
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        kinds = [struct.unpack_from("<I", data, table + index * size)[0] for index in range(count)]
    except (OSError, struct.error):
        return False
    return data.startswith(b"\x7fELF\x02") and _PT_INTERP not in kinds
