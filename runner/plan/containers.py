"""What a container is made of: the body of the Engine API's `POST /containers/create`, from a processor and an image.

Pure: nothing here speaks to an engine. The profile of an untrusted processor is `_walls`, and nothing else loosens it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import LaunchError
from runner.plan.identity import IDS, instance_gid, instance_uid, usable_ids
from runner.plan.images import Image
from runner.spec.model import UNTRUSTED_RESOURCES, Mount, Processor

SHIM = "/.connector/shim"
SOCKET_FOLDER = "/.connector/run"
SOCKET = "socket"

RUN_LABEL = "connector.run"
OWNER_LABEL = "connector.owner"

_READ_ONLY_BELOW = (1, 44)
"""The API from which on a read-only mount is read-only in the mounts below it too (Docker 25)."""
_NAMESPACE_OF_ENGINE = "0 0 65536"
"""The users that a rootless or remapped engine gives its containers, if it was set up in the usual way."""
_BYTES_PER_INODE = 4096
_FEWEST_INODES = 64
_SPARE_PIDS = 1  # the shim
_TMP = "/tmp"  # noqa: S108 - the container's


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What matters of an engine. `own_users`: its container's users are not those of this machine (rootless, remapped).

    `arch` as the engine says it (x86_64); `api` its version as numbers.
    """

    api: tuple[int, ...]
    arch: str
    cpus: int
    own_users: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """What all containers of a run have in common. `shim` is its path here; `seccomp` the profile as JSON."""

    run: str
    pipeline: str
    owner: str
    shim: str
    engine: EngineFacts
    seccomp: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """A user of its own: numbers as the container sees them."""

    uid: int
    gid: int


def own_user(spec: Processor, replica: int, ground: Ground) -> User | None:
    """The user of an untrusted instance; None: the image's own."""
    if not spec.untrusted:
        return None
    ids = (usable_ids(_NAMESPACE_OF_ENGINE) if ground.engine.own_users else IDS) or IDS
    uid = instance_uid(ground.pipeline, spec.name, replica, ids)
    return User(uid, instance_gid(ground.pipeline, spec.name, ids))


def container_name(spec: Processor, replica: int, ground: Ground, unique: str) -> str:
    """A name that says whose it is."""
    return f"connector-{ground.pipeline}-{spec.name}-{replica}-{unique}"


def labels(ground: Ground, processor: str, instance: int | None = None) -> dict[str, str]:
    """By what a container or network of ours is found and known."""
    return {
        RUN_LABEL: ground.run,
        "connector.pipeline": ground.pipeline,
        "connector.processor": processor,
        OWNER_LABEL: ground.owner,
    } | ({} if instance is None else {"connector.instance": str(instance)})


def container_config(spec: Processor, replica: int, image: Image, ground: Ground, *, sockets: str) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    `sockets` is the instance's private folder of this machine. What the program itself is comes later, with its job.
    """
    config: dict[str, Any] = {
        "Image": image.id,
        "Entrypoint": [SHIM],
        "Cmd": [f"{SOCKET_FOLDER}/{SOCKET}"],
        "Labels": labels(ground, spec.name, replica) | {"connector.image": spec.image or ""},
        "StopSignal": "SIGTERM",  # the shim listens to it, whatever the image's program would
        "Healthcheck": {"Test": ["NONE"]},  # the file's own checks are there instead
    }
    if spec.directory is not None:
        config["WorkingDir"] = "/"  # the engine would make a folder that is not there; the shim says so
    user = own_user(spec, replica, ground)
    config["HostConfig"] = _host(spec, image, ground, user, sockets)
    if user is not None:
        config["User"] = f"{user.uid}:{user.gid}"
        if not any(variable.startswith("HOME=") for variable in image.env):
            config["Env"] = [f"HOME={_TMP}"]  # such a user has no other, and / cannot be written
    return config


def _host(spec: Processor, image: Image, ground: Ground, user: User | None, sockets: str) -> dict[str, Any]:
    own = (Mount(Path(ground.shim), SHIM), Mount(Path(sockets), SOCKET_FOLDER))
    resources = spec.resources
    host: dict[str, Any] = {
        "NetworkMode": network_mode(spec, ground),
        "Mounts": [_bind(mount, spec, ground) for mount in (*own, *spec.mounts, *_template(spec))],
        "LogConfig": {"Type": "none"},
        "Init": False,  # the shim is the init, whatever the engine's default
        "RestartPolicy": {"Name": "no"},
        "Ulimits": [],
        "Tmpfs": {},
    }
    if resources.memory_bytes is not None:
        host |= {"Memory": resources.memory_bytes, "MemorySwap": resources.memory_bytes}
    if resources.cpus is not None:
        host["NanoCpus"] = round(min(resources.cpus, ground.engine.cpus) * 1e9)  # more than there are is refused
    if resources.pids is not None:
        host["PidsLimit"] = resources.pids + _SPARE_PIDS
    if resources.files is not None:
        host["Ulimits"].append({"Name": "nofile", "Soft": resources.files, "Hard": resources.files})
    if resources.disk_bytes is not None and _TMP not in _targets(spec):
        host["Tmpfs"][_TMP] = f"rw,exec,nosuid,nodev,{_size(resources.disk_bytes)}"
    if user is not None:
        _walls(host, spec, image, ground, user)
    return host


def _walls(host: dict[str, Any], spec: Processor, image: Image, ground: Ground, user: User) -> None:
    """The profile of an untrusted processor; what is not named here is the engine's default, which is no looser."""
    host |= {
        "ReadonlyRootfs": True,
        "Privileged": False,
        "IpcMode": "none",  # and so no /dev/shm
        "CgroupnsMode": "private",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={ground.seccomp}"],
    }
    host["Ulimits"].append({"Name": "core", "Soft": 0, "Hard": 0})
    disk_bytes = spec.resources.disk_bytes or UNTRUSTED_RESOURCES.disk_bytes or 0
    # of its own user, as a folder that the image has there leaves its mode on them
    options = f"rw,noexec,nosuid,nodev,{_size(disk_bytes)},uid={user.uid},gid={user.gid}"
    for folder in {_TMP, *image.volumes} - _targets(spec):  # else the engine makes volumes, which nothing bounds
        host["Tmpfs"][folder] = options


def _targets(spec: Processor) -> set[str]:
    return {mount.target for mount in spec.mounts}


def network_mode(spec: Processor, ground: Ground) -> str:
    """The engine's word for the network of a processor."""
    if spec.network != "outbound":
        return spec.network
    return own_network(spec, ground) if spec.untrusted else "bridge"


def own_network(spec: Processor, ground: Ground) -> str:
    """The name of the bridge that an untrusted processor with a way out has for itself."""
    return f"connector-{ground.pipeline}-{spec.name}-{ground.run}"


def network_config(spec: Processor, ground: Ground) -> dict[str, Any]:
    """The network of `own_network`, as the docker package's `create_network` takes it: no instance sees another."""
    return {
        "name": own_network(spec, ground),
        "driver": "bridge",
        "options": {"com.docker.network.bridge.enable_icc": "false"},
        "labels": labels(ground, spec.name),
        "check_duplicate": True,
    }


def _template(spec: Processor) -> tuple[Mount, ...]:
    """The folder of a `use` processor, read-only, at its own path, unless something is mounted there already."""
    if spec.template is None or str(spec.template) in _targets(spec):
        return ()
    return (Mount(spec.template, str(spec.template)),)


def _bind(mount: Mount, spec: Processor, ground: Ground) -> dict[str, Any]:
    """A mount of type bind: one whose source is missing is refused, where a volume would be made up."""
    options: dict[str, Any] = {"Propagation": "rprivate"}
    if spec.untrusted and not mount.writable:
        if ground.engine.api < _READ_ONLY_BELOW:
            options["NonRecursive"] = True  # what is mounted below it would be writable
        else:
            options["ReadOnlyForceRecursive"] = True
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": not mount.writable,
        "BindOptions": options,
    }


def _size(size_bytes: int) -> str:
    """As options of a tmpfs; empty files fill one without `nr_inodes`."""
    return f"size={size_bytes},nr_inodes={max(_FEWEST_INODES, size_bytes // _BYTES_PER_INODE)},mode=1777"


def refuse_mounts(spec: Processor, sockets: Iterable[Path]) -> None:
    """Raise LaunchError for a mount through which one of the engine's `sockets` (resolved) could be reached."""
    for mount in (*spec.mounts, *_template(spec)):
        source = mount.source.resolve()
        for socket in sockets:
            if socket == source or socket.is_relative_to(source):
                inside = "" if socket == source else f", which is in {mount.source},"
                raise LaunchError(
                    f"the engine's socket {socket}{inside} is not mounted into anything: who has it has this machine",
                    where=f"processor {spec.name}",
                    remedy="mount a folder that does not hold it",
                )


@dataclass(frozen=True, slots=True)
class Status:
    """What stat(2) says of a mount's source."""

    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why a mount is of no use, and the command that helps."""

    what: str
    remedy: str


def out_of_reach(mount: Mount, status: Status, user: User, *, same_users: bool) -> Unreachable | None:
    """Why `user` cannot use the mount, going by the owner and mode of its source; None: it can.

    The folders above it do not matter, as the engine mounts it. `same_users`: its ids are this machine's ids.
    """
    folder = stat.S_ISDIR(status.mode)
    needed = "r" + ("w" if mount.writable else "") + ("x" if folder else "")
    bits = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in needed)
    shift = 6 if same_users and status.uid == user.uid else 3 if same_users and status.gid == user.gid else 0
    if status.mode >> shift & bits == bits:
        return None
    chown = same_users and mount.writable
    return Unreachable(
        f"its user {user.uid}:{user.gid} cannot {'write' if mount.writable else 'read'} "
        f"the {'folder' if folder else 'file'} {mount.source}, "
        f"which has mode {stat.S_IMODE(status.mode):04o} and belongs to {status.uid}:{status.gid}",
        f"chown {user.uid}:{user.gid} {mount.source}" if chown else f"chmod o+{needed} {mount.source}",
    )
