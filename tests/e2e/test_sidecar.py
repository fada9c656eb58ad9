"""`connector sidecar FILE` as a user sees it: containers that somebody else starts, here as plain processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.addresses import free_port
from tests.children.build import sink, source
from tests.e2e.connector import RUNNER, Connector, Running, until
from tests.e2e.sidecar import Sidecar
from tests.e2e.test_run import sent
from tests.launch.shims import Shims
from tests.nats_server import NatsServer

COUNT = 20_000
DEADLINE_S = 30.0
NAMES = ("source", "middle", "sink")


def three(tmp_path: Path, count: int = COUNT, *, durable: bool = False, **middle: Any) -> dict[str, Any]:
    """A source, a `cat` that answers, a sink that acknowledges; none can be far ahead of the next."""
    channel = {"capacity": "512KiB"} | ({"kind": "durable", "durability": "process"} if durable else {})
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
    with Sidecar(tmp_path, three(tmp_path, 100_000, durable=durable)) as sidecar:
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
        assert taken(tmp_path / "out") == sent(100_000)
        assert result.processor(victim)["restarts"] == 1
        assert "its container has gone" in result.output
        assert [each.wait(DEADLINE_S) for name, each in containers.items() if name != victim] == [0, 0]


@pytest.mark.parametrize("victim", ["source", "middle", "sink"])
def test_a_program_that_is_killed_is_started_again_in_its_container(tmp_path: Path, victim: str) -> None:
    with Sidecar(tmp_path, three(tmp_path, 100_000)) as sidecar:
        sidecar.begin()
        containers = dict(zip(NAMES, sidecar.containers(*NAMES), strict=True))
        progressed(sidecar, tmp_path, 1000)
        (program,) = psutil.Process(containers[victim].pid).children()
        program.kill()
        result = sidecar.finish()
        result.completed()
        assert taken(tmp_path / "out") == sent(100_000)
        assert result.processor(victim)["restarts"] == 1
        assert [each.wait(DEADLINE_S) for each in containers.values()] == [0, 0, 0]


def test_a_sidecar_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Twice; its containers stay."""
    with Sidecar(tmp_path, three(tmp_path, 100_000, durable=True), "--state-dir", str(tmp_path / "state")) as sidecar:
        sidecar.begin()
        containers = sidecar.containers(*NAMES)
        for messages in (1000, 20_000):
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
        assert taken(tmp_path / "out") == sent(100_000)
        assert [each.wait(DEADLINE_S) for each in containers] == [0, 0, 0]


def test_sidecar_and_container_killed_together(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 100_000, durable=True)) as sidecar:
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
        assert taken(tmp_path / "out") == sent(100_000)


def test_all_containers_stopped_drain_the_run(tmp_path: Path) -> None:
    """As `compose stop` does it: everything that depends on the sidecar first."""
    with Sidecar(tmp_path, three(tmp_path, 10_000_000)) as sidecar:
        sidecar.begin()
        containers = sidecar.containers(*NAMES)
        progressed(sidecar, tmp_path, 1000)
        for each in containers:
            each.terminate()
        result = sidecar.finish()
        report = result.expect(128 + signal.SIGTERM, "stopped")
        assert report["cause"] == "the containers of all its processors are being stopped"
        account = result.account("clean", "sink")
        assert account == {"written": account["written"], "acknowledged": account["written"]}
        assert [each.wait(DEADLINE_S) for each in containers] == [143, 143, 143]


def test_one_container_stopped_leaves_the_run(tmp_path: Path) -> None:
    """As `compose restart middle` does it."""
    with Sidecar(tmp_path, three(tmp_path, 1_500_000)) as sidecar:
        sidecar.begin()
        containers = dict(zip(NAMES, sidecar.containers(*NAMES), strict=True))
        progressed(sidecar, tmp_path, 1000)
        containers["middle"].terminate()
        assert containers["middle"].wait(DEADLINE_S) == 143
        sidecar.containers("middle")
        result = sidecar.finish()
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(1_500_000)
        assert "its container was stopped" in result.output
        assert result.processor("middle")["restarts"] == 1


def test_the_last_that_works_leaves_the_run_as_any_other(tmp_path: Path) -> None:
    """`compose restart sink`, when the others are done: their containers are there, and are not asked."""
    pipeline = three(tmp_path, 1000)
    pipeline["processors"]["sink"] = {"command": ["sleep", "1000"], "reads": "clean"}
    with Sidecar(tmp_path, pipeline) as sidecar:
        running = sidecar.begin()
        *others, last = sidecar.containers(*NAMES)
        done = {"source": "exited", "middle": "exited", "sink": "draining"}
        until(lambda: states(sidecar) == done, "all but the sink to be done")
        last.terminate()
        assert last.wait(DEADLINE_S) == 143
        until(lambda: sidecar.dead() or sidecar.cause("sink").startswith("waiting for a container"), "it to be missed")
        assert sidecar.ask("/ready")[1]["stopping"] is None
        assert [each.poll() for each in others] == [None, None]
        running.signal(signal.SIGTERM)
        sidecar.finish().expect(128 + signal.SIGTERM, "stopped")


def states(sidecar: Sidecar) -> dict[str, str]:
    """The state of each processor."""
    return {name: each["state"] for name, each in sidecar.ask("/ready")[1].get("processors", {}).items()}


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
    """Nobody who is not there is given a grace period."""
    pipeline = three(tmp_path)
    for each in pipeline["processors"].values():
        each["stop"] = {"grace": "1h"}
    with Sidecar(tmp_path, {**pipeline, "drain": "1h"}) as sidecar:
        running = sidecar.begin()
        sidecar.containers("middle")
        until(lambda: sidecar.ask("/ready")[1]["processors"]["middle"]["state"] == "running", "one to run")
        running.signal(signal.SIGTERM)
        result = sidecar.finish()
        result.expect(128 + signal.SIGTERM, "stopped")
        assert "stopped (waiting for a container of `source`)" in result.output


def test_replicas_share_the_door_and_a_spare_stands_by(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, 150_000, replicas=2)) as sidecar:
        sidecar.begin()
        first, second, *_ = sidecar.containers("middle", "middle", "middle", "source", "sink")
        progressed(sidecar, tmp_path, 1000)
        working = [each for each in sidecar.shims.all[:3] if psutil.Process(each.pid).children()]
        assert len(working) == 2
        killed(working[0])  # the spare takes its place
        result = sidecar.finish()
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(150_000)
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


def test_replicas_that_never_had_a_container_are_not_missed(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path, replicas=8)) as sidecar:
        sidecar.begin()
        sidecar.containers(*NAMES, "middle")
        result = sidecar.finish()
        result.completed()
        assert (tmp_path / "out").read_bytes() == sent(COUNT)
        assert "waiting for a container" not in result.output
        assert result.output.count("stopped (nothing is left for it)") == 6


def elsewhere(tmp_path: Path) -> Connector:
    """The command in a folder of its own, beside one that runs."""
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    return Connector(tmp_path / "elsewhere")


def test_a_second_sidecar_is_refused(tmp_path: Path) -> None:
    with Sidecar(tmp_path, three(tmp_path)) as sidecar:
        sidecar.begin()
        file, options = str(tmp_path / "pipeline.toml"), ["--bridges", str(sidecar.shims.path), "--health", "off"]
        result = elsewhere(tmp_path).command("sidecar", file, *options)
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


def alone(folder: Path, *command: str, **variables: str) -> Running:
    """A sidecar that is configured by variables alone, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    options = ["--health", "off", "--report", str(folder / "report.json")]
    words = ["--", *command] if command else []
    environment = {f"CONNECTOR_{name}": value for name, value in variables.items()}
    return Running([*RUNNER, "sidecar", *options, *words], folder, folder / "report.json", environment)


@pytest.mark.parametrize("scheme", ["tcp", "ws", "zeromq+tcp"])
def test_three_programs_joined_by_variables_alone(tmp_path: Path, scheme: str) -> None:
    raw, clean = (f"{scheme}://127.0.0.1:{free_port()}" for _ in range(2))
    with (
        alone(tmp_path / "sink", *sink(tmp_path / "out"), READS=clean) as last,
        alone(tmp_path / "middle", "cat", READS=raw, WRITES=clean, CONTRACT="one-to-one") as middle,
        alone(tmp_path / "source", *source(COUNT), WRITES=raw) as first,
    ):
        for each in (first, middle, last):
            each.finish().completed()
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_over_a_broker(tmp_path: Path, nats_server: NatsServer) -> None:
    raw = f"{nats_server.url}/flights.raw"
    with (
        alone(tmp_path / "sink", *sink(tmp_path / "out"), READS=raw) as last,
        alone(tmp_path / "source", *source(COUNT), WRITES=raw) as first,
    ):
        for each in (first, last):
            each.finish().completed()
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_a_program_between_any_other_programs(tmp_path: Path) -> None:
    """As in docs/sidecar.md: curl posts, and a server gets what comes of it."""
    place = free_port()
    url = f"http://127.0.0.1:{place}/words?listen=true"
    with alone(tmp_path / "it", *sink(tmp_path / "out"), READS=url) as running:
        until(lambda: running.process.poll() is not None or posted(place, b"one\ntwo\n"), "it to take messages")
        until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_bytes() == b"one\ntwo\n", "both")
        running.signal(signal.SIGTERM)
        running.finish().expect(128 + signal.SIGTERM, "stopped")


def posted(port: int, body: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("POST", "/words", body, {"Content-Type": "application/x-ndjson"})
        return connection.getresponse().status < 300
    return False


def test_a_container_next_to_one_that_has_variables_alone(tmp_path: Path) -> None:
    raw = f"tcp://127.0.0.1:{free_port()}"
    with Shims() as shims, alone(tmp_path / "source", *source(COUNT), WRITES=raw) as first:
        command = json.dumps(sink(tmp_path / "out"))
        variables = {"READS": raw, "PROCESSOR": "store", "COMMAND": command, "BRIDGES": str(shims.path)}
        with alone(tmp_path / "sink", **variables) as last:
            until(lambda: last.process.poll() is not None or (shims.path / "store/shim.sock").exists(), "its door")
            container = shims.start("store")
            last.finish().completed()
            assert container.wait(DEADLINE_S) == 0
        first.finish().completed()
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_a_file_with_the_same_words_is_written_and_run(tmp_path: Path) -> None:
    raw = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "sink").mkdir()
    written = Running(
        [*RUNNER, "sidecar", "--write-config", "sidecar.toml", "--", *sink(tmp_path / "out")],
        tmp_path / "sink",
        None,
        {"CONNECTOR_READS": raw},
    )
    with written:
        assert written.finish().code == 0
    words = tomllib.loads((tmp_path / "sink/sidecar.toml").read_text())
    assert words == {"command": sink(tmp_path / "out"), "reads": raw}
    with (
        alone(tmp_path / "sink", *words["command"], CONFIG="sidecar.toml") as last,
        alone(tmp_path / "source", *source(COUNT), WRITES=raw) as first,
    ):
        first.finish().completed()
        last.finish().completed()
    assert (tmp_path / "out").read_bytes() == sent(COUNT)


def test_nothing_to_run(tmp_path: Path) -> None:
    result = Connector(tmp_path).command("sidecar")
    assert result.code == 2
    assert "there is nothing to run: no pipeline.toml, no --config, and neither CONNECTOR_READS" in result.stderr


def test_a_file_and_a_command_do_not_go_together(tmp_path: Path) -> None:
    Connector(tmp_path).write(three(tmp_path))
    result = Connector(tmp_path).command("sidecar", "pipeline.toml", "--", "cat")
    assert result.code == 2
    assert "FILE says what runs" in result.stderr


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["cat"], {}, "there is no file cat; a program stands behind --: connector sidecar -- cat"),
        (["--changes", "x.toml", "--", "cat"], {"CONNECTOR_READS": "tcp://127.0.0.1:1"}, "--changes are laid over a"),
        (["--write-config", "x.toml", "pipeline.toml"], {}, "leave FILE and --config out"),
        ([], {"CONNECTOR_WRITES_ERRORS": "tcp://127.0.0.1:1"}, "pipeline.toml says what is read and written, and so"),
        (["--config", "s.toml"], {"CONNECTOR_READS": "tcp://127.0.0.1:1"}, "s.toml says what is read and written, and"),
        ([], {"CONNECTOR_FILE": "p.toml", "CONNECTOR_READS": "tcp://127.0.0.1:1"}, "p.toml says what is read and"),
    ],
)
def test_nothing_that_is_said_is_left_unheard(
    tmp_path: Path, words: list[str], variables: dict[str, str], said: str
) -> None:
    Connector(tmp_path).write(three(tmp_path))
    with Running([*RUNNER, "sidecar", *words], tmp_path, None, variables) as running:
        result = running.finish()
    assert (result.code, said in " ".join(result.stderr.split())) == (2, True), result.stderr


def test_a_signal_while_it_starts_ends_it_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a namespace of processes")
    Connector(tmp_path).write(three(tmp_path))
    early = "import os, runner.__main__ as it\nimport runner.cli as cli\n"
    early += "cli.main = lambda: (os.kill(1, 15), print('still here'))\nit.main()\n"
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", early]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (143, "")
