"""The lock file: what is in it, and how it is read and written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from runner.errors import EXIT_USAGE, MachineError, RunnerError, SpecError
from runner.spec.findings import Findings
from runner.spec.reading import read_source
from runner.spec.walk import walk

VERSION = 1


class LockError(RunnerError):
    """A lock that is not there, cannot be used, or does not fit."""

    exit_code = EXIT_USAGE


class LockedRunner(Struct, frozen=True, forbid_unknown_fields=True):
    """The runner's version, and the shim that starts its programs."""

    version: str
    architecture: str
    shim_hash: str


class LockedProcessor(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one processor is, as far as it is known; None: it has none, or not here.

    `folder` and `script` are relative to the lock's own folder where they are inside of it. Only the hashes, the
    image's id and its digest count; the paths are for people.
    """

    folder: str | None = None
    folder_hash: str | None = None
    program: str | None = None
    program_hash: str | None = None
    script: str | None = None
    script_hash: str | None = None
    image: str | None = None
    image_id: str | None = None
    image_digest: str | None = None


class Lock(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole lock."""

    version: int
    pipeline: str
    runner: LockedRunner
    processors: dict[str, LockedProcessor]


def lock_path(file: Path) -> Path:
    """The lock of the pipeline in `file`: pipeline.toml has pipeline.lock.toml."""
    return file.with_name(f"{file.name.removesuffix('.toml')}.lock.toml")


def read_lock(path: Path) -> Lock:
    """The lock in `path`; raises LockError (not there, of a newer runner) and SpecError (damaged, with the lines)."""
    if not path.exists():
        raise LockError(f"{path} is not there", remedy="write it: connector lock FILE")
    source = read_source(path, str(path))
    version = source.data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise LockError(
            f"{path} is of a newer runner (lock version {version}, this one knows {VERSION})",
            remedy="run it with that one, or write it again: connector lock FILE",
        )
    findings = Findings(source.name)
    walked = walk(source, source.data, Lock, findings)
    if findings.failed:
        raise SpecError(findings.problems())
    return msgspec.convert(walked.data, Lock)


def write_lock(lock: Lock, path: Path) -> bool:
    """Write `lock` to `path`, whole or not at all; whether something was changed. Raises MachineError."""
    data = as_toml(lock).encode()
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        if target.is_file() and target.read_bytes() == data:
            return False
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            beside.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise MachineError(
            f"the lock {path} cannot be written: {(error.strerror or str(error)).lower()}",
            remedy="give this user the right to write into its folder",
        ) from None
    return True


def as_toml(lock: Lock) -> str:
    """The lock as it is written: the same for the same content."""
    import tomli_w

    content: Mapping[str, Any] = msgspec.to_builtins(lock)
    processors = {name: content["processors"][name] for name in sorted(content["processors"])}
    head = (
        f"# What the pipeline {lock.pipeline} was tried with. Written by `connector lock`, held by `connector run "
        "--locked`.\n# Keep it beside the pipeline file, under version control; do not edit it.\n\n"
    )
    return head + tomli_w.dumps({**content, "processors": processors})
