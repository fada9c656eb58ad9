"""Where the ends of a network channel meet: which runners listen there, which go there, and at which host.

Pure functions. A channel says at which end its address is listened at (`Network.binds`); whose processors stand at that
end decides the rest. Runners are told by name; "" is the only one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from runner.spec.model import Channel, Network, Runner

HERE = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - who connects has to go to one of them


class Meeting(Struct, frozen=True):
    """The runners of the file that have an end of a channel, each once: those that listen, and those that go there.

    A runner whose own processors have both ends among themselves is at neither.
    """

    listening: tuple[str, ...]
    connecting: tuple[str, ...]


class Listening(Struct, frozen=True):
    """An address that a runner listens at for a channel."""

    channel: str
    runner: str
    host: str
    port: int


def meeting_of(channel: Channel, whose: Mapping[str, str]) -> Meeting:
    """Who listens and who goes there; `whose` says for each processor which runner has it."""
    network = channel.network
    if network is None:
        return Meeting((), ())
    writers, readers = _runners(channel.writers, whose), _runners(channel.readers, whose)
    if network.servers:
        return Meeting((), tuple(dict.fromkeys((*writers, *readers))))
    bound, others = (readers, writers) if network.binds == "reader" else (writers, readers)
    if network.plain or not bound or not others:  # who is at the other end is not in the file
        return Meeting(bound, others)
    return Meeting(_with_far(bound, others), _with_far(others, bound))


def other_way_round(channel: Channel, whose: Mapping[str, str]) -> Meeting:
    """The same if the other end listened."""
    assert channel.network is not None
    binds = "writer" if channel.network.binds == "reader" else "reader"
    return meeting_of(replace(channel, network=replace(channel.network, binds=binds)), whose)


def relays(channel: Channel, whose: Mapping[str, str]) -> tuple[str, ...]:
    """The runners that would send on what they get, as others stand at both ends of the channel with them."""
    writers, readers = _runners(channel.writers, whose), _runners(channel.readers, whose)
    return tuple(each for each in writers if each in readers and len(writers) > 1 and len(readers) > 1)


def host_at(network: Network, meeting: Meeting, here: str, runners: Mapping[str, Runner]) -> str:
    """The host at which the runner `here` listens, or to which it goes: then that of the runner that listens there."""
    if network.host is not None and (here in meeting.listening or network.host not in _EVERYWHERE):
        return network.host
    listening = here if here in meeting.listening else next(iter(meeting.listening), None)
    runner = runners.get(listening) if listening is not None else None
    return runner.host if runner is not None and runner.host is not None else HERE


def clash(
    channels: Iterable[Channel], whose: Mapping[str, str], runners: Mapping[str, Runner]
) -> list[tuple[Listening, Listening]]:
    """The addresses that two channels would listen at, the second of each pair later in the file."""
    seen: list[Listening] = []
    found = []
    for channel in channels:
        network, meeting = channel.network, meeting_of(channel, whose)
        if network is None or not network.port or len(meeting.listening) != 1:
            continue
        runner = meeting.listening[0]
        here = Listening(channel.name, runner, host_at(network, meeting, runner, runners), network.port)
        earlier = next((each for each in seen if _same_place(each, here, runners)), None)
        if earlier is not None:
            found.append((earlier, here))
        seen.append(here)
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can come there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def out_of_reach(
    network: Network, meeting: Meeting, runners: Mapping[str, Runner]
) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Who listens and who goes there, each with its machine; None where these are one, or others can come there."""
    if network.host is None or not is_loopback(network.host):
        return None
    for listening in meeting.listening:
        for connecting in meeting.connecting:
            there, here = _machine(listening, runners), _machine(connecting, runners)
            if there is not None and here is not None and there != here:
                return (listening, there), (connecting, here)
    return None


def _runners(processors: Iterable[str], whose: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(whose[name] for name in processors))


def _with_far(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that somebody else is at the other end for."""
    return tuple(each for each in names if any(other != each for other in others))


def _machine(runner: str, runners: Mapping[str, Runner]) -> str | None:
    """Where a runner is, by its host; None: on the machine of those who have none."""
    host = runners[runner].host if runner in runners else None
    return None if host is None or is_loopback(host) else host


def _same_place(one: Listening, other: Listening, runners: Mapping[str, Runner]) -> bool:
    if one.port != other.port:
        return False
    if _machine(one.runner, runners) != _machine(other.runner, runners):
        return False
    hosts = {HERE if each.host == "localhost" else each.host for each in (one, other)}
    return len(hosts) == 1 or any(host in _EVERYWHERE for host in hosts)
