"""Each SDK against the conformance kit, and what its page promises."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.protocol.conformance.__main__ import main as conformance
from runner.protocol.conformance.peer import Peer
from runner.protocol.frames import Ack, Nack, Out
from tests.conftest import need_program
from tests.docs.pages import PROJECT

PROGRAMS = Path(__file__).parent / "programs"
SDK_FILES = ("python/connector_processor.py", "javascript/connector-processor.mjs", "java/ConnectorProcessor.java")
SDKS = [PROJECT / "sdk" / name for name in SDK_FILES]


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    sources = [PROJECT / "sdk" / "java" / "ConnectorProcessor.java", PROGRAMS / "Modes.java"]
    subprocess.run([need_program("javac"), "-Xlint:all", "-Werror", "-d", folder, *sources], check=True, timeout=60)
    return folder


@pytest.fixture(params=["python", "javascript", "java"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """The program of tests/sdk/programs in each language; a mode is to follow."""
    if request.param == "python":
        return [sys.executable, "-W", "error", str(PROGRAMS / "modes.py")]
    if request.param == "javascript":
        return [need_program("node"), str(PROGRAMS / "modes.mjs")]
    return [need_program("java"), "-XX:+UseSerialGC", "-cp", str(request.getfixturevalue("classes")), "Modes"]


def peer(*command: str) -> Peer:
    return Peer(command, writes=["stdout", "errors"], limit_s=20)


@pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
def test_an_sdk_is_one_short_file(sdk: Path) -> None:
    assert len(sdk.read_text().splitlines()) < 250


def test_the_kit_finds_nothing_wrong_one_by_one(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert conformance(["--echo", "--limit", "20", "--", *command, "echo"]) == 0, capfd.readouterr().out


@pytest.mark.parametrize("mode", ["batches", "manual", "count"])
def test_the_kit_finds_nothing_wrong_in_other_ways(
    command: list[str], mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    only = ["answers", "many", "states", "pings", "answers_before_the_end_is_said", "closed_output", "terminated"]
    words = [word for name in only for word in ("--only", name)]
    echo = [] if mode == "count" else ["--echo"]
    # without an order among its answers there is none among its outputs either, but each has its own
    assert conformance([*echo, *words, "--limit", "20", "--", *command, mode]) == 0, capfd.readouterr().out


def test_the_kit_finds_nothing_wrong_with_a_source(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert conformance(["--source", "--limit", "20", "--", *command, "source"]) == 0, capfd.readouterr().out


@pytest.mark.parametrize("mode", ["echo", "batches"])
def test_an_exception_is_a_nack_of_that_message_alone(command: list[str], mode: str) -> None:
    with peer(*command, mode) as program:
        program.open()
        program.deliver(b"a", b"bad", b"c", number=41, attempt=3)
        program.settle()
        nack = program.answered[2]
        assert isinstance(nack, Nack)
        assert "attempt 3 of kit@1:42 on stdin from kit" in nack.reason
        assert "Error" in nack.reason or "Exception" in nack.reason
        assert [type(program.answered[each]) for each in (1, 3)] == [Ack, Ack]
        got = sorted(each.payload for each in program.frames if isinstance(each, Out) and each.delivery != 2)
        assert got == [b"a", b"c"], "each once, also where a batch was tried again"
        program.send(program.session.end_of("stdin"))
        program.end()


def test_explicit_answers_come_from_anywhere_with_a_delay(command: list[str]) -> None:
    with peer(*command, "manual") as program:
        program.open()
        program.deliver(b"a", b"bad", b"c")
        program.settle()
        assert program.answered[2] == Nack(2, "no", 250)
        assert program.outputs(1) == [("stdout", b"a")]
        program.send(program.session.end_of("stdin"))
        program.end()


def test_the_state_is_that_of_what_is_acknowledged(command: list[str]) -> None:
    with peer(*command, "count") as program:
        program.open(b"100")
        program.deliver(b"a", b"bad", b"c")
        program.settle()
        program.until(lambda: program.states()[-1:] == [b"102"], "send the state after two messages")
        assert isinstance(program.answered[2], Nack)
        assert program.outputs(3) == [("stdout", b"102")], "what the one that failed had set is undone"
        program.send(program.session.end_of("stdin"))
        program.end()


def test_what_is_printed_is_no_frame(command: list[str]) -> None:
    with peer(*command, "noise") as program:
        program.open()
        program.deliver(b"x")
        program.settle()
        assert program.outputs(1) == [("errors", b"x")]
        program.send(program.session.end_of("stdin"))
        program.end()


def test_last_outputs(command: list[str]) -> None:
    with peer(*command, "total") as program:
        program.open()
        program.deliver(*[b"x"] * 1234)
        program.settle()
        program.send(program.session.end_of("stdin"))
        program.end()
        assert program.outputs(0) == [("stdout", b"1234")]


def test_a_slow_source_is_heard_at_once_and_stops_on_sigterm(command: list[str]) -> None:
    with peer(*command, "live") as program:
        program.open()
        program.until(lambda: program.outputs(0) == [("stdout", b"one")], "send its first output")
        program.send(program.session.ping())
        program.until(lambda: not program.session.waits_for_pong, "answer while it waits")
        program.process.send_signal(signal.SIGTERM)
        assert program.exit("exit after SIGTERM") == 143


def test_sigterm_is_143(command: list[str]) -> None:
    with peer(*command, "echo") as program:
        program.open()
        program.deliver(b"x")
        program.settle()
        program.process.send_signal(signal.SIGTERM)
        assert program.exit("exit after SIGTERM") == 143
