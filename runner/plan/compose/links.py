"""What becomes of a pipeline's channels in a Compose project: where their ends meet, and who has to get there.

The pipeline file stays as it is; what has to be otherwise between containers is a `Changes`, laid over it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.plan.compose import naming
from runner.spec.listeners import is_loopback
from runner.spec.model import Channel, Network, Pipeline

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - of a container, whose ports are published where the file says


@dataclass
class Links:
    """What the channels of a project ask for.

    `changes` are keys of channel tables. `networks` and `ports` are those of runners (None: the only one), by name;
    `nats_ports` are those at which the project's server is for programs outside of it.
    `problems` are what cannot be, each with the channel's name. `with_url`: channels whose place is written as a URL.
    """

    with_url: frozenset[str]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str | None, dict[str, None]] = field(default_factory=dict)
    ports: dict[str | None, list[str]] = field(default_factory=dict)
    nats: bool = False
    nats_ports: list[str] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def join(self, runner: str | None, network: str) -> None:
        """`runner` is to be in `network`."""
        self.networks.setdefault(runner, {})[network] = None


def links_of(pipeline: Pipeline, tables: Mapping[str, Any]) -> Links:
    """What the channels of `pipeline` ask for between containers; `tables` are the channels' as they were written."""
    links = Links(with_url=frozenset(name for name, table in tables.items() if "url" in table))
    for channel in pipeline.channels.values():
        network = channel.network
        if network is None:
            continue
        if channel.kind == "nats":
            _nats(links, pipeline, channel, network)
        elif network.plain or not (channel.writers and channel.readers):
            _outside(links, pipeline, channel, network)
        else:
            _between(links, pipeline, channel, network)
    return links


def _runners(pipeline: Pipeline, channel: Channel) -> Iterator[str | None]:
    """The runners at its ends, each once."""
    names = (*channel.writers, *channel.readers)
    yield from dict.fromkeys(pipeline.processors[name].runner for name in names)


def _nats(links: Links, pipeline: Pipeline, channel: Channel, network: Network) -> None:
    """A server at loopback becomes a service of the project; any other is somebody else's, and stays."""
    local = any(is_loopback(_host(server)) for server in network.servers)
    if local and (network.token is not None or network.tls is not None):
        links.problems.append(
            (
                channel.name,
                "its server is on this machine's loopback and asks for a token or TLS, which no container gets to",
                "write a server of your own in compose.override.yaml, and its name in url",
            )
        )
        return
    for runner in _runners(pipeline, channel):
        links.join(runner, naming.NATS if local else naming.OUTSIDE)
    if local:
        links.nats = True
        if network.plain or not (channel.writers and channel.readers):
            ports = [_port(server) for server in network.servers]
            links.nats_ports += [port for port in ports if port not in links.nats_ports]
        links.changes[channel.name] = {"url": f"nats://{naming.NATS}:{naming.NATS_PORT}"}


def _between(links: Links, pipeline: Pipeline, channel: Channel, network: Network) -> None:
    """Both ends are runners of the project: they meet at the service of the one that listens."""
    for runner in _runners(pipeline, channel):
        links.join(runner, naming.RUNNERS)
    links.changes[channel.name] = _place(links, channel, network, "") | _open(network)


def _outside(links: Links, pipeline: Pipeline, channel: Channel, network: Network) -> None:
    """One end is nobody of the project: what is listened at here is published where the file says."""
    here = "reader" if channel.readers else "writer"
    (runner, *_) = _runners(pipeline, channel)
    links.join(runner, naming.OUTSIDE)
    if network.binds == here:
        host = network.host if network.host is not None else _of_runner(pipeline, runner)
        port = _published(host, network.port)
        if not network.port:
            links.problems.append(
                (
                    channel.name,
                    "it listens at port 0, one that is free, and what is published is a port that is known before",
                    "write one from 1 to 65535",
                )
            )
            return
        if port is None:
            links.problems.append(
                (
                    channel.name,
                    f"it listens at {host}, and a container's port is published at a number, not at a name",
                    f"write 127.0.0.1:{network.port} for this machine alone, the number of {host}, or 0.0.0.0 for all",
                )
            )
            return
        links.ports.setdefault(runner, []).append(port)
        links.changes[channel.name] = _place(links, channel, network, _EVERYWHERE) | _open(network)
    elif network.host is not None and is_loopback(network.host):
        links.problems.append(
            (
                channel.name,
                f"it connects to {network.host}, which is the container itself there",
                "write the name by which the other program is reached from containers",
            )
        )


def _published(host: str, port: int) -> str | None:
    """The port, published at `host` alone; None where that is a name."""
    if host in {_EVERYWHERE, "::"}:
        return f"{port}:{port}"
    try:
        number = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None
    return f"[{number}]:{port}:{port}" if number.version == 6 else f"{number}:{port}:{port}"


def _of_runner(pipeline: Pipeline, runner: str | None) -> str:
    """Where a runner listens that no address says more of."""
    known = pipeline.runners.get(runner or "")
    return known.host if known is not None and known.host is not None else "127.0.0.1"


def _place(links: Links, channel: Channel, network: Network, host: str) -> dict[str, Any]:
    """`address` or `url`, as it was written, with another host ("": that of the runner which listens)."""
    address = f"{host}:{network.port}"
    if channel.name not in links.with_url:
        return {"address": address}
    secure = network.tls is not None
    scheme = {"websocket": "wss" if secure else "ws", "http": "https" if secure else "http"}.get(channel.kind, "tcp")
    return {"url": f"{scheme}://{address}{network.path if scheme != 'tcp' else ''}"}


def _open(network: Network) -> dict[str, Any]:
    """What lets a listener be without protection where only the project's containers, or a published port, lead."""
    protected = network.tls is not None or network.keys is not None
    return {} if protected or network.insecure else {"insecure": True}


def _port(server: str) -> str:
    """At this machine alone, where the file says that the server is."""
    place = server.removeprefix("nats://").rpartition("@")[2].rstrip("/")
    port = place.rpartition(":")[2] if re.search(r":[0-9]+$", place) else str(naming.NATS_PORT)
    return f"127.0.0.1:{port}:{naming.NATS_PORT}"


def _host(server: str) -> str:
    place = server.removeprefix("nats://").rpartition("@")[2].rstrip("/")
    host = place.rpartition(":")[0] if ":" in place else place
    return host.strip("[]")
