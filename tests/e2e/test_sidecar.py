"""`connector sidecar FILE` as a user sees it: containers that somebody else starts, here as plain processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.children.build import sink, source
from tests.e2e.connector import Connector, until
from tests.e2e.sidecar import Sidecar
from tests.e2e.test_run import sent

COUNT = 20_000
DEADLINE_S = 30.0
NAMES = ("source", "middle", "sink")


def three(tmp_path: Path, count: int = COUNT, *, durable: bool = False, **middle: Any) -> dict[str, Any]:
    """A source, a `cat` that answers, a sink that acknowledges."""
    channel = {"kind": "durable", "durability": "process"} if durable else {}
    return {
        "processors": {
            "source": {"command": source(count), "writes": "raw", "resume": "skip"},
            "middle": {"command": ["cat"], "reads": "raw", "writes": "clean", "contract": "one-to-one", **middle},
            "sink": {"command": sink(tmp_path / "out", "--ack"), "reads": "clean", "contract": "one-to-one"},
        },
        "channels": {"raw": channel, "clean": channel},
    }


def test_a_pipeline_runs_in_containers_of_somebody_else(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar:
        sidecar.begin()
        containers = sidecar.containers("source", "middle", "sink")
        result = sidecar.finish()
        result.completed()
        assert result.account("clean", "sink") == {"written": COUNT, "acknowledged": COUNT}
        assert [each.wait(DEADLINE_S) for each in containers] == [0, 0, 0]
        assert (tmp_path / "out").read_bytes() == sent(COUNT)


def progressed(sidecar: Sidecar, tmp_path: Path, messages: int) -> None:
    """Wait until the sink has that many."""
    out = tmp_path / "out"
    until(lambda: sidecar.dead() or (out.exists() and out.read_bytes().count(b"\n") >= messages), "messages to flow")
    assert not sidecar.dead(), sidecar.finish()


def killed(shim: subprocess.Popen[bytes]) -> None:
    """As `docker kill` does it: the first process, and with it all that is below."""
    below = psutil.Process(shim.pid).children(recursive=True)
    shim.kill()
    shim.wait()
    for each in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(below, DEADLINE_S)


def taken(file: Path) -> bytes:
    """What the sink has taken, each message once, without those that a kill has torn.

    Its own file is outside of the channels: what it did not acknowledge comes again, behind the torn beginning.
    """
    longest = len(sent(1)) - 1
    lines = (line[-longest:] + b"\n" for line in file.read_bytes().splitlines())
    return b"".join(dict.fromkeys(lines))


@pytest.mark.parametrize("victim", ["source", "middle", "sink"])
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_a_container_that_is_killed_is_waited_for(tmp_path: Path, victim: str, durable: bool) -> None:
    with Sidecar(tmp_path, three(tmp_path, 200_000, durable=durable)) as sidecar:
        sidecar.begin()
        containers = dict(zip(NAMES, sidecar.containers(*NAMES), strict=True))
        progressed(sidecar, tmp_path, 1000)
        killed(containers[victim])
        cause = f"waiting for a container of `{victim}` (docker start?)"
        until(lambda: sidecar.cause(victim) == cause, "the sidecar to say what it waits for")
        assert sidecar.ask("/health")[0] == 200
        status, body = sidecar.ask("/ready")
        assert (status, body["ok"], body["waiting"]) == (503, False, [f"{victim}: {cause}"])
        sidecar.containers(victim)
        result = sidecar.finish()
        result.completed()
        assert taken(tmp_path / "out") == sent(200_000)
        assert result.processor(victim)["restarts"] == 1
        assert "its container has gone" in result.output
        assert [each.wait(DEADLINE_S) for name, each in containers.items() if name != victim] == [0, 0]


@pytest.mark.parametrize("victim", ["source", "middle", "sink"])
def test_a_program_that_is_killed_is_started_again_in_its_container(tmp_path: Path, victim: str) -> None:
    with Sidecar(tmp_path, three(tmp_path, 200_000)) as sidecar:
        sidecar.begin()
        containers = dict(zip(NAMES, sidecar.containers(*NAMES), strict=True))
        progressed(sidecar, tmp_path, 1000)
        (program,) = psutil.Process(containers[victim].pid).children()
        program.kill()
        result = sidecar.finish()
        result.completed()
        assert taken(tmp_path / "out") == sent(200_000)
        assert result.processor(victim)["restarts"] == 1
        assert [each.wait(DEADLINE_S) for each in containers.values()] == [0, 0, 0]


def test_a_sidecar_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Twice; its containers stay."""
    with Sidecar(tmp_path, three(tmp_path, 200_000, durable=True), "--state-dir", str(tmp_path / "state")) as sidecar:
        sidecar.begin()
        containers = sidecar.containers(*NAMES)
        for messages in (1000, 50_000):
            progressed(sidecar, tmp_path, messages)
            programs = [child for each in containers for child in psutil.Process(each.pid).children()]
            assert sidecar.running is not None
            sidecar.running.process.kill()
            sidecar.running.process.wait()
            _, alive = psutil.wait_procs(programs, DEADLINE_S)
            assert alive == []
            assert [each.poll() for each in containers] == [None, None, None]
            sidecar.begin()
        result = sidecar.finish()
        result.completed()
        assert taken(tmp_path / "out") == sent(200_000)
        assert [each.wait(DEADLINE_S) for each in containers] == [0, 0, 0]


def test_sidecar_and_container_killed_together(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 200_000, durable=True)) as sidecar:
        running = sidecar.begin()
        containers = sidecar.containers(*NAMES)
        progressed(sidecar, tmp_path, 1000)
        running.process.kill()
        killed(containers[1])
        running.process.wait()
        sidecar.begin()
        until(lambda: sidecar.cause("middle") == "waiting for a container of `middle`", "it to be waited for")
        sidecar.containers("middle")
        sidecar.finish().completed()
        assert taken(tmp_path / "out") == sent(200_000)


def test_all_containers_stopped_drain_the_run(tmp_path: Path) -> None:
    """As `compose stop` does it: everything that depends on the sidecar first."""
    with Sidecar(tmp_path, three(tmp_path, 10_000_000)) as sidecar:
        running = sidecar.begin()
        containers = sidecar.containers(*NAMES)
        progressed(sidecar, tmp_path, 1000)
        for each in containers:
            each.terminate()
        result = sidecar.finish()
        report = result.expect(1, "stopped")
        assert report["cause"] == "the containers of all its processors are being stopped"
        account = result.account("clean", "sink")
        assert account == {"written": account["written"], "acknowledged": account["written"]}
        assert [each.wait(DEADLINE_S) for each in containers] == [143, 143, 143]
        assert running.process.returncode == 1


def test_one_container_stopped_leaves_the_run(tmp_path: Path) -> None:
    """As `compose restart middle` does it."""
    with Sidecar(tmp_path, three(tmp_path, 300_000)) as sidecar:
        sidecar.begin()
        containers = dict(zip(NAMES, sidecar.containers(*NAMES), strict=True))
        progressed(sidecar, tmp_path, 1000)
        containers["middle"].terminate()
        assert containers["middle"].wait(DEADLINE_S) == 143
        sidecar.containers("middle")
        result = sidecar.finish()
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(300_000)
        assert "its container was stopped" in result.output
        assert result.processor("middle")["restarts"] == 1


def test_a_stopped_sidecar_drains_and_its_containers_wait_for_the_next(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 10_000_000)) as sidecar:
        running = sidecar.begin()
        containers = sidecar.containers(*NAMES)
        progressed(sidecar, tmp_path, 1000)
        running.signal(signal.SIGTERM)
        result = sidecar.finish()
        result.expect(128 + signal.SIGTERM, "stopped")
        account = result.account("clean", "sink")
        assert account == {"written": account["written"], "acknowledged": account["written"]}
        assert [each.poll() for each in containers] == [None, None, None]
        (tmp_path / "out").unlink()
        sidecar.begin()
        progressed(sidecar, tmp_path, 1000)


def test_a_failed_run_ends_its_containers_as_failed(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, command=["false"])) as sidecar:
        sidecar.begin()
        containers = sidecar.containers(*NAMES)
        sidecar.finish().expect(1, "failed")
        assert [each.wait(DEADLINE_S) for each in containers] == [1, 1, 1]


def test_stopped_while_it_waits_for_containers(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar:
        running = sidecar.begin()
        sidecar.containers("middle")
        until(lambda: sidecar.ask("/ready")[1]["processors"]["middle"]["state"] == "running", "one to run")
        running.signal(signal.SIGTERM)
        result = sidecar.finish()
        result.expect(128 + signal.SIGTERM, "stopped")
        assert result.took_s < 10  # nobody is given a grace period who is not there
        assert "stopped (waiting for a container of `source`)" in result.output


def test_replicas_share_the_door_and_a_spare_stands_by(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 300_000, replicas=2)) as sidecar:
        sidecar.begin()
        first, second, *_ = sidecar.containers("middle", "middle", "middle", "source", "sink")
        progressed(sidecar, tmp_path, 1000)
        working = [each for each in sidecar.shims.all[:3] if psutil.Process(each.pid).children()]
        assert len(working) == 2
        killed(working[0])  # the spare takes its place
        result = sidecar.finish()
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(300_000)
        assert first is not second
        left = [each for each in sidecar.shims.all if each is not working[0]]
        assert [each.wait(DEADLINE_S) for each in left] == [0, 0, 0, 0]


def test_a_replica_without_a_container_is_waited_for(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, replicas=2)) as sidecar:
        sidecar.begin()
        sidecar.containers(*NAMES)
        progressed(sidecar, tmp_path, 1000)
        sidecar.containers("middle")
        sidecar.finish().completed()
        assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_a_second_sidecar_is_refused(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar:
        sidecar.begin()
        result = Connector(tmp_path).command("sidecar", "--bridges", str(sidecar.shims.path), "--health", "off")
        assert result.code == 3
        assert f"another runner listens at {sidecar.shims.path}/source/shim.sock" in result.stderr
        sidecar.containers(*NAMES)
        sidecar.finish().completed()


def test_an_image_without_a_command_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('name = "p"\n\n[processors.one]\nimage = "example/one:1"\nwrites = "out"\n')
    result = Connector(tmp_path).command("sidecar", "--bridges", str(tmp_path))
    assert result.code == 2
    assert "pipeline.toml:3:13: error: processors.one: what runs in its container is not known here" in result.stderr
    assert 'write command = ["…"], with the words of its entrypoint' in result.stderr


def test_entrypoint_and_command_are_one(tmp_path: Path) -> None:
    pipeline = three(tmp_path, entrypoint=["env", "-u", "NOTHING"], command=["cat"], image="example/not-looked-at:1")
    with Sidecar(tmp_path, pipeline) as sidecar:
        sidecar.begin()
        sidecar.containers(*NAMES)
        sidecar.finish().completed()
        assert (tmp_path / "out").read_bytes() == sent(COUNT)


@pytest.mark.parametrize("bridges", ["/nowhere/at-all", "/proc"])
def test_bridges_that_cannot_be_made(tmp_path: Path, bridges: str) -> None:
    Connector(tmp_path).write(three(tmp_path))
    result = Connector(tmp_path).command("sidecar", "--bridges", bridges, "--health", "off")
    assert result.code == 3
    assert f"the bridge folder {bridges}/source cannot be opened: No such file or directory" in result.stderr
