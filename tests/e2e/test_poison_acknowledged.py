"""Messages that an acknowledged processor cannot handle: those that kill it, and those that it gives back for ever."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import script, sink, source
from tests.e2e.connector import Connector, chain, steady, until
from tests.e2e.test_ends import numbers
from tests.e2e.test_poison import DURABLE, SWIFT, all_but, kept, letters, random_kills

pytestmark = pytest.mark.timeout(180)

COUNT, BAD = 10_000, 4321
SOAK_ROUNDS = 5


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    return Connector(tmp_path)


def client(what: str, *arguments: object, **more: Any) -> dict[str, Any]:
    """An acknowledged processor that is restarted at once, with the default limit."""
    restart = {"backoff": "1ms..20ms"}
    return {"command": script("acknowledges", what, *arguments), "contract": "acknowledged", "restart": restart} | more


@pytest.mark.parametrize(
    ("replicas", "bridge", "arguments"),
    [
        (1, "stdio", ("exit",)),
        (1, "zeromq", ("exit",)),
        (1, "stdio", ("exit", 50)),
        (3, "stdio", ("kill",)),
        (3, "stdio", ("exit", 50)),
    ],
    ids=["one by one", "zeromq", "50 at once", "3 replicas, killed", "3 replicas, 50 at once"],
)
def test_one_bad_message_in_ten_thousand_is_set_aside(
    connector: Connector, tmp_path: Path, replicas: int, bridge: str, arguments: tuple[object, ...]
) -> None:
    middle = client("poison", BAD, *arguments, replicas=replicas, bridge=bridge)
    result = connector.run(chain(source=source(COUNT), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == all_but(BAD)
    assert result.account("c1", "middle") == {"written": COUNT, "acknowledged": COUNT - 1, "dead": 1}
    (letter,) = letters(result)
    assert (letter["kind"], letter["processor"], letter["channel"], letter["number"]) == ("poison", "middle", "c1", BAD)
    assert "killed `middle` again and again" in letter["cause"]


@pytest.mark.parametrize(("replicas", "at_once", "seed"), [(1, 1, 1), (3, 20, 2)])
def test_random_kills_blame_no_innocent(
    connector: Connector, tmp_path: Path, replicas: int, at_once: int, seed: int
) -> None:
    middle = client("poison", BAD, "exit", at_once, replicas=replicas, restart=SWIFT)
    pipeline = chain(source=source(COUNT, "--rate", 3000), middle=middle, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running, random_kills(running, middle["command"], seed) as hit:
        result = running.finish(120)
    result.completed()
    assert hit, "a test of kills that killed nobody"
    assert [letter["number"] for letter in letters(result)] == [BAD]
    assert sorted(numbers(tmp_path / "out")) == all_but(BAD)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("contract", ["acknowledged", "one-to-one"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("at_once", [1, 20])
def test_soak_random_kills_blame_no_innocent(
    connector: Connector, tmp_path: Path, contract: str, replicas: int, at_once: int
) -> None:
    """Many more kills, and five that kill by themselves; programs that answer at once, and late."""
    bad = [1000 * each + 321 for each in range(1, 6)]
    named = ",".join(map(str, bad))
    command = script("acknowledges", "poison", named, "exit", at_once)
    if contract == "one-to-one":
        command = script("poison", *(["--buffered"] if at_once > 1 else []), named)
    restart = {"backoff": "1ms..20ms", "limit": "100000 in 60s"}
    middle = {"command": command, "contract": contract, "restart": restart, "replicas": replicas}
    for number in range(SOAK_ROUNDS):
        pipeline = chain(source=source(COUNT, "--rate", 1000), middle=middle, sink=sink(tmp_path / f"out{number}"))
        with (
            connector.start(pipeline) as running,
            random_kills(running, command, number, every_s=(0.1, 0.6)) as hit,
        ):
            result = running.finish(600)
        result.completed()
        assert len(hit) > 3
        assert sorted(letter["number"] for letter in letters(result)) == bad, f"round {number}"
        assert sorted(numbers(tmp_path / f"out{number}")) == all_but(*bad)


@pytest.mark.parametrize("every", [1, 7])
def test_a_state_covers_the_dead_message(connector: Connector, tmp_path: Path, every: int) -> None:
    middle = client("poisoned_sums", 40, every)
    durable = {"c1": DURABLE, "c2": DURABLE}
    result = connector.run(chain(durable, source=source(200), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    sums, total = [], 0
    for number in range(1, 201):
        total += number * (number != 40)
        sums += [str(total)] * (number != 40)
    assert (tmp_path / "out").read_text().split("\n")[:-1] == [*sums, f"total {total}"]
    assert result.account("c1", "middle") == {"written": 200, "acknowledged": 199, "dead": 1}


def test_of_two_ports_the_one_message_of_the_quiet_one_is_found(connector: Connector, tmp_path: Path) -> None:
    """What it reads beside it succeeds, which tells the killer from trouble elsewhere."""
    middle = client("poison", "77") | {"reads": {"stdin": "c1", "more": "c3"}, "writes": "c2"}
    pipeline = chain(source=source(50), middle=middle, sink=sink(tmp_path / "out"))
    pipeline["processors"]["other"] = {"command": source(77, "--start", 77), "writes": "c3"}
    result = connector.run(pipeline)
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == all_but(count=50)
    assert [(letter["channel"], letter["number"]) for letter in letters(result)] == [("c3", 1)]


@pytest.mark.parametrize("replicas", [1, 3])
def test_trouble_elsewhere_sets_nothing_aside(connector: Connector, tmp_path: Path, replicas: int) -> None:
    (tmp_path / "down").touch()
    middle = client("poison", "", "exit", 1, tmp_path / "down", replicas=replicas, restart=SWIFT)
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    assert "does not lie with a message" in result.failed()["cause"]
    assert "dead" not in result.account("c1", "middle")
    assert letters(result) == []


def test_a_stop_in_the_middle_of_a_search_keeps_the_account(connector: Connector, tmp_path: Path) -> None:
    middle = client("poison", BAD, "hang", stall="1s")
    pipeline = chain(source=source(COUNT), middle=middle, sink=sink(tmp_path / "out"))
    with connector.start(pipeline | {"drain": "1s"}) as running:
        for _ in range(4):
            running.program(middle["command"]).wait(20)
        running.signal(signal.SIGTERM)
        result = running.finish()
    result.expect(143, "stopped")
    assert letters(result) == []


# -- given back again and again


def stored(folder: Path) -> int:
    """How many messages are there."""
    file = folder / "out"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_message_that_is_nacked_again_and_again_is_set_aside(connector: Connector, tmp_path: Path) -> None:
    middle = client("refuses", "10,500,900", replicas=2)
    result = connector.run(chain({"c1": DURABLE}, source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == all_but(10, 500, 900, count=1000)
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 997, "dead": 3}
    assert sorted(letter["number"] for letter in letters(result)) == [10, 500, 900]
    assert all(letter["cause"].endswith("(nack): no such customer") for letter in letters(result))
    assert all(letter["exit"] == {"code": None, "signal": None} for letter in letters(result))
    assert kept(connector, "list").stdout.count("no such customer") == 3


def test_where_nothing_succeeds_nacks_set_nothing_aside(connector: Connector, tmp_path: Path) -> None:
    """A database that is down for some seconds, whatever is given back meanwhile and how often."""
    down = tmp_path / "down"
    middle = client("refuses", "", down)
    pipeline = chain(source=source(None, "--rate", 500), middle=middle, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: stored(tmp_path) > 100, "the first messages", 60)
        down.touch()
        seen = steady(lambda: stored(tmp_path), "nothing to succeed", for_s=3.5)
        down.unlink()
        until(lambda: stored(tmp_path) > seen + 1000, "what had been given back", 60)
        running.signal(signal.SIGTERM)
        result = running.finish()
    result.expect(143, "stopped")
    assert letters(result) == []
    assert "dead" not in result.account("c1", "middle")


def test_more_than_the_limit_fails_the_processor(connector: Connector, tmp_path: Path) -> None:
    middle = client("refuses", "10,20,30", poison={"limit": "2 in 60s"})
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    assert "more dead letters than the limit (2 in 1m)" in result.failed()["cause"]
    assert len(letters(result)) == 2
    assert result.account("c1", "middle")["unread"] == 1


# -- replay and schema


def test_a_replayed_message_has_the_number_and_the_channel_that_it_had(connector: Connector, tmp_path: Path) -> None:
    middle = client("identities", 7, tmp_path / "mended")
    pipeline = chain({"c1": DURABLE}, source=source(20), middle=middle, sink=sink(tmp_path / "out"))
    connector.run(pipeline).completed()
    first = {line.split()[2] for line in (tmp_path / "out").read_text().splitlines()}
    (tmp_path / "out").unlink()
    (tmp_path / "mended").touch()
    assert "1 to be replayed" in kept(connector, "replay").stdout
    result = connector.run(pipeline)
    result.completed()
    assert result.account("c1", "middle") == {"written": 20, "replayed": 1, "acknowledged": 21}
    found = [line.split() for line in (tmp_path / "out").read_text().splitlines()]
    came_back = [(number, channel) for number, _, channel, payload in found if int(payload) == 7]
    assert sorted(number for number, _ in came_back) == ["7", "7"]
    assert len(first) == 1
    assert [channel for _, channel in came_back if channel in first] == list(first), "once, in the epoch that it was of"
    assert kept(connector, "list").stdout == ""


@pytest.mark.parametrize("durable", [False, True])
def test_a_refused_output_is_dropped_and_its_message_acknowledged(
    connector: Connector, tmp_path: Path, durable: bool
) -> None:
    """Whether it is the only answer to its message or not, and whatever channel of the port takes it."""
    (tmp_path / "even.json").write_text('{"type": "integer", "multipleOf": 2}')
    (tmp_path / "in").write_text("".join(f"{number}\n" for number in range(1, 101)))
    channels = {"c2": {"schema": "even.json"}} | ({"c1": DURABLE, "c3": DURABLE} if durable else {})
    channels["c2"] |= DURABLE if durable else {}
    pipeline = chain(
        channels,
        source=["cat", str(tmp_path / "in")],
        middle={"command": script("acknowledges", "echo", 2), "contract": "acknowledged", "writes": ["c2", "c3"]},
        sink=["tee", str(tmp_path / "out")],
    )
    pipeline["processors"]["other"] = {"command": ["tee", str(tmp_path / "all")], "reads": "c3"}
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(2, 101, 2) for _ in range(2)]
    assert (tmp_path / "all").read_text().split() == [str(number) for number in range(1, 101) for _ in range(2)]
    assert result.account("c1", "middle") == {"written": 100, "acknowledged": 100}
    assert (result.channel("c2")["written"], result.channel("c2")["refused"]) == (100, 100)
    assert (result.channel("c3")["written"], result.channel("c3")["refused"]) == (200, 0)
    if durable:
        assert len(kept(connector, "list", "--kind", "refused").stdout.splitlines()) == 100
