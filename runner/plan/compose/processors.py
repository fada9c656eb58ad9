"""The service of a processor: its image as it is, and nothing around it that its file does not ask for."""

from __future__ import annotations

from runner.plan.compose import naming
from runner.plan.compose.runners import Surroundings
from runner.plan.compose.yaml import Alias, Block, Value, literal
from runner.plan.identity import IDS, instance_gid, instance_uid
from runner.plan.images import Image
from runner.spec.model import Mount, Pipeline, Processor
from runner.units import format_duration

COMMON = "processor"
_TMP = "/tmp"  # noqa: S108 - the container's
_MOST_NR_INODES_BYTES = 4096
_FEWEST_INODES = 64
_SPARE_PIDS = 1  # the shim
_LONGER_S = 15.0
"""A container is stopped so much later than its runner's drain ends: the runner says how it is done."""


def common(pipeline: Pipeline, side: str) -> Block:
    """What all processors have in common, for `x-processor`; `side` is the folder beside the Compose file."""
    grace_s = pipeline.drain_s + _LONGER_S
    return Block(
        {
            "entrypoint": [f"{naming.SHIMS_INSIDE}/{naming.SHIM}", "--stay", f"{naming.BRIDGE}/{naming.SOCKET}"],
            "init": False,
            "restart": "on-failure",
            "stop_signal": "SIGTERM",
            "stop_grace_period": format_duration(grace_s),
            "healthcheck": Block({"disable": True}),
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true", f"seccomp={side}/seccomp.json"],
        },
        notes={
            "entrypoint": "The shim comes from a volume that the runner fills: the image needs nothing of ours.",
            "restart": "It stays when its runner goes, and ends with 0 when the run is over.",
            "stop_grace_period": "Stopped with the project, it lives until its runner has drained.",
        },
        mark=COMMON,
    )


def service(spec: Processor, name: str, image: Image, around: Surroundings) -> Block:
    """The service of one processor, which runs in `image`, called `name`."""
    built = spec.image is None
    pipeline = around.pipeline
    keys: dict[str, Value] = {
        "<<": Alias(COMMON),
        "image": literal(name),
        "pull_policy": "never" if built else None if spec.pull == "missing" else spec.pull,
        "depends_on": Block({naming.sidecar(spec.runner): Block({"condition": "service_healthy"})}),
        "scale": spec.replicas if spec.replicas > 1 else None,
        "working_dir": "/" if spec.directory is not None else None,
        **_network(spec),
        **_walls(spec, image, pipeline),
        **_limits(spec),
        "stop_grace_period": _longer(spec, pipeline),
        "tmpfs": _tmpfs(spec, image, pipeline),
        "volumes": [*_shared(spec), *(_bind(mount, pipeline) for mount in _mounts(spec, around))],
    }
    notes = {"stop_grace_period": "Stopped alone, its program has that long to end by itself."}
    if built:
        notes["pull_policy"] = "made by `connector build`"
    return Block(keys, notes=notes)


def _longer(spec: Processor, pipeline: Pipeline) -> str | None:
    """How long a stop may take whose program may take longer than a whole drain; None: as long as any."""
    if spec.stop.grace_s <= pipeline.drain_s:
        return None
    return format_duration(spec.stop.grace_s + _LONGER_S)


def _shared(spec: Processor) -> list[Block]:
    """What it has from its runner: the shim, which its container starts with, and its bridge."""
    shared = ((naming.SHIMS, naming.SHIMS_INSIDE), (naming.bridge(spec.name), naming.BRIDGE))
    return [
        Block(
            {
                "type": "volume",
                "source": source,
                "target": target,
                "read_only": True,
                "volume": Block({"nocopy": True}),
            }
        )
        for source, target in shared
    ]


def _network(spec: Processor) -> dict[str, Value]:
    if spec.network in {"none", "host"}:
        return {"network_mode": spec.network}
    return {"networks": [naming.outbound(spec.name) if spec.network == "outbound" else spec.network]}


def _walls(spec: Processor, image: Image, pipeline: Pipeline) -> dict[str, Value]:
    """What an untrusted one has on top."""
    if not spec.untrusted:
        return {}
    uid, gid = _user(spec, pipeline)
    own = spec.image is not None and any(variable.startswith("HOME=") for variable in image.env)
    home = None if own else Block({"HOME": _TMP})
    return {"user": f"{uid}:{gid}", "environment": home, "ipc": "none", "cgroup": "private"}


def _user(spec: Processor, pipeline: Pipeline) -> tuple[int, int]:
    return instance_uid(pipeline.name, spec.name, 1, IDS), instance_gid(pipeline.name, spec.name, IDS)


def _limits(spec: Processor) -> dict[str, Value]:
    limits = spec.resources
    ulimits: dict[str, Value] = {"nofile": limits.files, "core": 0 if spec.untrusted else None}
    memory = None if limits.memory_bytes is None else _size(limits.memory_bytes)
    return {
        "mem_limit": memory,
        "memswap_limit": memory,
        "cpus": None if limits.cpus is None else f"{limits.cpus:g}",
        "pids_limit": None if limits.pids is None else limits.pids + _SPARE_PIDS,
        "ulimits": Block(ulimits) if any(limit is not None for limit in ulimits.values()) else None,
    }


def _tmpfs(spec: Processor, image: Image, pipeline: Pipeline) -> list[str] | None:
    """The folder for temporary files: all that can be written but for mounts; no programs in an untrusted one.

    The volumes of an untrusted one's image are like it, which would be on disk without a bound.
    """
    folders = [_TMP, *(volume for volume in image.volumes if spec.untrusted and volume != _TMP)]
    mounted = {mount.target for mount in spec.mounts}
    options = ",".join(_tmp_options(spec, pipeline))
    return [f"{literal(folder)}:{options}" for folder in folders if folder not in mounted] or None


def _tmp_options(spec: Processor, pipeline: Pipeline) -> list[str]:
    size_bytes = spec.resources.disk_bytes
    options = ["mode=1777"]
    if size_bytes is not None:
        inodes = max(_FEWEST_INODES, size_bytes // _MOST_NR_INODES_BYTES)
        options = [f"size={_size(size_bytes)}", f"nr_inodes={inodes}", *options]
    if spec.untrusted:
        uid, gid = _user(spec, pipeline)
        return ["noexec", "nosuid", "nodev", *options, f"uid={uid}", f"gid={gid}"]
    return ["exec", "nosuid", "nodev", *options]


def _mounts(spec: Processor, around: Surroundings) -> list[Mount]:
    """Its mounts, and the folder of a `use` processor with an image of somebody else, where its runner says it is."""
    mounts = list(spec.mounts)
    if spec.template is not None and spec.image is not None:
        mounts.append(Mount(spec.template, around.inside(spec.template)))
    return mounts


def _bind(mount: Mount, pipeline: Pipeline) -> Block:
    return Block(
        {
            "type": "bind",
            "source": literal(naming.here(mount.source, pipeline.folder)),
            "target": literal(mount.target),
            "read_only": None if mount.writable else True,
            "bind": Block({"create_host_path": False}),
        }
    )


def _size(size_bytes: int) -> str:
    """In the largest unit in which it is a whole number, as Compose and tmpfs(5) both read it."""
    for unit, letter in ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit}{letter}"
    return str(size_bytes)
