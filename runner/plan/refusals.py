"""What an engine's refusals mean, in words for people: whose fault it is, and what to do.

The texts are those of Docker 20.10 and later. One that is not known is a MachineError: trying again may help.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.errors import LaunchError, MachineError
from runner.plan.containers import SHIM
from runner.plan.image import BUILT
from runner.spec.model import Processor

_MORE = re.compile(r"(OCI runtime create failed|failed to create (shim task|task for container)): ")
_UNREACHABLE = re.compile(
    r"connection refused|no such host|timeout|timed out|i/o|unreachable|cannot assign|server misbehaving|"
    r"Client\.Timeout|TLS handshake|certificate|name resolution",
    re.IGNORECASE,
)
_DENIED = re.compile(r"denied|unauthorized|authentication required|no basic auth", re.IGNORECASE)
_ABSENT = re.compile(r"not found|manifest unknown|does not exist", re.IGNORECASE)


def no_image(name: str, users: Sequence[str]) -> MachineError:
    """An image is not there and must not be fetched."""
    remedy = f'docker pull {name}, docker build -t {name} …, or pull = "missing"'
    if name.startswith(BUILT):
        remedy = "make it: connector build FILE"
    return MachineError(f"image {name} is not there", where=_where(users), remedy=remedy)


def wrong_image(misfit: str, users: Sequence[str]) -> MachineError:
    """An image is made for another machine."""
    return MachineError(misfit, where=_where(users), remedy="use an image for this architecture, or build one")


def of_pull(name: str, users: Sequence[str], words: str) -> MachineError:
    """An image cannot be fetched."""
    if _DENIED.search(words):
        what = f"image {name} is not there, or its registry does not give it to you"
        remedy = "look at its name; where the registry wants to know you: docker login"
    elif _ABSENT.search(words) and not _UNREACHABLE.search(words):
        what, remedy = f"image {name} is not there, nor in its registry", "look at its name and tag"
    elif _UNREACHABLE.search(words):
        what = f"image {name} cannot be fetched, its registry cannot be reached"
        remedy = "look at the network of this machine, or load the image from a file: docker load"
    else:
        what, remedy = f"image {name} cannot be fetched", None
    return MachineError(f"{what}: {words}", where=_where(users), remedy=remedy)


def no_network(name: str, where: str) -> MachineError:
    """A network is not there."""
    remedy = "the engine was started without it" if name == "bridge" else f"docker network create {name}"
    return MachineError(f"the engine has no network {name}", where=where, remedy=remedy)


def of_network(words: str, where: str) -> MachineError:
    """A network of its own cannot be made."""
    known = "address pool" in words or "non-overlapping" in words
    remedy = "remove some that nobody uses: docker network prune" if known else None
    return MachineError(f"it gets no network of its own: {words}", where=where, remedy=remedy)


def of_start(status: int, words: str, spec: Processor) -> LaunchError | MachineError:
    """A container cannot be made or started."""
    said = _MORE.sub("", words)
    found = _fault_of_file(said, spec)
    if found is not None:
        what, remedy = found
        return LaunchError(f"cannot be started: {what}", remedy=remedy)
    if status == 404 and "No such image" in words:
        return MachineError(
            f"cannot be started: its image {spec.image} was removed meanwhile", remedy=f"docker pull {spec.image}"
        )
    if SHIM in said:
        remedy = "the engine must see the files of this machine, and may execute what lies beside the runner"
        return MachineError(f"cannot be started: the shim cannot be executed in its container: {said}", remedy=remedy)
    return MachineError(f"cannot be started: the engine refuses: {said}")


def _fault_of_file(said: str, spec: Processor) -> tuple[str, str | None] | None:
    """What of the file or the image it is, and what to do; None: it is neither."""
    for pattern, what, remedy in _FAULTS:
        if match := re.search(pattern, said):
            named = match[1] if match.groups() else ""
            return what.format(named=named, said=said), None if remedy is None else remedy.format(named=named)
    for mount in spec.mounts:
        if "mount" in said.lower() and (mount.target in said or str(mount.source) in said):
            return f"the mount at {mount.target} is refused: {said}", "folders go on folders, files on files"
    return None


_FAULTS = (
    (
        r"bind source path does not exist: (\S+)",
        "the mount of {named} is refused, as the engine does not see it",
        "it was removed, or the engine does not see this machine's files",
    ),
    (r"network (\S+) not found", "the engine has no network {named}", "docker network create {named}"),
    (r"inimum memory", "its limit of memory is too small for the engine: {said}", "give it more: resources.memory"),
    (
        r'chdir to cwd \("([^"]*)"\).*permission denied',
        "its user may not enter {named}, the folder that the image starts in",
        "name another one: directory = …",
    ),
    (r"unable to find (?:user|group) (\S+)", "the image has no user {named}: {said}", "correct the image's USER"),
)


def _where(users: Sequence[str]) -> str:
    return f"processor{'' if len(users) == 1 else 's'} {', '.join(users)}"
