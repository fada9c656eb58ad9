"""Words that do something to who reads them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.harness import arena, need
from tests.hostile.programs.assaults import ESCAPES
from tests.hostile.seen import Seen, check_undisturbed, seen


@pytest.fixture(scope="module")
def words(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Escapes in the log, in the last lines of one that fails, and in an answer too many."""
    home, form = request.param
    need(request, home)
    with arena(home) as place:
        escapes = place.python("assaults", "escapes")
        hostile = {
            "escapes": place.placed(escapes),
            "answers": place.placed(escapes, contract="one-to-one"),
            "last": place.placed(place.python("assaults", "last-words")),
        }
        with place.start(hostile, "--log-format", form) as running:
            place.until(running, lambda: len(place.pids("assaults.py")) == 3, "all of them")
            place.go()
            place.until(running, lambda: not place.pids("last-words"), "the last words")
            place.until(running, lambda: len(place.lines("escapes")) >= len(ESCAPES), "all the escapes")
            place.until_neighbour_went_on(running)
            place.stop.touch()
            result = running.finish(20)
            printed = (place.work / "run.stderr").read_bytes() + (place.work / "run.stdout").read_bytes()
            report = (place.work / "report.json").read_bytes()
            yield seen(place, result, running.pid, form=form, printed=printed, report=report)


in_words = pytest.mark.parametrize(
    "words",
    [
        pytest.param(("sandbox", "text"), id="sandbox-text"),
        pytest.param(("container", "json"), id="container-json", marks=pytest.mark.engine),
    ],
    indirect=True,
    scope="module",
)
HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def harmful(raw: bytes) -> list[str]:
    """The lines with anything in them that a terminal may obey, or that hides what a person sees."""
    return [
        ascii(line)
        for line in raw.decode("utf-8").split("\n")
        if any(unicodedata.category(each) in HARMFUL and each not in "\u200c\u200d" for each in line)
    ]


@in_words
def test_what_is_printed_is_harmless(words: Seen) -> None:
    assert harmful(words.more["printed"]) == []
    assert b"pwned" in words.more["printed"]


@in_words
def test_the_report_is_harmless(words: Seen) -> None:
    assert harmful(words.more["report"]) == []


@in_words
def test_a_log_line_cannot_speak_for_another(words: Seen) -> None:
    """A line that looks like one of ours is behind the name of who wrote it."""
    printed = words.more["printed"].decode()
    lines = [line for line in printed.split("\n") if "run_ended" in line]
    if words.more["form"] == "text":
        assert lines
        assert all(re.search(r" (escapes|answers|last)\[1\] +\| ", line) for line in lines), lines
        return
    events = [json.loads(line) for line in lines]
    assert [each["event"] for each in events].count("run_ended") == 1, events
    assert {each["processor"] for each in events if each["event"] == "log_line"} >= {"escapes", "last"}


@in_words
def test_messages_are_passed_on_as_they_are(words: Seen) -> None:
    assert words.place.told("escapes").read_bytes() == b"".join(each + b"\n" for each in ESCAPES)


@in_words
def test_the_answer_too_many_is_named(words: Seen) -> None:
    assert words.ended("answers")["state"] == "failed"
    assert "answer" in words.ended("answers")["cause"]


@in_words
def test_its_words_disturb_nobody(words: Seen) -> None:
    check_undisturbed(words)
    assert not Path("/tmp/pwned").exists()


def test_the_escapes_would_be_seen() -> None:
    found = harmful(b"".join(each.decode("utf-8", "replace").encode() + b"\n" for each in ESCAPES))
    assert len(found) >= 6
