"""The names in a Compose project: services, volumes, networks, secrets, and where things stand in containers."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

SIDECAR = "connector"
"""The service of a runner; of several, each has its name behind it."""
NATS = "nats"
NATS_PORT = 4222
RUNNERS = "runners"
OUTSIDE = "outside"

BRIDGE = "/.connector"
"""Where a processor's container sees its bridge: the shim, and the socket of its runner."""
BRIDGES = "/bridges"
"""Where a runner's container sees the bridges of all its processors, each below its name."""
STATE = "/state"
CHANGES = "/.connector/compose.toml"
"""Where a runner's container sees what is laid over the pipeline file: not in a folder of it, which may be mounted."""
PIPELINE = "/pipeline"
"""Where a runner's container sees the folder of the pipeline, as far as it needs it."""
SECRETS = "/run/secrets"
USER = "65532"
"""The user of the runner's image."""
SHIM = "connector-shim"
SHIMS, SHIMS_INSIDE, SHIMS_OF_RUNNER = "shim", "/.shim", "/shim"
"""The volume with the shim, where a processor's container sees it, and where runners do, which put it there."""
SOCKET = "shim.sock"
_OWN = {each.strip("/").split("/")[0] for each in (BRIDGES, STATE, SHIMS_OF_RUNNER, CHANGES, "/proc", "/sys", "/dev")}
_SYSTEM = {"bin", "boot", "etc", "home", "lib", "lib64", "opt", "root", "run", "sbin", "tmp", "usr", "var"}


def sidecar(runner: str | None) -> str:
    """The service of a runner; None: the only one."""
    return SIDECAR if runner is None else f"{SIDECAR}-{runner}"


def bridge(processor: str) -> str:
    """The volume between a processor and its runner."""
    return f"bridge-{processor}"


def state(runner: str | None) -> str:
    """The volume with what a runner keeps."""
    return "state" if runner is None else f"state-{runner}"


def outbound(processor: str) -> str:
    """The network through which a processor gets out, and nobody else."""
    return f"{processor}-outbound"


def secret(owner: str, variable: str) -> str:
    """The Compose secret of a variable of a processor, or of a channel's token."""
    return f"{owner}-{variable}".lower().replace("_", "-")


def here(path: Path, folder: Path) -> str:
    """`path` as the Compose file names it, which stands in `folder`: relative, unless they have nothing in common."""
    path, folder = _plain(path), _plain(folder)
    try:
        return f"./{path.relative_to(folder).as_posix()}".removesuffix("/.")
    except ValueError:
        pass
    shared = [mine for mine, theirs in zip(folder.parts, path.parts, strict=False) if mine == theirs]
    if len(shared) < 2:
        return str(path)
    up = "../" * (len(folder.parts) - len(shared))
    return (up + "/".join(path.parts[len(shared) :])).rstrip("/")


def is_taken(place: str) -> bool:
    """Whether a runner's container has something of its own at `place`, a path in it."""
    parts = place.strip("/").split("/")
    return parts[0] in _OWN or (len(parts) == 1 and parts[0] in _SYSTEM)


def _plain(path: Path) -> Path:
    """Without `..`, going by its words alone: a link stays what it is called."""
    return Path(os.path.normpath(path))


def inside(path: Path, folder: Path, absolute: Collection[str] = ()) -> str:
    """Where a runner's container has `path`: as far from the pipeline's folder as it is here.

    What is written as an `absolute` path is there by that.
    """
    if str(path) in absolute:
        return str(path)
    found = here(path, folder)
    if found.startswith("/"):
        return found
    parts = [*PIPELINE.strip("/").split("/")]
    for part in found.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)
