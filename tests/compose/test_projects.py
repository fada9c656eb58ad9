"""Each project comes up, does what its README says, and ends by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.compose.project import Project, project
from tests.faults.harness import seed

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

BALANCED = "ledger balanced: every message acknowledged by every reader, nothing lost or doubled"
TRIES = (
    "connect", "resolve", "write_root", "write_bridge", "run_from_tmp", "become_root", "new_namespace", "secrets",
    "many_processes",
)  # fmt: skip
Kill = Callable[[Project], bool]


def program(service: str) -> Kill:
    """SIGKILL of what runs in a processor's container."""
    return lambda its: its.kill_program(service)


def container(service: str) -> Kill:
    """SIGKILL of a container's first process: the engine starts it again."""
    return lambda its: its.kill_container(service)


def rested(*services: str) -> Kill:
    """Several containers at once, once all have run long enough for the engine to start them again at once.

    It doubles its wait for one that has run for less than 10 s, up to a minute.
    """

    def way(its: Project) -> bool:
        its.until(lambda: all(its.up_for_s(service) > 10.5 for service in services), "containers that stay")
        return sum(its.kill_container(service) for service in services) > 0

    return way


def both(*services: str) -> Kill:
    """Several containers at once."""
    return lambda its: sum(its.kill_container(service) for service in services) > 0


def kill(its: Project, kills: int, ways: Sequence[Kill], last: int) -> int:
    """Kill by each way in turn, each time once something new has come out at the end; returns how often.

    That is `kills` times, or until message `last` has come out.
    """
    chance = random.Random(seed())
    for number in range(kills):
        before = through(its)
        its.until(lambda before=before: through(its) > min(before, last - 1), "something new")  # type: ignore[misc]
        if through(its) == last:
            return number
        way = chance.choice(ways) if number >= len(ways) else ways[number]
        its.until(lambda way=way: way(its), "something to be killed")  # type: ignore[misc]
    return kills


def stored(its: Project) -> int:
    """How many rows PostgreSQL has; what it had, while it is away."""
    sql = "SELECT count(*) FROM readings"
    command = f'PGPASSWORD="$(cat /run/secrets/store-pgpassword)" psql -h 127.0.0.1 -U postgres -At -c "{sql}"'
    found = its.compose("exec", "-T", "database", "sh", "-c", command, code=None).strip()
    return int(found) if found.isdigit() else -1


def squares(its: Project) -> list[int]:
    """What has come out of two-runners and nats."""
    file = its.folder / "out" / "squares.txt"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def through(its: Project) -> int:
    """How many messages have come to the end of a project."""
    return stored(its) if (its.folder / "password.txt").exists() else len(squares(its))


def test_untrusted(images: None, tmp_path: Path) -> None:
    del images
    with project("untrusted", tmp_path) as its:
        its.up()
        its.until_ended("connector", "give", "guest", "take")
        said, told = its.logs("guest"), its.logs("connector")
        for name in TRIES:
            assert f"{name}: refused" in said, said
        assert "SUCCEEDED" not in said, said
        assert "1000 answers" in its.logs("take")
        assert "killed by SIGKILL" in told  # it took all memory, and was started again
        assert BALANCED in told
        assert "refused" not in told  # each program has the log of its own container


def test_ingest(images: None, tmp_path: Path) -> None:
    """From a JavaScript source to PostgreSQL by a Java sink, none of which is trusted to live."""
    del images
    ways = [container("store"), container("connector"), program("fetch"), container("database")]
    with project("ingest", tmp_path, ROWS="6000", PAGE="40", PAUSE_S="0.2") as its:
        its.up()
        assert kill(its, len(ways), ways, 6000) >= 2
        its.until_ended("connector", "fetch", "store")
        assert stored(its) == 6000
        assert BALANCED in its.logs("connector")


@pytest.mark.parametrize("name", ["two-runners", "nats"])
def test_two_runners(images: None, tmp_path: Path, name: str) -> None:
    del images
    ends = [container("connector-edge"), both("connector-centre", "square")]
    ways = ends if name == "two-runners" else [container("nats"), *ends]
    with project(name, tmp_path, COUNT_TO="6000", COUNT_PAUSE="20") as its:
        its.up()
        assert kill(its, len(ways), ways, 6000) == len(ways)
        its.change("connector-edge", COUNT_PAUSE="0")
        its.until_ended("connector-edge", "connector-centre", "count", "square")
        assert squares(its) == [number**2 for number in range(1, 6001)]


def test_what_people_do_to_a_project(images: None, tmp_path: Path) -> None:
    """Stopped it drains, started it goes on; one service is restarted; `docker kill` waits for `docker start`.

    What is slow until then does the rest at once when a value is changed.
    """
    del images
    with project("two-runners", tmp_path, COUNT_TO="6000", COUNT_PAUSE="20") as its:
        its.compose("config", "--quiet")
        its.up()
        its.until(lambda: len(squares(its)) > 50, "the first numbers")
        its.compose("stop")
        assert not its.running("count")
        assert {state for state, _ in its.states().values()} == {"exited"}
        before = squares(its)
        assert before == [number**2 for number in range(1, len(before) + 1)]
        assert "ledger balanced" in its.logs("connector-centre")

        its.compose("start")
        its.until(lambda: len(squares(its)) > len(before) + 50, "more numbers")
        its.compose("restart", "square")
        its.compose("restart", "connector-edge")
        its.compose("up", "--detach", "--scale", "square=3", limit_s=120)
        its.until(lambda: all(f"square[{number}]" in its.logs("connector-centre") for number in (2, 3)), "two more")
        its.compose("up", "--detach", "--scale", "square=1", limit_s=120)
        seen = len(squares(its))
        its.until(lambda: len(squares(its)) > seen + 50, "numbers after the restarts")

        its.compose("kill", "square")  # the engine takes it for a person's stop, and starts nothing
        its.until(lambda: "waiting for a container of `square`" in its.logs("connector-centre"), "the cause")
        assert its.running("connector-centre", "connector-edge", "count")
        its.compose("start", "square")
        its.change("connector-edge", COUNT_PAUSE="0")
        its.until_ended("connector-edge", "connector-centre", "count", "square")
        assert squares(its) == [number**2 for number in range(1, 6001)]


SOAK = {
    "ingest": [
        ("processor", [program("store"), program("fetch"), rested("store"), rested("fetch")]),
        ("sidecar", [rested("connector"), rested("connector", "store")]),
        ("PostgreSQL", [rested("database")]),
    ],
    "nats": [
        ("processor", [program("square"), program("count"), rested("square"), rested("count")]),
        ("sidecar", [rested("connector-edge"), rested("connector-centre"), rested("connector-centre", "square")]),
        ("NATS", [rested("nats")]),
    ],
    "two-runners": [
        ("processor", [program("square"), program("count"), rested("square"), rested("count")]),
        ("sidecar", [rested("connector-edge"), rested("connector-centre")]),
    ],
}
SOAK_KILLS = 50
MESSAGES = 40_000
SLOWLY = {"ROWS": str(MESSAGES), "PAGE": "10", "PAUSE_S": "0.15", "COUNT_TO": str(MESSAGES), "COUNT_PAUSE": "15"}
"""There are some left at the last kill."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "what", "ways"), [(name, what, ways) for name, kinds in SOAK.items() for what, ways in kinds]
)
def test_soak_kills(images: None, tmp_path: Path, name: str, what: str, ways: Sequence[Kill]) -> None:
    del images
    with project(name, tmp_path, **SLOWLY) as its:
        its.up()
        assert kill(its, SOAK_KILLS, ways, MESSAGES) == SOAK_KILLS
        there = through(its)
        its.until_ended(*(["connector"] if name == "ingest" else ["connector-edge", "connector-centre"]), limit_s=900)
        print(f"{name}: {SOAK_KILLS} kills ({what}), {there} of {MESSAGES} messages through at the last one")
        assert through(its) == MESSAGES
        assert name == "ingest" or squares(its) == [number**2 for number in range(1, MESSAGES + 1)]
