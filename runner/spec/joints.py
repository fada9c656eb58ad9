"""A pipeline that is split over several runners: who has what, and which channels can join them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from runner.spec.command import similar
from runner.spec.findings import Findings, Scope, Source, listed
from runner.spec.model import Channel, Runner
from runner.spec.network import JOINING, check_open
from runner.spec.processor import Resolved


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


def _runners(processors: Mapping[str, Resolved], names: tuple[str, ...]) -> list[str]:
    """Whose those processors are, each once; "" for the only one."""
    return list(dict.fromkeys(processors[name].processor.runner or "" for name in names))


def check_near(scope: Scope, channel: Channel, processors: Mapping[str, Resolved]) -> None:
    """A channel that stays in its runner has both ends there."""
    whose = list(dict.fromkeys((*_runners(processors, channel.writers), *_runners(processors, channel.readers))))
    if len(whose) > 1:
        kinds = listed([f'"{kind}"' for kind in JOINING])
        scope.error(
            ("kind",) if channel.kind != "memory" else (),
            f"it joins the runners {listed(whose, 'and')}, and a {channel.kind} channel does not leave its runner",
            f"write kind = {kinds}",
            at="value" if channel.kind != "memory" else "key",
        )


def check_far_end(scope: Scope, channel: Channel, processors: Mapping[str, Resolved]) -> None:
    """A network channel has somebody else at one end: a runner, or any program."""
    assert channel.network is not None
    writers, readers = _runners(processors, channel.writers), _runners(processors, channel.readers)
    if channel.network.plain:
        if channel.schema is not None and not channel.writers:
            message = "checks nothing of what comes from other programs yet"
            scope.error(("schema",), message, "give it to the channel that its reader writes", at="key")
        if channel.writers and channel.readers:
            scope.error(
                ("kind",),
                f"its ends are {channel.writers[0]} and {channel.readers[0]}, and one of them is another program",
                'write kind = "memory" between them, or peer = "runner"' if channel.kind != "http" else _MEMORY,
            )
        return
    if not writers or not readers:
        return
    if len(writers) == 1 and writers == readers:
        scope.error(("kind",), "both its ends are in the same runner", _MEMORY)
    elif channel.kind != "nats":
        binds, others, side = (
            (readers, writers, "writer") if channel.network.binds == "reader" else (writers, readers, "reader")
        )
        far = [each for each in binds if each not in others or len(others) > 1]
        if len(far) > 1:
            message = f"the runners {listed(far, 'and')} would listen at the same address"
            remedy = f'write listen = "{side}"' if len(others) == 1 else "give each a channel of its own"
            scope.error(("listen",) if "listen" in _table(scope) else (), message, remedy, at="key")


_MEMORY = 'write kind = "memory" (or "durable"), or leave the table out'


def _table(scope: Scope) -> Mapping[str, Any]:
    table: Any = scope.source.data
    for part in scope.prefix:
        table = table.get(part, {})
    return table if isinstance(table, Mapping) else {}


def check_hosts(
    channels: Mapping[str, Channel],
    processors: Mapping[str, Resolved],
    runners: Mapping[str, Runner],
    source: Source,
    findings: Findings,
) -> None:
    """An address without a host has that of its runner, where others may come as well."""
    for name, channel in channels.items():
        network = channel.network
        if network is None or network.host is not None:
            continue
        whose = _runners(processors, channel.readers if network.binds == "reader" else channel.writers)
        for runner in whose:
            host = runners[runner].host if runner in runners else None
            if host is not None:
                check_open(Scope(findings, source, ("channels", name)), replace(network, host=host), ("address",))


def check_listeners(
    channels: Mapping[str, Channel], tables: Mapping[str, Any], source: Source, findings: Findings
) -> None:
    """An address is one channel's."""
    seen: dict[tuple[str | None, int], str] = {}
    for name, channel in channels.items():
        network = channel.network
        if network is None or not network.port:
            continue
        if network.plain and ("reader" if channel.readers else "writer") != network.binds:
            continue
        other = seen.setdefault((network.host, network.port), name)
        if other != name:
            scope = Scope(findings, source, ("channels", name))
            key = "url" if "url" in tables.get(name, {}) else "address"
            scope.error((key,), f'the channel "{other}" is listened for there already', "give each a port of its own")
