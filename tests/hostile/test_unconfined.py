"""The same assaults with nothing around them, where that is safe: each does what it says."""

from __future__ import annotations

import array
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.connector import until
from tests.hostile.calls import build_attempt
from tests.hostile.harness import MIB, PROGRAMS
from tests.hostile.outside import kill, processes_with
from tests.hostile.programs.assaults import SURVIVORS
from tests.hostile.programs.attempts import ATTEMPTS

LIMIT_S = 20


@dataclass
class Bare:
    """Starts programs of this suite as they are; whatever is left of them is killed in the end."""

    mark: str = field(default_factory=lambda: f"hostile-{secrets.token_hex(8)}")
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, program: str, *arguments: object, facts: str | None = "{}\n", **more: object
    ) -> subprocess.Popen[bytes]:
        """Start one; its stdin stays open, with the facts in it."""
        command = [sys.executable, "-u", str(PROGRAMS / f"{program}.py"), self.mark, *map(str, arguments)]
        process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
        )
        self.started.append(process)
        if facts is not None:
            assert process.stdin is not None
            process.stdin.write(facts.encode())
            process.stdin.flush()
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """Its next line."""
        assert process.stdout is not None
        return process.stdout.readline().decode().rstrip("\n")

    def end(self) -> None:
        """Kill all of them, and what they left."""
        for process in self.started:
            process.kill()
        while left := processes_with(self.mark):
            kill(left)
        for process in self.started:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()


@pytest.fixture
def bare() -> Iterator[Bare]:
    made = Bare()
    try:
        yield made
    finally:
        made.end()


def test_a_fork_bomb(bare: Bare) -> None:
    bomb = bare.start("assaults", "fork-bomb", 150)
    assert bare.said(bomb) == "spent"
    until(lambda: len(processes_with(bare.mark)) == 151, "all of them")


@pytest.mark.parametrize(("kind", "said"), [("anonymous", "held"), ("memfd", "held"), ("children", "0 of 4 children")])
def test_a_memory_balloon(bare: Bare, kind: str, said: str) -> None:
    assert bare.said(bare.start("assaults", "balloon", kind, 160 * MIB)).startswith(said)


def test_files_without_bytes(bare: Bare, tmp_path: Path) -> None:
    assert bare.said(bare.start("assaults", "fill-inodes", tmp_path, 5000)) == "5000 files"


def test_a_spin(bare: Bare) -> None:
    """It would run all the time; how much it gets is up to what else this machine has to do."""
    spin = bare.start("assaults", "spin", 3, 25)
    assert bare.said(spin) == "spinning"
    until(lambda: len(processes_with(bare.mark)) == 3, "all of them")
    pids = processes_with(bare.mark)
    before_s, began_s = wanted_s(pids), time.monotonic()

    def share() -> float:
        return (wanted_s(pids) - before_s) / (time.monotonic() - began_s)

    until(lambda: time.monotonic() - began_s > 1 and share() > 2, "more than a wall would let it have")


def wanted_s(pids: list[int]) -> float:
    """For how long these processes ran, or could have run, together (proc(5), schedstat)."""
    ran_and_waited = [Path(f"/proc/{pid}/schedstat").read_text().split()[:2] for pid in pids]
    return sum(int(ran) + int(waited) for ran, waited in ran_and_waited) / 1e9


def test_what_outlives_it(bare: Bare) -> None:
    outlives = bare.start("assaults", "outlives", "ends")
    assert bare.said(outlives) == f"{SURVIVORS} up"
    assert outlives.wait(LIMIT_S) == 0
    assert len(processes_with(bare.mark)) == SURVIVORS


def test_who_ignores_signals(bare: Bare) -> None:
    stubborn = bare.start("assaults", "stubborn", "ignores", facts=None)
    assert bare.said(stubborn) == "stubborn"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        stubborn.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        stubborn.wait(0.2)


def test_who_stops_itself(bare: Bare) -> None:
    stops = bare.start("assaults", "stubborn", "stops", facts=None, start_new_session=True)
    assert bare.said(stops) == "stubborn"
    until(lambda: Path(f"/proc/{stops.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it to stop")


def test_who_writes_into_its_own_stdin(bare: Bare) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"{}\n")
        command = [sys.executable, str(PROGRAMS / "assaults.py"), bare.mark, "into-stdin", "1000"]
        forger = subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL)
        assert forger.wait(LIMIT_S) == 0
        unread = array.array("i", [0])
        fcntl.ioctl(writing, termios.FIONREAD, unread)
        assert unread[0] == 7000
    finally:
        os.close(reading)
        os.close(writing)


def test_who_kills_its_parent(bare: Bare) -> None:
    program = [sys.executable, str(PROGRAMS / "assaults.py"), bare.mark, "kills-its-shim"]
    parent = subprocess.Popen(["sh", "-c", '"$@"; exit 3', "parent", *program], stdin=subprocess.DEVNULL)
    assert parent.wait(LIMIT_S) == -signal.SIGKILL


def test_who_would_kill_everybody_holds_back(bare: Bare) -> None:
    here = Path("/proc/self/ns/pid").stat().st_ino
    holds = bare.start("assaults", "kills-everybody", facts=json.dumps({"pid_namespace": here}) + "\n")
    assert bare.said(holds) == "not walled off"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a program that is setuid root")
def test_a_setuid_program(tmp_path_factory: pytest.TempPathFactory) -> None:
    program = build_attempt(tmp_path_factory.mktemp("setuid"))
    program.chmod(0o4755)
    opened = os.open(program, os.O_PATH)
    try:  # by its descriptor, since nobody may enter the folders above it
        command = [f"/proc/self/fd/{opened}", "--am-i-root"]
        assert subprocess.run(command, user=65534, pass_fds=[opened], check=False, timeout=LIMIT_S).returncode == 0
        program.chmod(0o755)
        assert subprocess.run(command, user=65534, pass_fds=[opened], check=False, timeout=LIMIT_S).returncode != 0
    finally:
        os.close(opened)


def test_an_inherited_descriptor_would_be_seen(bare: Bare) -> None:
    skipped = ",".join(set(ATTEMPTS) - {"inherited-descriptors"})
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        told = bare.start(
            "attempts", skipped, facts='{"call_names": [], "calls": "", "setuid": ""}\n', pass_fds=[opened]
        )
        assert json.loads(bare.said(told))["through"] is True
    finally:
        os.close(opened)
