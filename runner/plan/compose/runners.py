"""The service of a runner: beside the processors that it has, with their bridges, and no engine's socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runner.plan.compose import naming
from runner.plan.compose.links import Links
from runner.plan.compose.yaml import Alias, Block, Value, literal
from runner.spec.model import Channel, Pipeline, Processor
from runner.units import format_duration

COMMON = "runner"
CHANGES = "compose.toml"
_LONGER_S = 10.0
_CHECK_EVERY = "2s"
_HEALTH = "http://127.0.0.1:8099/health"
"""Where a sidecar answers unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that the pipeline file puts in; `needed`: it has no default there."""

    name: str
    needed: bool


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of one runner: its name in the project, and where its value comes from (`file` or a variable)."""

    name: str
    runner: str | None
    file: Path | None = None
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all runners of a project have in common. `file` is the pipeline's, `side` the folder beside it.

    `absolute` are the paths that the pipeline file has as such, `output` is what the Compose file is called.
    """

    pipeline: Pipeline
    file: Path
    side: str
    image: str
    links: Links
    variables: tuple[Variable, ...]
    secrets: tuple[Secret, ...]
    schemas: tuple[Path, ...] = ()
    absolute: frozenset[str] = frozenset()
    output: str = "compose.yaml"

    def inside(self, path: Path) -> str:
        """Where a runner's container has a file or folder that the pipeline file names."""
        return naming.inside(path, self.pipeline.folder, self.absolute)


def common(around: Surroundings) -> Block:
    """What all runners have in common, for `x-runner`."""
    return Block(
        {
            "image": literal(around.image),
            "init": True,
            "restart": "on-failure",
            "stop_grace_period": format_duration(around.pipeline.drain_s + _LONGER_S),
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": ["/tmp:nosuid,nodev,mode=1777"],  # noqa: S108 - the container's
            "healthcheck": Block(
                {
                    "test": ["CMD", f"{naming.SHIMS_OF_RUNNER}/{naming.SHIM}", "connector-probe", "http", _HEALTH],
                    "interval": _CHECK_EVERY,
                    "timeout": "5s",
                    "retries": 3,
                    "start_period": "30s",
                }
            ),
        },
        notes={
            "stop_grace_period": "The drain of the pipeline, and some time to say how it went.",
            "healthcheck": "Healthy once its processors can reach it: they start then.",
        },
        mark=COMMON,
    )


def service(runner: str | None, around: Surroundings) -> Block:
    """The service of one runner of the pipeline (None: it has one)."""
    pipeline, links = around.pipeline, around.links
    own = [spec for spec in pipeline.processors.values() if spec.runner == runner]
    networks = list(links.networks.get(runner, {}))
    secrets = [each for each in around.secrets if each.runner == runner]
    copied = [each for each in secrets if each.variable is not None]
    keys: dict[str, Value] = {
        "<<": Alias(COMMON),
        "command": _command(runner, around),
        "read_only": None if copied else True,
        **({"networks": networks} if networks else {"network_mode": "none"}),
        "ports": links.ports.get(runner),
        "depends_on": [naming.NATS] if naming.NATS in networks else None,
        "environment": _environment(around.variables),
        "secrets": [each.name for each in secrets] or None,
        "volumes": _volumes(runner, own, around),
    }
    notes = {}
    if copied:
        notes["secrets"] = "Those of the environment are copied into the container, which a read-only root refuses."
    if not networks:
        notes["network_mode"] = "All that it joins is in its own memory and on its bridges."
    return Block(keys, notes=notes)


def _command(runner: str | None, around: Surroundings) -> list[str]:
    file = literal(naming.inside(around.file, around.pipeline.folder))
    part = [] if runner is None else ["--runner", runner]
    shims = ["--shim-dir", naming.SHIMS_OF_RUNNER, "--logs", "containers"]
    return ["sidecar", file, "--changes", naming.CHANGES, "--state-dir", naming.STATE, *shims, *part]


def _environment(variables: Iterable[Variable]) -> Block | None:
    """The variables that the pipeline file puts in, as they are where the project is brought up."""
    values = {
        each.name: f"${{{each.name}?the pipeline file needs it}}" if each.needed else f"${{{each.name}:-}}"
        for each in variables
    }
    return Block(values) if values else None


def _volumes(runner: str | None, own: Iterable[Processor], around: Surroundings) -> list[str | Block]:
    """Its state, the bridges of its processors, and the files that the pipeline file names."""
    folder = around.pipeline.folder
    shared = [
        f"{naming.state(runner)}:{naming.STATE}",
        f"{naming.SHIMS}:{naming.SHIMS_OF_RUNNER}",
        *(f"{naming.bridge(spec.name)}:{naming.BRIDGES}/{spec.name}" for spec in own),
    ]
    files: dict[str, tuple[str, bool]] = {
        naming.inside(around.file, folder): (naming.here(around.file, folder), False),
        naming.CHANGES: (f"./{around.side}/{CHANGES}", False),
    }
    for path, (target, writable) in needed_files(around, runner).items():
        files[target] = (naming.here(path, folder), writable or files.get(target, ("", False))[1])
    return [*shared, *(_bind(source, target, writable=writable) for target, (source, writable) in files.items())]


def _bind(source: str, target: str, *, writable: bool) -> str | Block:
    """A mount in one line, or where a path has a colon, which divides such a line, as a mapping."""
    if ":" not in source + target:
        return literal(f"{source}:{target}{'' if writable else ':ro'}")
    read_only = None if writable else True
    return Block({"type": "bind", "source": literal(source), "target": literal(target), "read_only": read_only})


def needed_files(around: Surroundings, runner: str | None) -> Mapping[Path, tuple[str, bool]]:
    """What of this machine's files a runner needs besides the pipeline file.

    Each with where its container has it, and whether it writes there.
    """
    pipeline = around.pipeline
    found = {schema: (around.inside(schema), False) for schema in around.schemas}
    for spec in pipeline.processors.values():
        if spec.template is not None:  # of every runner: the file is read as a whole
            found[spec.template] = around.inside(spec.template), False
    for channel in pipeline.channels.values():
        if channel.file is not None and _has(pipeline, channel, runner):
            place = str(PurePosixPath(around.inside(channel.file.path)).parent)
            folder = channel.file.path.parent
            found[folder] = place, bool(channel.writers) or found.get(folder, ("", False))[1]
        found |= {path: (around.inside(path), False) for path in _protection(channel)}
    return found


def _protection(channel: Channel) -> Iterator[Path]:
    """The files with its certificates and keys."""
    network = channel.network
    if network is not None and network.tls is not None:
        tls = network.tls
        yield from (path for path in (tls.ca, tls.cert, tls.key) if path is not None)
    if network is not None and network.keys is not None:
        yield network.keys


def _has(pipeline: Pipeline, channel: Channel, runner: str | None) -> bool:
    return any(pipeline.processors[name].runner == runner for name in (*channel.writers, *channel.readers))
