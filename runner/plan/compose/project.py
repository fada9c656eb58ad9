"""A whole Compose project: services, networks, volumes and secrets, and the files that stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.plan.compose import naming, processors, runners
from runner.plan.compose.runners import Secret, Surroundings
from runner.plan.compose.yaml import Alias, Block, Value, dump, literal
from runner.plan.images import Image
from runner.spec.model import Contract, Pipeline, Processor

MARK = "Written by `connector export compose`"
"""How a Compose file begins that may be written anew."""
FOUND_BY_COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""The files that Compose looks for, the first one first; it reads one of them."""
MOST_REPLICAS = 8
"""So many containers of a processor may work at once (`docker compose up --scale`); more stand by."""
_BRIDGE = "bridge"
_BRIDGE_SIZE = "64m"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a project is made of besides the pipeline. `images` and their `names` are by processor."""

    around: Surroundings
    images: Mapping[str, Image]
    names: Mapping[str, str]
    seccomp: str


def compose_text(ground: Ground) -> str:
    """The Compose file."""
    around = ground.around
    pipeline = around.pipeline
    document = Block(
        {
            "name": pipeline.name,
            "x-processor": processors.common(pipeline, around.side),
            "x-runner": runners.common(around),
            "x-bridge": _bridge(),
            "services": _services(ground),
            "networks": _networks(pipeline, around),
            "volumes": _volumes(pipeline, around),
            "secrets": _secrets(around.secrets, pipeline),
        },
        notes={
            "x-processor": "Processors: images as they are, behind walls. Each is started by the shim, which gets from "
            "its runner what to run, and pipes for its messages.",
            "x-runner": "Runners: they move the messages, start programs again, and keep what must not be lost.",
            "volumes": "Bridges go with the last container that uses them; the shim and the state stay.",
            "networks": "None of the ways between processors is a network: messages go over the bridges.",
            "x-bridge": "A bridge is in memory: the socket between a processor and its runner, and what they share.",
        },
        apart=True,
    )
    return dump(document, _heading(ground))


def _heading(ground: Ground) -> str:
    around = ground.around
    found = around.output in FOUND_BY_COMPOSE
    command = "docker compose" if found else f"docker compose -f {around.output}"
    yours = "compose.override.yaml" if found else "a file of your own, behind another -f"
    verbs = [
        (f"{command} up", f"all of it: {', '.join(around.pipeline.processors)}"),
        (f"{command} logs -f", "what programs and runners say"),
        (f"{command} down", "drains first; -v gives up the state as well"),
    ]
    width = max(len(verb) for verb, _ in verbs) + 4
    return "\n".join(
        [
            f"{MARK} from {around.file.name}. Change that and export again; what is yours goes into {yours}.",
            "",
            *(f"  {verb:<{width}} # {what}" for verb, what in verbs),
        ]
    )


def _services(ground: Ground) -> Block:
    around = ground.around
    pipeline = around.pipeline
    keys: dict[str, Value] = {}
    notes: dict[str, str] = {}
    for runner in pipeline.runners or (None,):
        name = naming.sidecar(runner)
        keys[name] = runners.service(runner, around)
        own = [spec for spec in pipeline.processors.values() if spec.runner == runner]
        notes[name] = f"The runner of {', '.join(spec.name for spec in own)}."
        for spec in own:
            keys[spec.name] = processors.service(spec, ground.names[spec.name], ground.images[spec.name], around)
            notes[spec.name] = _said(spec)
    if around.links.nats:
        keys[naming.NATS] = _nats(around.links.nats_ports)
        notes[naming.NATS] = "Keeps the messages of the channels that go over NATS; runners wait for it by themselves."
    return Block(keys, notes=notes, apart=True)


def _said(spec: Processor) -> str:
    """A processor in a line."""
    reads = [channel for port in spec.reads for channel in port.channels]
    writes = [channel for port in spec.writes for channel in port.channels]
    way = f"{', '.join(reads)} -> " if reads else "-> "
    way += ", ".join(writes) if writes else "(out of the pipeline)"
    return f"{way}, {spec.contract}{', not trusted' if spec.untrusted else ''}"


def _nats(ports: list[str]) -> Block:
    return Block(
        {
            "image": "nats:2",
            "command": ["-js", "-sd", "/data"],
            "restart": "unless-stopped",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "networks": [naming.NATS, naming.OUTSIDE] if ports else [naming.NATS],
            "ports": ports or None,
            "volumes": ["nats-data:/data"],
        }
    )


def _networks(pipeline: Pipeline, around: Surroundings) -> Block | None:
    used = dict.fromkeys(name for joined in around.links.networks.values() for name in joined)
    if around.links.nats_ports:
        used[naming.OUTSIDE] = None
    keys: dict[str, Value] = {}
    notes: dict[str, str] = {}
    for name in used:
        keys[name] = Block({} if name == naming.OUTSIDE else {"internal": True})
    if naming.RUNNERS in used:
        notes[naming.RUNNERS] = "From runner to runner, and nobody else."
    if naming.OUTSIDE in used:
        notes[naming.OUTSIDE] = "For channels that lead to programs outside of the project."
    for spec in pipeline.processors.values():
        if spec.network == "outbound":
            name = naming.outbound(spec.name)
            closed = {"com.docker.network.bridge.enable_icc": "false"} if spec.untrusted else None
            keys[name] = Block({"driver_opts": None if closed is None else Block(closed)})
            notes[name] = f"`{spec.name}` gets out by it, and meets nobody in it."
        elif spec.network not in {"none", "host"}:
            keys.setdefault(spec.network, Block({}))
            notes.setdefault(spec.network, "Join your own services to it in compose.override.yaml.")
    return Block(keys, notes=notes) if keys else None


def _bridge() -> Block:
    options = f"size={_BRIDGE_SIZE},uid={naming.USER},gid={naming.USER},mode=755"
    return Block({"driver_opts": Block({"type": "tmpfs", "device": "tmpfs", "o": options})}, mark=_BRIDGE)


def _volumes(pipeline: Pipeline, around: Surroundings) -> Block:
    keys: dict[str, Value] = {naming.bridge(name): Alias(_BRIDGE) for name in pipeline.processors}
    keys[naming.SHIMS] = Block({})
    for runner in pipeline.runners or (None,):
        keys[naming.state(runner)] = Block({})
    if around.links.nats:
        keys["nats-data"] = Block({})
    return Block(keys)


def _secrets(secrets: tuple[Secret, ...], pipeline: Pipeline) -> Block | None:
    keys: dict[str, Value] = {}
    for each in secrets:
        if each.file is not None:
            keys[each.name] = Block({"file": literal(naming.here(each.file, pipeline.folder))})
        else:
            keys[each.name] = Block({"environment": each.variable})
    return Block(keys) if keys else None


def changes_of(ground: Ground, written_secrets: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What is laid over the pipeline file in this project, as its tables.

    `written_secrets` maps "processors.NAME" and "channels.NAME" to variables and the names of their Compose secrets.
    """
    around = ground.around
    pipeline = around.pipeline
    processor_tables: dict[str, dict[str, Any]] = {}
    for spec in pipeline.processors.values():
        program = entrypoint(spec, ground.images[spec.name])
        table: dict[str, Any] = {} if program is None else {"entrypoint": list(program)}
        if may_grow(spec):
            table["replicas"] = max(spec.replicas, MOST_REPLICAS)
        secrets = written_secrets.get(f"processors.{spec.name}")
        if secrets:
            table["secrets"] = {name: f"file:{naming.SECRETS}/{secret}" for name, secret in secrets.items()}
        if table:
            processor_tables[spec.name] = table
    channel_tables = {name: dict(table) for name, table in around.links.changes.items()}
    for name in pipeline.channels:
        for secret in written_secrets.get(f"channels.{name}", {}).values():
            channel_tables.setdefault(name, {})["token"] = f"file:{naming.SECRETS}/{secret}"
    runner_tables = {name: {"host": naming.sidecar(name)} for name in pipeline.runners}
    tables = {"processors": processor_tables, "channels": channel_tables, "runners": runner_tables}
    return {name: table for name, table in tables.items() if table}


def may_grow(spec: Processor) -> bool:
    """Whether `docker compose up --scale` may give it more containers than the pipeline file says.

    Those whose work can be shared out without a difference: who answers each message, in the order of the messages.
    """
    return spec.replicas > 1 or (spec.contract is Contract.ONE_TO_ONE and spec.bridge == "stdio")


def entrypoint(spec: Processor, image: Image) -> tuple[str, ...] | None:
    """What its image says of a program, which no runner can look at there. None: the pipeline file says it all."""
    if spec.entrypoint is not None:
        return None
    words = (*image.entrypoint, *(() if spec.command else image.command))
    return words or None
