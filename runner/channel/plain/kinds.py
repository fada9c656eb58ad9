"""The far end of a channel with a plain peer, by its kind and its direction."""

from __future__ import annotations

from runner.channel.network import FarEnd, Here, Queue
from runner.channel.plain.base import Meeting, PlainReceiver, PlainSender
from runner.spec.model import Channel, Network


def plain_ends(spec: Channel, network: Network, queue: Queue, here: Here) -> list[FarEnd]:
    """The one far end. Raises RunnerError for keys or certificates that are not there."""
    del here
    writes_here = bool(spec.writers)
    listens = network.binds == ("writer" if writes_here else "reader")
    if spec.kind == "http":
        return [_http(network, queue, listens=listens, writes_here=writes_here)]
    meeting = _meeting(spec.kind, network, queue, listens=listens, writes_here=writes_here)
    return [PlainSender(queue, network, meeting) if writes_here else PlainReceiver(queue, network, meeting)]


def _meeting(kind: str, network: Network, queue: Queue, *, listens: bool, writes_here: bool) -> Meeting:
    if kind == "websocket":
        from runner.channel.plain.websocket import WebsocketMeeting

        return WebsocketMeeting(network, queue.codec, listens=listens, writes_here=writes_here)
    if kind == "zeromq":
        from runner.channel.plain.zeromq import ZeromqMeeting

        return ZeromqMeeting(network, queue.codec, listens=listens, writes_here=writes_here)
    from runner.channel.plain.tcp import TcpMeeting

    return TcpMeeting(network, queue.codec, listens=listens)


def _http(network: Network, queue: Queue, *, listens: bool, writes_here: bool) -> FarEnd:
    from runner.channel.plain import http

    if not writes_here:
        if listens:
            return http.PostedReceiver(queue, network)
        return PlainReceiver(queue, network, http.StreamingMeeting(network, queue.codec))
    meeting = http.StreamedMeeting(network, queue.codec) if listens else http.PostingMeeting(network, queue.codec)
    return PlainSender(queue, network, meeting)
