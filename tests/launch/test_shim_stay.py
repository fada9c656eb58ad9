"""`connector-shim --stay`: one shim that serves one runner after the other, against PROTOCOL.md."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.shim_client import DEADLINE_S, Pipe, wait_readable, watching
from tests.launch.staying import StayingShim
from tests.launch.test_shim import BINARY, CAT, HIDING, in_pid_namespace, right_count, start_reader, tree


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[StayingShim]:
    with StayingShim(BINARY, tmp_path / "shim.sock") as running:
        yield running


def test_waits_for_its_runner_and_says_so(tmp_path: Path) -> None:
    with StayingShim(BINARY, tmp_path / "shim.sock", stderr=subprocess.PIPE) as shim:
        assert shim.process.stderr is not None
        said = shim.process.stderr.readline().decode()
        assert said == f"connector-shim: waiting for the runner at {shim.path}: No such file or directory\n"
        shim.come()
        assert shim.output([CAT, "/dev/null"])[1].code == 0


def test_serves_one_runner_after_the_other(shim: StayingShim) -> None:
    for text in ("one", "two", "three"):
        shim.come()
        data, ended = shim.output(["echo", text])
        assert (data, ended.code) == (f"{text}\n".encode(), 0)
        shim.leave()
    assert shim.process.poll() is None


@pytest.mark.parametrize("kind", HIDING)
def test_whatever_ran_is_dead_before_the_next_runner(shim: StayingShim, kind: str) -> None:
    shim.come()
    with Pipe() as out, tree(shim, kind, out) as pids, watching(pids) as left:
        shim.leave(door=False)
        shim.come()
        assert left(0) == []
    assert shim.output(["echo", "again"])[0] == b"again\n"


@pytest.mark.parametrize("kind", HIDING)
def test_the_same_as_pid_1(tmp_path: Path, kind: str) -> None:
    if subprocess.run(in_pid_namespace(["true"]), capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets us make no PID namespace")
    with StayingShim(BINARY, tmp_path / "shim.sock", wrap=in_pid_namespace) as shim:
        shim.come()
        with Pipe() as out, tree(shim, kind, out) as pids:
            shim.send(b"K")
            while (packet := shim.receive())[:1] != b"G":
                pass
            assert right_count(struct.unpack("<I", packet[1:])[0], kind, len(pids))
        shim.start(["sleep", "1000"])
        shim.leave()
        shim.come()
        assert shim.output(["echo", "again"])[0] == b"again\n"
        shim.say_over(0)
        assert shim.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("code", [0, 1, 75])
def test_the_run_is_over(shim: StayingShim, code: int) -> None:
    shim.come()
    with Pipe() as out, tree(shim, "session", out) as pids, watching(pids) as left:
        shim.say_over(code)
        assert shim.process.wait(DEADLINE_S) == code
        assert left(DEADLINE_S) == []


def test_the_run_is_over_though_the_runner_has_gone_already(shim: StayingShim) -> None:
    shim.come()
    os.kill(shim.process.pid, signal.SIGSTOP)
    shim.say_over(7)
    shim.leave()
    os.kill(shim.process.pid, signal.SIGCONT)
    assert shim.process.wait(DEADLINE_S) == 7


def test_asked_to_stop_it_tells_the_runner_and_ends_after_it(shim: StayingShim) -> None:
    shim.come()
    with Pipe() as to, Pipe() as out:
        shim.start([CAT], {0: to.reading, 1: out.writing})
        os.kill(shim.process.pid, signal.SIGTERM)
        assert shim.asked() == signal.SIGTERM
        os.write(to.writing, b"alive\n")
        assert out.read_line() == b"alive"
        to.close_writing()
        assert shim.ended().code == 0
    shim.leave(door=False)
    assert shim.process.wait(DEADLINE_S) == 128 + signal.SIGTERM


def test_asked_to_stop_and_told_that_the_run_is_over(shim: StayingShim) -> None:
    shim.come()
    os.kill(shim.process.pid, signal.SIGTERM)
    assert shim.asked() == signal.SIGTERM
    shim.say_over(0)
    assert shim.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_without_a_runner(tmp_path: Path, number: int) -> None:
    with StayingShim(BINARY, tmp_path / "shim.sock", stderr=subprocess.PIPE) as shim:
        assert shim.process.stderr is not None
        shim.process.stderr.readline()  # it waits
        os.kill(shim.process.pid, number)
        assert shim.process.wait(1) == 128 + number


def test_one_whose_runner_dies_while_it_drains_leaves_nothing(shim: StayingShim) -> None:
    shim.come()
    with Pipe() as to:
        pid = start_reader(shim, to)
        with watching([pid]) as left:
            os.kill(shim.process.pid, signal.SIGTERM)
            assert shim.asked() == signal.SIGTERM
            shim.leave()
            assert shim.process.wait(DEADLINE_S) == 128 + signal.SIGTERM
            assert left(DEADLINE_S) == []


def test_backs_off_from_a_runner_that_shuts_the_door(shim: StayingShim) -> None:
    """100 ms, doubled each time; one that has said something is come back to quickly."""
    shim.come()
    began_s = time.monotonic()
    for _ in range(3):
        shim.leave(door=False)
        shim.come()
    assert time.monotonic() - began_s >= 0.1 + 0.2 + 0.4
    took_s = []
    for _ in range(3):
        shim.send(b"W")
        shim.start(["true"])  # what was sent before it has been heard
        shim.leave(door=False)
        began_s = time.monotonic()
        shim.come()
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 0.8, "the next wait would be no shorter; a busy machine adds to some of them"


def test_a_door_that_nobody_opens_does_not_hold_it(shim: StayingShim) -> None:
    shim.come()
    shim.leave(door=False)
    assert shim.listener is not None
    assert wait_readable(shim.listener.fileno(), DEADLINE_S)  # it has knocked, and nobody lets it in
    os.kill(shim.process.pid, signal.SIGTERM)
    shim.listener.close()  # which ends a connection that was never taken
    shim.listener = None
    assert shim.process.wait(DEADLINE_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize("arguments", [["--stay"], ["--stay", "7"], ["--stay", "a/b", "c"], ["--go", "a/b"]])
def test_called_wrongly(arguments: list[str]) -> None:
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "--stay PATH" in done.stderr


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30)
    with StayingShim(BINARY, path, stderr=subprocess.PIPE) as shim:
        assert shim.process.stderr is not None
        assert b"File name too long" in shim.process.stderr.readline()
        os.kill(shim.process.pid, signal.SIGTERM)
        assert shim.process.wait(DEADLINE_S) == 128 + signal.SIGTERM
