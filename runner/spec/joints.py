"""A pipeline that is split over several runners: who has what, and which channels can join them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.spec.command import similar
from runner.spec.findings import Findings, Scope, Source, listed
from runner.spec.listeners import Meeting, clash, meeting_of, other_way_round, out_of_reach, relays
from runner.spec.model import Channel, Network, Runner
from runner.spec.network import JOINING
from runner.spec.processor import Resolved
from runner.spec.protection import check_protection


def check_runners(
    processors: Mapping[str, Resolved], runners: Mapping[str, Runner], source: Source, findings: Findings
) -> None:
    """Each processor is one of a runner that is there, and each runner has one; or there are none."""
    known = dict.fromkeys(runners)
    lost = False
    for each in processors.values():
        named = each.processor.runner
        if named is None and runners:
            message = f"the pipeline has the runners {listed(list(runners), 'and')}, and nothing says whose this is"
            each.scope.error((), message, f'write runner = "{next(iter(runners))}"', at="key")
            lost = True
        elif named is not None and named not in runners:
            remedy = similar(named, known) or f"write [runners.{named}], or leave it out"
            each.scope.error(("runner",), f'there is no runner "{named}"', remedy)
            lost = True
    for name in () if lost else runners:
        if all(each.processor.runner != name for each in processors.values()):
            scope = Scope(findings, source, ("runners", name))
            scope.error(
                (), "no processor is this runner's", f'write runner = "{name}" in one, or leave it out', at="key"
            )


def whose(processors: Mapping[str, Resolved]) -> dict[str, str]:
    """Which runner has each processor; "" for the only one."""
    return {name: each.processor.runner or "" for name, each in processors.items()}


def check_near(scope: Scope, channel: Channel, processors: Mapping[str, Resolved]) -> None:
    """A channel that stays in its runner has both ends there."""
    has = whose(processors)
    names = list(dict.fromkeys(has[name] for name in (*channel.writers, *channel.readers)))
    if len(names) > 1:
        kinds = listed([f'"{kind}"' for kind in JOINING])
        scope.error(
            ("kind",) if channel.kind != "memory" else (),
            f"it joins the runners {listed(names, 'and')}, and a {channel.kind} channel does not leave its runner",
            f"write kind = {kinds}",
            at="value" if channel.kind != "memory" else "key",
        )


def check_far_end(scope: Scope, channel: Channel, processors: Mapping[str, Resolved]) -> None:
    """A network channel has somebody else at one end: a runner, or any program."""
    assert channel.network is not None
    if not channel.network.plain:
        has = whose(processors)
        names = {has[name] for name in (*channel.writers, *channel.readers)}
        if len(names) == 1 and channel.writers and channel.readers:
            scope.error(("kind",), "both its ends are in the same runner", _MEMORY)
        return
    if channel.schema is not None and not channel.writers:
        message = "checks nothing of what comes from other programs yet"
        scope.error(("schema",), message, "give it to the channel that its reader writes", at="key")
    if channel.writers and channel.readers:
        scope.error(
            ("kind",),
            f"its ends are {channel.writers[0]} and {channel.readers[0]}, and one of them is another program",
            'write kind = "memory" between them, or peer = "runner"' if channel.kind != "http" else _MEMORY,
        )


_MEMORY = 'write kind = "memory" (or "durable"), or leave the table out'


def check_meetings(
    channels: Mapping[str, Channel],
    tables: Mapping[str, Mapping[str, Any]],
    processors: Mapping[str, Resolved],
    runners: Mapping[str, Runner],
    *,
    source: Source,
    findings: Findings,
    only: str | None,
) -> None:
    """The ends of each network channel can meet, and what protects them is there (`only`: for this runner alone)."""
    has = whose(processors)
    for name, channel in channels.items():
        if channel.network is None:
            continue
        scope, table = Scope(findings, source, ("channels", name)), tables.get(name, {})
        meeting = meeting_of(channel, has)
        if not _check_ways(scope, channel, table, meeting, has):
            continue
        _check_reach(scope, channel.network, table, meeting, runners)
        check_protection(scope, channel, table, meeting, runners, only=only)
    for earlier, later in clash(channels.values(), has, runners):
        scope, table = Scope(findings, source, ("channels", later.channel)), tables.get(later.channel, {})
        message = f'the channel "{earlier.channel}" is listened for there already'
        scope.error(("url",) if "url" in table else ("address",), message, "give each a port of its own")


def _check_ways(
    scope: Scope, channel: Channel, table: Mapping[str, Any], meeting: Meeting, has: Mapping[str, str]
) -> bool:
    """Whether every message has one way to each reader, and every runner that connects one address to go to."""
    assert channel.network is not None
    round_trips = () if channel.network.plain else relays(channel, has)
    if round_trips:
        here = round_trips[0]
        message = f"others are at both its ends with the runner {here}, which would send on to them what it gets"
        scope.error((), message, f"give what {here} writes a channel of its own", at="key")
        return False
    if len(meeting.listening) < 2:
        return True
    message = f"the runners {listed(list(meeting.listening), 'and')} would listen at the same address"
    remedy = "give each a channel of its own"
    if not channel.network.plain and len(other_way_round(channel, has).listening) < 2:
        remedy = f'write listen = "{"writer" if channel.network.binds == "reader" else "reader"}"'
    scope.error(("listen",) if "listen" in table else (), message, remedy, at="key")
    return False


def _check_reach(
    scope: Scope, network: Network, table: Mapping[str, Any], meeting: Meeting, runners: Mapping[str, Runner]
) -> None:
    far = out_of_reach(network, meeting, runners)
    if far is None:
        return
    (listening, there), (connecting, here) = far
    scope.warning(
        ("url",) if "url" in table else ("address",),
        f"{network.host} is reached on one machine only, and {connecting} is at {here}, {listening} at {there}",
        f'write address = ":{network.port}", which has the host of the runner that listens',
    )
