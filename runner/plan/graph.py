"""Pictures of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator

from runner.spec.model import Channel, Contract, OnFull, Pipeline, Port, Processor
from runner.units import format_size

DEFAULT_CAPACITY_BYTES = Channel("default").capacity_bytes


def to_mermaid(pipeline: Pipeline) -> str:
    """The pipeline as a Mermaid flowchart: processors are boxes, channels are arrows with their names.

    A channel with several writers or readers is a node of its own, so that each channel is drawn once. Processors stand
    together in a box by their runner, where there are several.
    """
    lines = ["flowchart LR"]
    for runner, processors in _by_runner(pipeline):
        nodes = [_mermaid_node(processor) for processor in processors]
        if runner is None:
            lines += [f"    {node}" for node in nodes]
            continue
        lines.append(f'    subgraph r_{_mermaid_id(runner)}["{_mermaid_text(runner)}"]')
        lines += [*(f"        {node}" for node in nodes), "    end"]
    for channel in pipeline.channels.values():
        label = _mermaid_text(_channel_label(pipeline, channel))
        if _is_arrow(channel):
            writer, reader = (f"p_{_mermaid_id(name)}" for name in (channel.writers[0], channel.readers[0]))
            lines.append(f'    {writer} -->|"{label}"| {reader}')
            continue
        hub = f"c_{_mermaid_id(channel.name)}"
        lines.append(f'    {hub}(["{label}"])')
        lines += [f"    p_{_mermaid_id(name)} --> {hub}" for name in channel.writers]
        lines += [f"    {hub} --> p_{_mermaid_id(name)}" for name in channel.readers]
    return "\n".join(lines) + "\n"


def to_dot(pipeline: Pipeline) -> str:
    """The pipeline as a Graphviz digraph, drawn as `to_mermaid` does."""
    lines = [f"digraph {_quoted(pipeline.name)} {{", "    rankdir=LR;", "    node [shape=box, style=rounded];"]
    for runner, processors in _by_runner(pipeline):
        nodes = [_dot_node(processor) for processor in processors]
        if runner is None:
            lines += [f"    {node}" for node in nodes]
            continue
        lines += [f"    subgraph {_quoted('cluster ' + runner)} {{", f"        label={_quoted(runner)};"]
        lines += [*(f"        {node}" for node in nodes), "    }"]
    for channel in pipeline.channels.values():
        label = _quoted(_channel_label(pipeline, channel))
        if _is_arrow(channel):
            writer, reader = (_quoted(f"p {name}") for name in (channel.writers[0], channel.readers[0]))
            lines.append(f"    {writer} -> {reader} [label={label}];")
            continue
        hub = _quoted(f"c {channel.name}")
        lines.append(f"    {hub} [label={label}, shape=oval];")
        lines += [f"    {_quoted('p ' + name)} -> {hub};" for name in channel.writers]
        lines += [f"    {hub} -> {_quoted('p ' + name)};" for name in channel.readers]
    return "\n".join([*lines, "}"]) + "\n"


def _by_runner(pipeline: Pipeline) -> list[tuple[str | None, list[Processor]]]:
    """Each runner with its processors, in the order of the file; the runner None: the only one."""
    runners: list[str | None] = [*pipeline.runners] or [None]
    return [
        (runner, [each for each in pipeline.processors.values() if runner in {None, each.runner}]) for runner in runners
    ]


def _mermaid_node(processor: Processor) -> str:
    left, right = _mermaid_shape(processor)
    return f'p_{_mermaid_id(processor.name)}{left}"{_mermaid_text(_node_label(processor))}"{right}'


def _dot_node(processor: Processor) -> str:
    shape = ", shape=cds" if processor.is_source else "" if processor.writes else ", shape=cylinder"
    return f"{_quoted('p ' + processor.name)} [label={_quoted(_node_label(processor))}{shape}];"


def _is_arrow(channel: Channel) -> bool:
    return len(channel.writers) == 1 and len(channel.readers) == 1


def _node_label(processor: Processor) -> str:
    """Name, then what is not the default: contract and replicas."""
    notes = [str(processor.contract)] if processor.contract is not Contract.STREAM else []
    if processor.replicas > 1:
        notes.append(f"× {processor.replicas}")  # noqa: RUF001  (the sign people read as "times")
    return "\n".join([processor.name, " ".join(notes)] if notes else [processor.name])


def _channel_label(pipeline: Pipeline, channel: Channel) -> str:
    """Name, then what is not the default: kind, codec, ports, capacity, and what happens when it is full."""
    notes = [channel.kind] if channel.kind != "memory" else []
    ends = [(name, port) for name, port in _ports(pipeline, channel)]
    codecs = list(dict.fromkeys(port.codec for _, port in ends))
    if codecs != ["lines"]:
        notes.append(" to ".join(codecs))
    notes += [f"{name}: {port.name}" for name, port in ends if port.name not in {"stdin", "stdout"}]
    if channel.capacity_bytes != DEFAULT_CAPACITY_BYTES:
        notes.append(format_size(channel.capacity_bytes))
    if channel.on_full is not OnFull.BLOCK:
        notes.append(str(channel.on_full))
    return "\n".join([channel.name, *([", ".join(notes)] if notes else [])])


def _ports(pipeline: Pipeline, channel: Channel) -> Iterator[tuple[str, Port]]:
    """The ports that `channel` joins, writers first."""
    for names, side in ((channel.writers, "writes"), (channel.readers, "reads")):
        for name in names:
            ports: tuple[Port, ...] = getattr(pipeline.processors[name], side)
            for port in ports:
                if channel.name in port.channels:
                    yield name, port


def _mermaid_shape(processor: Processor) -> tuple[str, str]:
    if processor.is_source:
        return "[/", "/]"
    return ("[", "]") if processor.writes else ("[(", ")]")


def _mermaid_id(name: str) -> str:
    """Names begin with a prefix and hold letters, digits and `_` only: `end` and `-` mean something to Mermaid."""
    return name.replace("_", "__").replace("-", "_0")


def _mermaid_text(text: str) -> str:
    return text.replace('"', "#quot;").replace("\n", "<br/>")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
