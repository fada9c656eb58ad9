"""Finds out by trying whether the shim runs here and bubblewrap makes a sandbox for somebody whom nobody trusts."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from runner.errors import MachineError
from runner.launch import bubblewrap as profile
from runner.launch.machine.kernel import own_ids
from runner.launch.memory_files import memory_file
from runner.launch.seccomp import bpf_program
from runner.launch.shim.locate import shim_path
from runner.plan.facts import Bubblewrap, Shim
from runner.plan.remedies import BUILD_SHIM
from runner.spec.model import UNTRUSTED_RESOURCES, Home, Processor, Trust

LIMIT_S = 5.0
_USAGE = (2, b"usage: connector-shim")
"""What the shim exits with and says when it is given nothing."""
_PT_INTERP = 3


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
        open_to_all=_is_open_to_all(path),
        problem=problem,
        remedy=None if failed is None else BUILD_SHIM,
    )


def bubblewrap(its: Shim) -> Bubblewrap:
    """Start a sandbox with every wall in it, as the user that an untrusted instance would have."""
    found = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:{profile.DEFAULT_PATH}")
    if found is None:
        return Bubblewrap(path=None, version=None, setuid=False, disable_userns=False, problem=None)
    path = os.path.abspath(found)  # noqa: PTH100 - as it is called, without looking at links
    problem: str | None = "it was not tried, as the shim does not run"
    strict = False
    if its.problem is None and its.path is not None:
        problem = _sandbox(path, its.path, forbid_more=False)
        strict = problem is None and _sandbox(path, its.path, forbid_more=True) is None
    return Bubblewrap(
        path=path,
        version=_version(path),
        setuid=bool(Path(path).stat().st_mode & stat.S_ISUID),
        disable_userns=strict,
        problem=problem,
    )


def _sandbox(bwrap: str, program: str, *, forbid_more: bool) -> str | None:
    """Run the shim in a sandbox, with the arguments that an untrusted processor gets; why that failed."""
    spec = Processor(
        "doctor",
        (),
        None,
        Home.SANDBOX,
        trust=Trust.UNTRUSTED,
        network="none",
        resources=UNTRUSTED_RESOURCES,
    )
    try:
        with _open_to_all(program) as shim_file, _in_memory(bpf_program(platform.machine())) as seccomp:
            wall = profile.Wall(
                bwrap=bwrap,
                hostname=spec.name,
                directory="/",
                shim=shim_file.fileno(),
                channel=0,
                user_namespace=True,
                forbid_more=forbid_more,
                seccomp=seccomp.fileno(),
            )
            words = profile.arguments(spec, profile.System(), wall)
            return _failure(words[:-1], _USAGE, (shim_file, seccomp), apart=True)  # the last would be its socket
    except MachineError as error:
        return error.what
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def _open_to_all(program: str) -> Iterator[IO[bytes]]:
    """The program as a file that any user can execute by its descriptor: a copy in memory where its mode forbids."""
    with Path(program).open("rb") as file:
        if _is_open_to_all(program):
            yield file
            return
        with _in_memory(file.read()) as copy:
            yield copy


def _in_memory(data: bytes) -> IO[bytes]:
    return os.fdopen(memory_file("connector-doctor", [data]), "rb")


def _is_open_to_all(program: str) -> bool:
    return Path(program).stat().st_mode & 0o005 == 0o005


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
