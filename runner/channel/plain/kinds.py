"""The far end of a channel with a plain peer, by its kind and its direction."""

from __future__ import annotations

from runner.channel.network import FarEnd, Here, Queue
from runner.channel.plain.base import Meeting
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.plain.receiver import PlainReceiver
from runner.channel.plain.sender import PlainSender
from runner.spec.model import Channel, Network


def plain_ends(spec: Channel, network: Network, queue: Queue, here: Here, bounds: Bounds = BOUNDS) -> list[FarEnd]:
    """The one far end. Raises RunnerError for keys or certificates that are not there."""
    del here
    writes_here = bool(spec.writers)
    listens = network.binds == ("writer" if writes_here else "reader")
    if spec.kind == "http" and writes_here != listens:
        return [_http(network, queue, bounds, writes_here=writes_here)]
    meeting = _meeting(spec.kind, network, queue, listens=listens, writes_here=writes_here)
    if writes_here:
        return [PlainSender(queue, network, meeting, bounds)]
    return [PlainReceiver(queue, network, meeting, bounds)]


def _http(network: Network, queue: Queue, bounds: Bounds, *, writes_here: bool) -> FarEnd:
    """The ends of requests that are posted."""
    if writes_here:
        from runner.channel.plain.posting import PostingSender

        return PostingSender(queue, network, bounds)
    from runner.channel.plain.posted import PostedReceiver

    return PostedReceiver(queue, network, bounds)


def _meeting(kind: str, network: Network, queue: Queue, *, listens: bool, writes_here: bool) -> Meeting:
    """Where peers come from; for http those that get a stream, or send one."""
    if kind == "http" and writes_here:
        from runner.channel.plain.streamed import StreamedMeeting

        return StreamedMeeting(network, queue.codec)
    if kind == "http":
        from runner.channel.plain.streaming import StreamingMeeting

        return StreamingMeeting(network, queue)
    if kind == "websocket":
        from runner.channel.plain.websocket import WebsocketMeeting

        return WebsocketMeeting(network, queue.codec, listens=listens, writes_here=writes_here)
    if kind == "zeromq":
        from runner.channel.plain.zeromq import ZeromqMeeting

        return ZeromqMeeting(network, queue.codec, listens=listens, writes_here=writes_here)
    from runner.channel.plain.tcp import TcpMeeting

    return TcpMeeting(network, queue.codec, listens=listens, writes_here=writes_here)
