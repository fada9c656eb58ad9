"""The far ends of a channel over NATS."""

from __future__ import annotations

from runner.channel.nats.names import names_of
from runner.channel.nats.receiver import NatsReceiver
from runner.channel.nats.sender import NatsSender
from runner.channel.network import FarEnd, Here, Queue
from runner.spec.model import Channel, Network


def nats_ends(spec: Channel, network: Network, queue: Queue, here: Here) -> list[FarEnd]:
    """One for each runner that reads, one for all that write. Raises RunnerError without the client library."""
    readers = ("",) if network.plain and spec.writers else spec.far_readers
    ends: list[FarEnd] = [
        NatsSender(names_of(spec, network, here, runner), network, queue, here, runner, senders=len(readers))
        for runner in readers
    ]
    if spec.far_writers or (network.plain and spec.readers):
        ends.append(NatsReceiver(names_of(spec, network, here, here.runner), network, queue, spec.far_writers))
    return ends
