"""Getting packages for the demo, with progress: by pip, by apt without root, from Maven Central."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]

MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
PROGRESS_EVERY_S = 2.0


class SetupError(Exception):
    """Something that the demo needs could not be had; the text says what, and what to install."""


def pip(arguments: list[str], what: str, cache: Path, say: Say) -> str | None:
    """Run pip and say every two seconds how much has come. None: it worked; otherwise the end of what it printed."""
    say(f"downloading {what}")
    with tempfile.TemporaryDirectory(dir=cache, prefix="pip-") as scratch:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
        # pip keeps what it is downloading below TMPDIR: a folder of its own there shows how far it is.
        return _watched(command, Path(scratch), os.environ | {"TMPDIR": scratch}, say)


def _watched(command: list[str], scratch: Path, env: dict[str, str], say: Say) -> str | None:
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while True:
            try:
                code = process.wait(PROGRESS_EVERY_S)
            except subprocess.TimeoutExpired:
                say(f"  {_size(scratch) / 1e6:.1f} MB so far, {time.monotonic() - started:.0f} s")
            else:
                break
        output.seek(0)
        return None if code == 0 else output.read()[-2000:].strip()


def _size(folder: Path) -> int:
    """Bytes in all files below a folder in which another program is at work."""
    total = 0
    for place, _, names in os.walk(folder):  # which goes on where a folder has gone meanwhile
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:
                continue  # gone again
    return total


def debian_packages(names: list[str], target: Path, say: Say) -> str | None:
    """Unpack Debian packages into `target` without root and without installing them. None, or why it did not work.

    Where the machine's package lists are missing, as in fresh containers, lists of our own are fetched into `target`.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return "no apt-get and dpkg here"
    say(f"downloading {' and '.join(names)} from Debian's archive")
    folder = target / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    error = _run(["apt-get", "download", *names], folder)
    if error is not None:
        say("  fetching lists of packages first")
        own = ["-o", f"Dir::State={target / 'state'}", "-o", f"Dir::Cache={target / 'archive-cache'}"]
        own += ["-o", "Dir::State::status=/var/lib/dpkg/status"]
        (target / "state/lists/partial").mkdir(parents=True, exist_ok=True)
        (target / "archive-cache/archives/partial").mkdir(parents=True, exist_ok=True)
        error = _run(["apt-get", *own, "update"], folder) or _run(["apt-get", *own, "download", *names], folder)
        for leftover in ("state", "archive-cache"):
            shutil.rmtree(target / leftover, ignore_errors=True)
    for package in folder.glob("*.deb") if error is None else ():
        error = error or _run(["dpkg", "-x", str(package), str(target)], folder)
    return error


def _run(command: list[str], folder: Path) -> str | None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:]


def maven(group: str, artifact: str, version: str, target: Path, say: Say, repository: str = MAVEN_CENTRAL) -> Path:
    """Fetch one jar from a Maven repository into `target`, checked against the checksum published beside it."""
    name = f"{artifact}-{version}.jar"
    url = f"{repository}/{group.replace('.', '/')}/{artifact}/{version}/{name}"
    say(f"downloading {name} from {repository}")
    try:
        expected = _get(f"{url}.sha1").decode("ascii").split()[0]
        jar = _get(url)
    except (OSError, ValueError, IndexError) as error:
        raise SetupError(f"{url} cannot be had: {error}") from error
    if hashlib.sha1(jar, usedforsecurity=False).hexdigest() != expected:
        raise SetupError(f"{url} does not match its checksum")
    target.mkdir(parents=True, exist_ok=True)
    part = target / f"{name}.part"
    part.write_bytes(jar)
    return part.replace(target / name)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        content: bytes = response.read()
    return content
