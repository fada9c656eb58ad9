"""Random pipeline documents, good ones and all kinds of nearly good ones, for hypothesis."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from runner.spec.channel_document import ChannelDocument
from runner.spec.document import (
    GuardDocument,
    InFlightDocument,
    LiveDocument,
    PipelineDocument,
    ProcessorDocument,
    ProcessorFile,
    ReadyDocument,
    ResourcesDocument,
    RestartDocument,
    StopDocument,
)

GOOD: dict[str, Any] = {
    "name": "p",
    "drain": "30s",
    "processors": {
        "a": {
            "command": ["cat", "x"],
            "writes": {"stdout": "x", "errors": ["e", "f"], "stderr": "n"},
            "codec": {"stdout": "lines"},
            "resume": "skip",
            "restart": {"when": "always", "backoff": "1s..2s", "limit": "5 in 60s", "reset_after": "60s"},
            "env": {"A": "b"},
        },
        "m": {
            "command": "cat 'y z'",
            "reads": ["x", "e"],
            "writes": "y",
            "contract": "one-to-one",
            "replicas": 2,
            "order": "any",
            "in_flight": {"bytes": "1MiB", "messages": 5},
            "max_message": 1000,
            "guard": {"match": "^a"},
            "stop": {"grace": "5s", "signal": "INT"},
            "ready": {"line": "up", "timeout": "5s"},
            "live": {"tcp": "127.0.0.1:1", "every": "1s", "failures": 3},
            "stall": "30s",
            "resources": {"memory": "1GiB", "pids": 5, "files": 64, "cpus": 0.5},
        },
        "z": {"command": ["cat"], "reads": {"stdin": "y", "more": "f", "noise": "n"}, "trust": "trusted"},
    },
    "channels": {"x": {"capacity": "8MiB", "on_full": "block"}, "y": {"kind": "memory"}},
}

WORDS = st.sampled_from(
    [
        *("x", "y", "q", "", "A", "lines", "raw", "null", "jsn", "memory", "pipe", "kafka", "block", "drop-oldest"),
        *(
            "stream",
            "one-to-one",
            "batch",
            "none",
            "skip",
            "self",
            "live",
            "keep",
            "any",
            "json",
            "match",
            "stdio",
            "zeromq",
        ),
        *("on-failure", "always", "never", "no", "trusted", "untrusted", "host", "TERM", "SIGTERM", "INT", "KILL"),
        *(
            "0s",
            "5s",
            "1.5m",
            "5",
            "250ms",
            "1s..2s",
            "2s..1s",
            "5 in 60s",
            "0 in 1s",
            "5 in 0s",
            "8MiB",
            "0B",
            "1MB",
            "12",
        ),
        *(
            "cat",
            "cat | x",
            "./x",
            "no-such",
            "cat 'a",
            "a" * 64,
            "a\0b",
            "(",
            "^a$",
            "[[a]",
            "127.0.0.1:80",
            "a:99999",
        ),
        *(
            "http://a",
            "file:x",
            "env:SET",
            "env:NOT_SET",
            "${SET}",
            "${NOT_SET}",
            "${NOT_SET:-x}",
            "${COUNT}",
            "$${x}",
            "${",
        ),
        *("stdin", "stdout", "stderr", ".", "gone", "\n", "5s\n", "٣s", "é"),
    ]
)
SCALARS = st.one_of(
    WORDS,
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 5000, 10**12, 2**60, 0.5, 2.0, 0.0, -1.5, 1e300, float("inf"), float("nan")]),
    st.text(max_size=8),
)
STRUCTS = (
    *(PipelineDocument, ProcessorDocument, ChannelDocument, InFlightDocument, GuardDocument, RestartDocument),
    *(StopDocument, ReadyDocument, LiveDocument, ResourcesDocument, ProcessorFile),
)
KEYS = st.one_of(
    st.sampled_from(sorted({key for struct in STRUCTS for key in struct.__struct_fields__})),
    st.sampled_from(["environment", "volumes", "depends_on", "a", "x", "stdin", "stdout", "A", "", "é"]),
    st.text(max_size=5),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=5,
)
CHANGES = st.sampled_from(["change", "change", "add", "add", "rename", "remove"])


def tables_of(document: Any) -> list[Any]:
    """Every table and list inside of `document`, itself included."""
    if isinstance(document, dict):
        return [document, *(each for inner in document.values() for each in tables_of(inner))]
    if isinstance(document, list):
        return [document, *(each for inner in document for each in tables_of(inner))]
    return []


@st.composite
def mutated(draw: st.DrawFn, start: dict[str, Any] = GOOD) -> dict[str, Any]:
    """`start` with one to four things changed, added, renamed or taken away, anywhere."""
    document = copy.deepcopy(start)
    for _ in range(draw(st.integers(1, 4))):
        table = draw(st.sampled_from(tables_of(document)))
        replace = draw(st.booleans())
        if isinstance(table, list):
            if table and replace:
                table[draw(st.integers(0, len(table) - 1))] = draw(VALUES)
            else:
                table.append(draw(VALUES))
            continue
        keys = sorted(table)
        change = draw(CHANGES)
        if change == "add" or not keys:
            table[draw(KEYS)] = draw(VALUES)
        elif change == "change":
            table[draw(st.sampled_from(keys))] = draw(VALUES)
        elif change == "rename":
            table[draw(KEYS)] = table.pop(draw(st.sampled_from(keys)))
        else:
            del table[draw(st.sampled_from(keys))]
    return document
