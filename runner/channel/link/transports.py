"""What carries a link, by the kind of its channel."""

from __future__ import annotations

from runner.channel.link.transport import Bounds, Transport
from runner.spec.model import Network


def transport_for(kind: str, network: Network, frame_bytes: int) -> Transport:
    """How the two runners of a channel reach each other. Raises RunnerError for keys that are not there."""
    bounds = Bounds(frame_bytes)
    if kind == "websocket":
        from runner.channel.link.websocket import WebsocketTransport

        return WebsocketTransport(network, bounds)
    if kind == "zeromq":
        from runner.channel.link.zeromq import ZeromqTransport

        return ZeromqTransport(network, bounds)
    from runner.channel.link.tcp import TcpTransport

    return TcpTransport(network, bounds)
