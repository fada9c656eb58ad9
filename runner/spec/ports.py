"""A processor's ports: which channels `reads` and `writes` join it to, and the codec of each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from runner.spec.command import env_word, similar
from runner.spec.findings import Scope, listed
from runner.spec.model import Port
from runner.spec.scanner import Path

CODECS = ("lines", "length-prefixed", "null", "raw")
_STANDARD = {"stdin", "stdout", "stderr"}


def channels_by_port(side: str, written: Any) -> dict[str, list[str]]:
    """`reads` or `writes` in its long form: for each port the channels it is joined to."""
    if written is None:
        return {}
    if isinstance(written, dict):
        return {port: [names] if isinstance(names, str) else names for port, names in written.items()}
    return {"stdin" if side == "reads" else "stdout": [written] if isinstance(written, str) else written}


def path_of(side: str, written: Any, port: str, channel: str) -> Path:
    """Where `channel` of `port` stands, relative to the processor's table."""
    path: Path = (side,)
    if isinstance(written, dict):
        path = (side, port)
        written = written.get(port)
    return (*path, written.index(channel)) if isinstance(written, list) and channel in written else path


def ports(
    scope: Scope, side: str, merged: Mapping[str, Any], declared: Mapping[str, Any] | None, codecs: Codecs
) -> tuple[Port, ...]:
    """The ports of one side ("reads" or "writes"), with every error in how they are written.

    `declared` is what a processor.toml says about the ports of this side; None: it says nothing.
    """
    written = merged.get(side)
    found: list[Port] = []
    variables: dict[str, str] = {}
    seen: dict[str, str] = {}
    for port, channels in channels_by_port(side, written).items():
        if not _is_allowed(scope, side, port, declared):
            continue
        variable = f"CONNECTOR_{'READER' if side == 'reads' else 'WRITER'}_{env_word(port)}"
        other = variables.setdefault(variable, port)
        if other != port:
            scope.error((side, port), f"the ports {other} and {port} have the same variable {variable}", at="key")
        for index, channel in enumerate(channels):
            place = (*path_of(side, written, port, channel)[: 2 if isinstance(written, dict) else 1], index)
            if channel in channels[:index]:
                scope.error(place, f'the channel "{channel}" is named twice', "leave one of them out")
            elif channel in seen:
                verb = "read" if side == "reads" else "written"
                scope.error(
                    path_of(side, written, port, channel),
                    f'the channel "{channel}" is {verb} by the port {seen[channel]} already',
                    "give each port a channel of its own",
                )
            seen.setdefault(channel, port)
        found.append(Port(port, tuple(dict.fromkeys(channels)), codecs.of(side, port)))
    return tuple(found)


def with_codec(ports: tuple[Port, ...], codec: str) -> tuple[Port, ...]:
    """The same ports, all with `codec`."""
    return tuple(Port(port.name, port.channels, codec) for port in ports)


def _is_allowed(scope: Scope, side: str, port: str, declared: Mapping[str, Any] | None) -> bool:
    if side == "reads" and port in {"stdout", "stderr"}:
        scope.error(
            ("reads", port), f"nothing can be read on {port}", 'read on "stdin" or a port of your own', at="key"
        )
        return False
    if side == "writes" and port == "stdin":
        scope.error(
            ("writes", port), "nothing can be written on stdin", 'write on "stdout", "stderr" or a name', at="key"
        )
        return False
    if declared and port not in declared and port != "stderr":
        remedy = similar(port, declared) or f"it declares {listed(sorted(declared), 'and')}"
        written_short = port in _STANDARD
        scope.error(
            (side,) if written_short else (side, port),
            f'its processor.toml declares no port "{port}" under {side}',
            remedy,
            at="key",
        )
    return True


class Codecs:
    """Which codec each port of one processor has: the pipeline's word, then the processor.toml's, then `lines`."""

    def __init__(self, scope: Scope, pipeline: Any, template: Any, declared: Mapping[tuple[str, str], str]) -> None:
        self._scope = scope
        self._choices = [pipeline, declared, template]
        self._asked: set[str] = set()

    def of(self, side: str, port: str) -> str:
        """The codec of `port`."""
        self._asked.add(port)
        for choice in self._choices:
            if isinstance(choice, str):
                return choice
            if isinstance(choice, dict):
                codec = choice.get(port) or choice.get((side, port))
                if codec is not None:
                    return str(codec)
        return "lines"

    def check(self) -> None:
        """Note codecs that are not there, and those of ports that are not there. Call it when all ports are known."""
        written = self._choices[0]
        by_port = written if isinstance(written, dict) else {None: written} if written else {}
        for port, codec in by_port.items():
            path = ("codec",) if port is None else ("codec", port)
            if port is not None and port not in self._asked:
                asked = dict.fromkeys(sorted(self._asked))
                remedy = similar(port, asked) or (f"it has {listed(list(asked), 'and')}" if asked else "it has none")
                self._scope.error(path, f'there is no port "{port}"', remedy, at="key")
            check_codec(self._scope, path, codec)


def check_codec(scope: Scope, path: Path, codec: str) -> None:
    """Note an error where no codec has this name, here or in an installed package."""
    if codec in CODECS or codec in _installed("connector.codecs"):
        return
    known = dict.fromkeys((*CODECS, *_installed("connector.codecs")))
    scope.error(path, f'there is no codec "{codec}"', similar(codec, known) or f"write {listed(list(known))}")


def check_kind(scope: Scope, path: Path, kind: str) -> None:
    """Note an error where no channel has this kind, here or in an installed package."""
    known = dict.fromkeys(("memory", "pipe", "durable", "file", "tcp", "websocket", "http", "zeromq", "nats"))
    if kind in known or kind in _installed("connector.channels"):
        return
    known |= dict.fromkeys(_installed("connector.channels"))
    scope.error(path, f'there is no kind of channel "{kind}"', similar(kind, known) or f"write {listed(list(known))}")


@cache
def _installed(group: str) -> tuple[str, ...]:
    """The names of the entry points of `group`; asked only for names that are not our own, because it is slow."""
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=group)}))
