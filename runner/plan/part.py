"""The part of a pipeline that one of its runners has."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runner.errors import RunnerError
from runner.spec.findings import listed
from runner.spec.listeners import host_at, meeting_of
from runner.spec.model import Channel, Pipeline, Processor
from runner.spec.protection import tls_at


def part(pipeline: Pipeline, runner: str | None) -> Pipeline:
    """What `runner` (None: the only one) has: its processors, and the channels that they touch.

    Writers and readers of these are its own; who is at their far ends is said beside, by runner. An address without a
    host has that of the runner which listens there. Raises RunnerError for a runner that is not there.
    """
    if runner is not None and runner not in pipeline.runners:
        names = listed(list(pipeline.runners), "and")
        raise RunnerError(
            f"the pipeline has no runner `{runner}`",
            where=str(pipeline.file) if pipeline.file is not None else None,
            remedy=f"it has {names}" if names else "it has one runner; leave --runner out",
        )
    if runner is None and pipeline.runners:
        raise RunnerError("the pipeline has several runners", remedy=f"say which: {listed(list(pipeline.runners))}")
    own = {name: spec for name, spec in pipeline.processors.items() if spec.runner == runner or runner is None}
    channels = {}
    for name, channel in pipeline.channels.items():
        if any(end in own for end in (*channel.writers, *channel.readers)):
            channels[name] = _own_half(pipeline, channel, own, runner)
    return replace(pipeline, processors=own, channels=channels, runner=runner)


def listens(pipeline: Pipeline, runner: str) -> dict[str, tuple[str, int]]:
    """Host and port that `runner` of the whole pipeline listens at, by channel."""
    whose = {name: spec.runner or "" for name, spec in pipeline.processors.items()}
    found = {}
    for name, channel in pipeline.channels.items():
        meeting = meeting_of(channel, whose)
        if channel.network is not None and runner in meeting.listening:
            found[name] = host_at(channel.network, meeting, runner, pipeline.runners), channel.network.port
    return found


def whole(pipeline: Pipeline) -> bool:
    """Whether one runner has all of it."""
    return not pipeline.runners


def _own_half(pipeline: Pipeline, channel: Channel, own: Mapping[str, Processor], runner: str | None) -> Channel:
    """The channel as the runner of the processors `own` has it."""
    if channel.network is None:
        return channel
    whose = {name: spec.runner or "" for name, spec in pipeline.processors.items()}
    meeting, here = meeting_of(channel, whose), runner or ""
    writers = tuple(name for name in channel.writers if name in own)
    readers = tuple(name for name in channel.readers if name in own)
    far_writers, far_readers = (
        tuple(dict.fromkeys(whose[name] for name in names if name not in own))
        for names in (channel.writers, channel.readers)
    )
    if not channel.writers and not channel.network.plain:
        far_writers = ("",)
    if not channel.readers and not channel.network.plain:
        far_readers = ("",)
    return replace(
        channel,
        writers=writers,
        readers=readers,
        far_writers=far_writers if readers else (),
        far_readers=far_readers if writers else (),
        network=replace(
            channel.network,
            host=host_at(channel.network, meeting, here, pipeline.runners),
            tls=tls_at(channel.network, meeting, here),
        ),
    )
