"""The settings of one processor that need no look at its neighbours: environment, secrets, checks, patterns."""

from __future__ import annotations

import os
import re
import signal
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import UNSET

from runner.spec import scanner
from runner.spec.command import LONGEST_STRING, env_word
from runner.spec.document import (
    GuardDocument,
    LiveDocument,
    PoisonDocument,
    ReadyDocument,
    RestartDocument,
    StopDocument,
)
from runner.spec.findings import Scope, listed, show
from runner.spec.model import Backoff, Check, Guard, Poison, RestartPolicy, StopPolicy
from runner.units import parse_duration, parse_rate

OUR_VARIABLES = "CONNECTOR_"
_LARGEST_SECRET = LONGEST_STRING
_KINDS = ("line", "file", "tcp", "http", "command")


def restart_policy(document: str | RestartDocument) -> RestartPolicy:
    """`restart` in its long form, parsed."""
    if isinstance(document, str):
        return RestartPolicy(when=document)  # type: ignore[arg-type]
    first, _, most = document.backoff.partition("..")
    first_s = parse_duration(first)
    return RestartPolicy(
        document.when,
        Backoff(first_s, parse_duration(most) if most else first_s),
        parse_rate(document.limit),
        parse_duration(document.reset_after),
    )


def check_backoff(scope: Scope, policy: RestartPolicy) -> None:
    """A backoff that would shrink is an error."""
    if policy.backoff.most_s < policy.backoff.first_s:
        scope.error(("restart", "backoff"), "ends below its beginning", 'write the smaller one first: "100ms..30s"')


def poison_policy(document: PoisonDocument) -> Poison:
    """`poison`, parsed."""
    return Poison(document.after, parse_rate(document.limit))


def stop_policy(document: StopDocument) -> StopPolicy:
    """`stop`, parsed."""
    return StopPolicy(parse_duration(document.grace), int(signal.Signals[f"SIG{document.signal}"]))


def guard_of(scope: Scope, document: str | GuardDocument) -> Guard:
    """`guard` with its expression compiled; a bad one is an error."""
    if isinstance(document, GuardDocument):
        pattern = compiled(scope, ("guard", "match"), document.match)
        return Guard("match", pattern) if pattern is not None else Guard()
    return Guard("json") if document == "json" else Guard()


def compiled(scope: Scope, path: scanner.Path, expression: str) -> re.Pattern[bytes] | None:
    """`expression` for bytes; None after an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(expression.encode())
    except re.error as error:
        place = f" at character {error.pos + 1}" if error.pos is not None else ""
        scope.error(path, f"no regular expression: {error.msg}{place}", "escape what is meant literally with \\")
    except (OverflowError, RecursionError, UnicodeEncodeError):
        scope.error(path, "no regular expression: too large, or not text", "write a simpler one")
    return None


def probe(
    scope: Scope,
    name: str,
    document: ReadyDocument | LiveDocument,
    folder_of: Callable[[scanner.Path], Path],
    command: Callable[[scanner.Path, str | list[str]], tuple[str, ...] | None],
) -> Check | None:
    """`ready` or `live` (its `name`), with defaults; None after an error.

    `command` makes the words of a command, `folder_of` says where the paths of a key start from.
    """
    kinds = [kind for kind in _KINDS if getattr(document, kind, UNSET) is not UNSET]
    allowed = [kind for kind in _KINDS if hasattr(document, kind)]
    if len(kinds) != 1:
        found = f"has {listed(kinds, 'and')}" if kinds else "says not what to look at"
        scope.error((name,), found, f"write exactly one of {listed(allowed)}", at="key")
        return None
    kind = kinds[0]
    value = getattr(document, kind)
    if kind == "command":
        value = command((name, "command"), value)
        if value is None:
            return None
    elif kind == "file":
        value = str(folder_of((name, "file")) / value)
    elif kind == "line" and compiled(scope, (name, "line"), value) is None:
        return None
    elif kind == "line" and not (document.every is UNSET and document.failures is UNSET):
        wrong = "every" if document.every is not UNSET else "failures"
        scope.error((name, wrong), "a line is waited for, not asked for", "leave it out; timeout bounds it", at="key")
    elif kind == "tcp" and not 1 <= int(value.rpartition(":")[2]) <= 65535:
        scope.error((name, "tcp"), f"{show(value)}: a port is a number from 1 to 65535")
    live = isinstance(document, LiveDocument)
    every = document.every if isinstance(document.every, str) else "10s" if live else "200ms"
    failures = document.failures if isinstance(document.failures, int) else 3 if live else None
    return Check(kind, value, parse_duration(every), parse_duration(document.timeout), failures)  # type: ignore[arg-type]


def secrets_of(
    scope: Scope,
    secrets: Mapping[str, str],
    env: Mapping[str, str],
    folder_of: Callable[[scanner.Path], Path],
) -> dict[str, str]:
    """The values of `secrets`. What is wrong with one is told without its value."""
    values: dict[str, str] = {}
    for name, written in secrets.items():
        value = secret_of(scope, ("secrets", name), written, env, folder_of(("secrets", name)))
        if value is not None:
            values[name] = value
    return values


def secret_of(scope: Scope, path: scanner.Path, written: str, env: Mapping[str, str], folder: Path) -> str | None:
    """The value of the secret at `path`, "file:PATH" or "env:NAME"; None after an error, which does not show it."""
    where, _, what = written.partition(":")
    if where == "env":
        if what not in env:
            scope.error(path, f"the environment variable {what} is not set", "set it before the start")
        return env.get(what)
    try:
        with (folder / what).open("rb") as file:
            value = os.fsdecode(file.read(_LARGEST_SECRET + 1)).removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else "no name of a file"
        scope.error(path, f"the file {show(what)} cannot be read: {reason.lower()}")
        return None
    if "\0" in value:
        scope.error(path, f"the file {show(what)} holds a NUL character", "a secret is text")
        return None
    return value


def check_variables(scope: Scope, env: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """What no program could be started with: strings that are too long, names that are ours or given twice."""
    for table, variables in (("env", env), ("secrets", secrets)):
        for name, value in variables.items():
            if name.startswith(OUR_VARIABLES):
                scope.error((table, name), f"variables that begin with {OUR_VARIABLES} are set by the runner", at="key")
            if _too_long(name, value):
                scope.error((table, name), "is longer than 128 KiB, which no program can be given", "put it in a file")
    for name in env.keys() & secrets.keys():
        scope.error(("secrets", name), f"{name} stands in env as well", "leave one of them out", at="key")


def check_param_sizes(scope: Scope, params: Mapping[str, object]) -> None:
    """Params go into the environment, one by one and all together as JSON."""
    import json

    for name, value in params.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if _too_long(f"CONNECTOR_PARAM_{env_word(name)}", text):
            scope.error(("params", name), "is longer than 128 KiB, which no program can be given", "put it in a file")
            return
    if params and _too_long("CONNECTOR_PARAMS", json.dumps(params)):
        scope.error(("params",), "are longer than 128 KiB together, which no program can be given", "use a file")


def _too_long(name: str, value: str) -> bool:
    return len(f"{name}={value}".encode("utf-8", "surrogatepass")) >= LONGEST_STRING
