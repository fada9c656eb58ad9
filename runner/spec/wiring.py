"""Channels: who writes and who reads each one, and what a channel asks of its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from runner.spec import scanner
from runner.spec.channel_document import ChannelDocument
from runner.spec.command import similar
from runner.spec.files import check_one_end, file_end
from runner.spec.findings import Findings, Scope, Source, listed
from runner.spec.joints import check_far_end, check_near
from runner.spec.json_schema import schema_of
from runner.spec.model import Channel, Contract, Durability, OnFull, Port
from runner.spec.network import KINDS, network_of
from runner.spec.ports import check_kind, path_of
from runner.spec.processor import Resolved
from runner.spec.topology import Edge, cycles, diamonds, outgoing
from runner.spec.values import size_bytes


class End(Struct, frozen=True):
    """One end of a channel: a port of a processor, on its side "writes" or "reads"."""

    resolved: Resolved
    side: str
    port: Port

    def path(self, channel: str) -> scanner.Path:
        """Where `channel` is named, relative to the processor's table."""
        return path_of(self.side, self.resolved.written.get(self.side), self.port.name, channel)

    @property
    def name(self) -> str:
        """The processor's name."""
        return self.resolved.processor.name


class Ends(Struct):
    """All ends of one channel, in the order of the file."""

    writers: list[End] = []
    readers: list[End] = []

    def touch(self, runner: str) -> bool:
        """Whether `runner` has one of them."""
        return any(end.resolved.processor.runner == runner for end in (*self.writers, *self.readers))


def wire(
    processors: Mapping[str, Resolved],
    tables: Mapping[str, Any],
    source: Source,
    findings: Findings,
    *,
    whole: bool,
    folder: Path,
    env: Mapping[str, str],
    only: str | None = None,
) -> dict[str, Channel]:
    """The channels of a pipeline. Not `whole`: ends may be missing after errors, so nothing is said about them.

    `tables` holds the channel tables, by name; paths in them start from `folder`. `only`: files and secrets of channels
    at which this runner has no end are not looked for (None: all are).
    """
    ends = _ends(processors)
    channels: dict[str, Channel] = {}
    for name in dict.fromkeys((*ends, *tables)):
        document = msgspec.convert(tables.get(name, {}), ChannelDocument)
        scope = Scope(findings, source, ("channels", name))
        here = name not in ends or only is None or ends[name].touch(only)
        channels[name] = Channel(
            name,
            document.kind,
            size_bytes(document.capacity),
            OnFull(document.on_full),
            tuple(dict.fromkeys(end.name for end in ends[name].writers)) if name in ends else (),
            tuple(dict.fromkeys(end.name for end in ends[name].readers)) if name in ends else (),
            _durability(document),
            schema_of(scope, folder, document) if here else None,
            file_end(scope, document, tables.get(name, {}), _codecs(ends.get(name)), folder),
            network_of(
                scope,
                document,
                tables.get(name, {}),
                _codecs(ends.get(name)),
                env=env,
                folder=folder,
                reads_here=name in ends and not ends[name].writers,
                whole=here,
            ),
        )
        check_kind(scope, ("kind",), document.kind)
        _check_durability(scope, document)
        if name not in ends:
            if whole:
                scope.error((), "no processor writes or reads this channel", similar(name, ends) or _JOIN, at="key")
            continue
        if whole and document.kind == "file":
            check_one_end(scope, name, tables.get(name, {}), channels, here=here)
        elif whole and channels[name].network is not None:
            check_far_end(scope, channels[name], processors)
        elif whole:
            _check_both_ends(name, ends)
            check_near(scope, channels[name], processors)
        _check_raw(name, ends[name])
        if document.schema is not UNSET and any(end.port.codec == "raw" for end in ends[name].writers):
            scope.error(("schema",), 'codec "raw" has no messages that could fit a schema', "leave it out", at="key")
        if document.kind == "pipe":
            _check_pipe(name, ends[name], scope, tables.get(name, {}))
    _check_shape(processors, ends)
    _check_weaker(channels, ends)
    return channels


def _durability(document: ChannelDocument) -> Durability:
    if document.kind in KINDS:
        return Durability.MEMORY if document.durability is UNSET else Durability(document.durability)
    if document.kind not in _OUTLIVING:
        return Durability.MEMORY
    return Durability.DISK if document.durability is UNSET else Durability(document.durability)


def _check_durability(scope: Scope, document: ChannelDocument) -> None:
    durable, written = document.kind in _OUTLIVING, document.durability
    if document.kind in KINDS:
        durable = written not in {UNSET, "memory"}
    elif durable and written == "memory":
        message = f"a {document.kind} channel outlives something"
        scope.error(("durability",), message, 'write "process" or "disk"')
    elif not durable and written not in {UNSET, "memory"}:
        scope.error(("durability",), f"a {document.kind} channel outlives nothing", 'write kind = "durable"')
    if durable and document.on_full != "block":
        scope.error(("on_full",), f"a {document.kind} channel drops nothing", 'leave it out, or write "block"')


def _check_weaker(channels: Mapping[str, Channel], ends: Mapping[str, Ends]) -> None:
    """An answer that is lost with the runner while its message counts as done with."""
    for name, here in ends.items():
        channel = channels[name]
        if not channel.durable:
            continue
        for reader in here.readers:
            processor = reader.resolved.processor
            answered = reader.port.name == "stdin" or processor.contract is Contract.ACKNOWLEDGED
            if not answered or processor.contract is Contract.STREAM:
                continue
            weaker = [
                other
                for port in processor.writes
                for other in port.channels
                if other in channels and _STRENGTH[channels[other].durability] < _STRENGTH[channel.durability]
            ]
            for other in weaker:
                reader.resolved.scope.warning(
                    ("writes",),
                    f'what {reader.name} reads from "{name}" outlives more than what it writes to "{other}": '
                    "an answer may be lost with the runner, and its message is not sent again",
                    f'write kind = "durable" for "{other}" too',
                    at="key",
                )


def _codecs(ends: Ends | None) -> list[str]:
    """Those of all ends, each once."""
    return [] if ends is None else list(dict.fromkeys(end.port.codec for end in (*ends.writers, *ends.readers)))


_OUTLIVING = {"durable", "file"}
_STRENGTH = {Durability.MEMORY: 0, Durability.PROCESS: 1, Durability.DISK: 2}

_JOIN = "name it in reads or writes of a processor, or leave the table out"


def _ends(processors: Mapping[str, Resolved]) -> dict[str, Ends]:
    ends: dict[str, Ends] = {}
    for resolved in processors.values():
        for port in resolved.processor.writes:
            for channel in port.channels:
                ends.setdefault(channel, Ends()).writers.append(End(resolved, "writes", port))
        for port in resolved.processor.reads:
            for channel in port.channels:
                ends.setdefault(channel, Ends()).readers.append(End(resolved, "reads", port))
    return ends


def _check_both_ends(name: str, ends: Mapping[str, Ends]) -> None:
    """A channel has a writer and a reader."""
    here = ends[name]
    if not here.writers:
        others = {other: None for other, each in ends.items() if each.writers}
        for end in here.readers:
            remedy = similar(name, others) or f'write writes = "{name}" in a processor'
            end.resolved.scope.error(end.path(name), f'nobody writes the channel "{name}"', remedy)
    if not here.readers:
        others = {other: None for other, each in ends.items() if each.readers}
        for end in here.writers:
            remedy = similar(name, others) or f'write reads = "{name}" in a processor, or leave it out'
            end.resolved.scope.error(end.path(name), f'nobody reads the channel "{name}"', remedy)


def _check_raw(name: str, here: Ends) -> None:
    """`raw` has no messages that could be merged or converted."""
    if not any(end.port.codec == "raw" for end in (*here.writers, *here.readers)):
        return
    if len(here.writers) > 1:
        names = listed([end.name for end in here.writers], "and")
        end = here.writers[1]
        end.resolved.scope.error(
            end.path(name), f'codec "raw": {names} cannot be merged into the channel "{name}"', "give each its own"
        )
    for reader in here.readers:
        for writer in here.writers:
            if "raw" in {reader.port.codec, writer.port.codec} and reader.port.codec != writer.port.codec:
                reader.resolved.scope.error(
                    reader.path(name),
                    f'"{name}" is written as {writer.port.codec} by {writer.name} and read as {reader.port.codec}, '
                    "and raw bytes cannot be converted",
                    "give both ends the same codec",
                )


def _check_pipe(name: str, here: Ends, scope: Scope, table: Mapping[str, Any]) -> None:
    """A `pipe` channel is the kernel's pipe between two programs: nothing sees, counts or bounds what is in it."""
    for key in ("capacity", "on_full"):
        if key in table:
            scope.error((key,), "a pipe channel has none: the kernel's pipe is all there is", "leave it out", at="key")
    for side, ends in (("writer", here.writers), ("reader", here.readers)):
        if len(ends) > 1:
            message = f'the pipe channel "{name}" has one {side}, and {ends[0].name} is it already'
            ends[1].resolved.scope.error(ends[1].path(name), message, _COUNTED)
    if len(here.writers) == 1 and len(here.readers) == 1:
        writer, reader = here.writers[0], here.readers[0]
        stdio = all(end.resolved.processor.bridge == "stdio" for end in (writer, reader))
        if stdio and writer.port.codec != reader.port.codec:
            reader.resolved.scope.error(
                reader.path(name),
                f'"{name}" is written as {writer.port.codec} and read as {reader.port.codec}; a pipe converts nothing',
                f"give both ends the same codec, or {_COUNTED}",
            )
    for end in (*here.writers, *here.readers):
        _check_pipe_end(name, end)


def _check_pipe_end(name: str, end: End) -> None:
    processor, scope = end.resolved.processor, end.resolved.scope
    if processor.bridge != "stdio":
        message = f'the pipe channel "{name}" is the kernel\'s, and a socket of ZeroMQ is none of its ends'
        scope.error(("bridge",), message, _COUNTED, at="key")
    if len(end.port.channels) > 1:
        message = f'the pipe channel "{name}" takes all of {end.port.name}, so that joins no other channel'
        scope.error(end.path(name), message, _COUNTED)
    wrong: list[tuple[str, bool, str]] = [
        ("contract", processor.contract is not Contract.STREAM, 'the contract is "stream"'),
        ("replicas", processor.replicas > 1, "there is one instance"),
        ("guard", end.port.name == "stdout" and processor.guard.kind != "none", "there is no guard"),
        ("in_flight", end.side == "reads" and end.port.name == "stdin", "nothing is counted in flight"),
        ("stall", end.side == "reads" and end.port.name == "stdin", "no answer can be missed"),
        ("max_message", True, "messages are not looked at"),
    ]
    for key, applies, rule in wrong:
        if applies and key in end.resolved.written:
            scope.error((key,), f'with the pipe channel "{name}" {rule}', f"leave it out, or {_COUNTED}", at="key")
    if processor.restart.when != "never":
        scope.error(
            ("restart",) if "restart" in end.resolved.written else end.path(name),
            f'with the pipe channel "{name}" nothing can be sent again, so its ends are never restarted',
            f'write restart = "never", or {_COUNTED}',
        )


_COUNTED = 'use kind = "memory"'


def _check_shape(processors: Mapping[str, Resolved], ends: Mapping[str, Ends]) -> None:
    """Cycles are refused, diamonds get a warning."""
    edges = [
        Edge(writer.name, channel, reader, port)
        for channel, here in ends.items()
        for writer in here.writers
        for reader, port in {end.name: end.port.name for end in here.readers}.items()
    ]
    graph = outgoing(processors, edges)
    found = cycles(graph)
    for cycle in found:
        steps = zip(cycle.processors, cycle.channels, strict=True)
        way = "".join(f'{writer} -> "{channel}" -> ' for writer, channel in steps)
        end = next(end for end in ends[cycle.channels[0]].writers if end.name == cycle.processors[0])
        named = listed([f'"{channel}"' for channel in cycle.channels], "and")
        noun = "the channel" if len(cycle.channels) == 1 else "the channels"
        end.resolved.scope.error(
            end.path(cycle.channels[0]),
            f"{noun} {named} make a cycle, which would wait for itself: {way}{cycle.processors[0]}",
            "cycles are not supported yet; cut it",
        )
    if found:
        return
    for diamond in diamonds(graph):
        processors[diamond.writer].scope.warning(
            ("writes",),
            f"what {diamond.writer} writes takes several ways that meet again in {diamond.reader}: "
            "a full channel on one can make the other wait",
            "a ring of waits without progress ends the run with its cause; larger capacities make it less likely",
            at="key",
        )
