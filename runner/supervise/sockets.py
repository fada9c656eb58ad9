"""`bridge = "zeromq"`: the ports of one run of a program, made of its spec and of what its replicas share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runner.bridge.inlet import Inlet
from runner.bridge.outlet import Outlet
from runner.bridge.zeromq.plain import Note, PullFeeder, PushCollector
from runner.errors import RunnerError
from runner.launch.base import TakeListener
from runner.spec.command import env_word
from runner.spec.model import Processor

ENDPOINT = "CONNECTOR_ENDPOINT"
"""Where a program under `acknowledged` connects its one socket."""


def variable(kind: str, port: str) -> str:
    """Where the path or the endpoint of a port stands; `kind` is READER or WRITER."""
    return f"CONNECTOR_{kind}_{env_word(port)}"


def open_plain(
    spec: Processor,
    inlets: Mapping[str, Inlet],
    outlets: Mapping[str, Outlet],
    *,
    skip: Mapping[str, int],
    note: Note,
    on_error: Callable[[RunnerError], None],
    on_progress: Callable[[], None],
) -> tuple[list[PullFeeder], list[PushCollector], dict[str, TakeListener]]:
    """Contract `stream`: a PULL socket for each port that it reads, a PUSH socket for each that it writes."""
    feeders: list[PullFeeder] = []
    collectors: list[PushCollector] = []
    endpoints: dict[str, TakeListener] = {}
    for port in spec.reads:
        feeder = PullFeeder(
            inlets[port.name],
            on_progress=on_progress,
            note=note,
            says_end=spec.end == "empty",
            size_bytes=spec.in_flight.size_bytes,
        )
        feeders.append(feeder)
        endpoints[variable("READER", port.name)] = feeder.endpoint.listen
    for port in spec.writes:
        collector = PushCollector(
            outlets[port.name],
            port=port.name,
            max_message_bytes=spec.max_message_bytes,
            skip=skip.get(port.name, 0),
            note=note,
            on_error=on_error,
            on_end=on_progress,
        )
        collectors.append(collector)
        endpoints[variable("WRITER", port.name)] = collector.endpoint.listen
    return feeders, collectors, endpoints
