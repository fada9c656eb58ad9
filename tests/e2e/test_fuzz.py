"""Pipeline files that nobody would write: each gets errors with their place, never a traceback."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.cli import main

GOOD: dict[str, Any] = {
    "name": "fuzzed",
    "drain": "30s",
    "processors": {
        "source": {"command": ["true"], "writes": ["a", "b"], "resume": "skip", "restart": {"backoff": "0s"}},
        "middle": {
            "command": "cat -u",
            "reads": {"stdin": "a", "lookup": "b"},
            "writes": {"stdout": "c", "stderr": "noise"},
            "codec": {"stdin": "lines", "stdout": "null"},
            "contract": "one-to-one",
            "in_flight": {"bytes": "1MiB", "messages": 7},
            "replicas": 2,
            "max_message": "1MiB",
            "guard": {"match": "^x"},
            "ready": {"tcp": "127.0.0.1:80", "every": "1s", "timeout": "2s", "failures": 3},
            "live": {"http": "http://127.0.0.1/", "every": "10s"},
            "stall": "30s",
            "stop": {"grace": "5s", "signal": "TERM"},
            "resources": {"memory": "256MiB", "cpus": 0.5, "files": 256},
            "env": {"LANG": "C.UTF-8", "HOMES": "${HOME:-none}"},
        },
        "sink": {"command": ["cat"], "reads": ["c", "noise"], "continue_on_error": True},
    },
    "channels": {"a": {"kind": "memory", "capacity": "8MiB", "on_full": "block"}, "b": {}},
}


def tables(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every table in a document, itself included."""
    found = [document]
    for value in document.values():
        if isinstance(value, dict):
            found += tables(value)
    return found


KEYS = sorted({key for table in tables(GOOD) for key in table})
KEYS += ["image", "use", "params", "secrets", "directory", "order", "environment", "depends_on", "volumes", "_", "Ä"]
KEYS += ["", " ", "a.b", 'q"uote', "new\nline"]
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(),
    st.booleans(),
    st.text(max_size=12),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.sampled_from(
        [
            "1s",
            "0s",
            "-1s",
            "1MiB",
            "a",
            "b",
            "c",
            "lines",
            "null",
            "raw",
            "${X}",
            "${",
            "$${",
            "(",
            "5 in 60s",
            "1s..2s",
            "pipe",
            "durable",
            "one-to-one",
            "a | b",
            "file:key",
            "env:NO",
            "127.0.0.1:0",
            "x" * 70,
        ]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
PLACE = re.compile(r"pipeline\.toml:\d+:\d+: (error|warning): ")


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A good file with a few values changed, added or removed."""
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        table = draw(st.sampled_from(tables(document)))
        known = sorted(table)
        if known and draw(st.integers(0, 3)) == 0:
            del table[draw(st.sampled_from(known))]
        else:
            table[draw(st.sampled_from([*known, *KEYS]))] = draw(VALUES)
    return tomli_w.dumps(document)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """The text of a good file with pieces cut out, doubled or put in."""
    text = tomli_w.dumps(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        new = draw(st.one_of(st.text(max_size=6), st.sampled_from(['"', "[", "]", "\n", "=", '"""', "[[x]]", "\\u12"])))
        text = text[:start] + new + text[end:]
    return text


def check(content: bytes) -> None:
    """`connector check` of this file says 0, or 2 and where."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.toml"
        file.write_bytes(content)
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(["check", str(file)])
            except SystemExit as ended:
                code = ended.code
    said = out.getvalue() + err.getvalue()
    assert code in (0, 2), f"exit {code}\n{said}"
    assert "Traceback" not in said
    if code == 2:
        assert any(found[1] == "error" for found in PLACE.finditer(said)), said


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_changed_values(text: str) -> None:
    check(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts())
def test_changed_text(text: str) -> None:
    check(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    check(content)
