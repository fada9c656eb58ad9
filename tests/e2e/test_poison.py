"""Messages that kill their reader: found among thousands, set aside, shown, replayed; nobody else is blamed."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import script, sink, source
from tests.e2e.connector import Connector, Result, Running, chain, kill_exactly
from tests.e2e.test_ends import numbers

pytestmark = pytest.mark.timeout(180)

SWIFT = {"backoff": "1ms..20ms", "limit": "1000 in 60s"}
DURABLE = {"kind": "durable", "durability": "process"}
COUNT, BAD = 10_000, 4321


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    return Connector(tmp_path)


def poisoned(*arguments: object, **more: Any) -> dict[str, Any]:
    """A one-to-one processor that dies of some messages."""
    return {"command": script("poison", *arguments), "contract": "one-to-one", "restart": SWIFT} | more


def all_but(*bad: int, count: int = COUNT) -> list[int]:
    return [number for number in range(1, count + 1) if number not in bad]


def letters(result: Result) -> list[dict[str, Any]]:
    """What the report shows of the dead letters."""
    assert result.report is not None
    found: list[dict[str, Any]] = result.report["dead_letters"]["letters"]
    return found


@contextmanager
def random_kills(
    running: Running, command: list[str], seed: int, *, every_s: tuple[float, float] = (0.05, 0.3)
) -> Iterator[list[int]]:
    """While it lasts programs with this command are killed, now and then; whom it hit."""
    chance, over, hit = random.Random(seed), threading.Event(), []

    def strike() -> None:
        while not over.wait(chance.uniform(*every_s)):
            found = running.programs(command)
            if found:
                victim = chance.choice(found)
                if kill_exactly(victim, command):
                    hit.append(victim.pid)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield hit
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("arguments", [(), ("--buffered",), ("--how", "segv"), ("--how", "kill")], ids=" ".join)
def test_one_bad_message_in_ten_thousand_is_set_aside(
    connector: Connector, tmp_path: Path, replicas: int, arguments: tuple[str, ...]
) -> None:
    middle = poisoned(*arguments, BAD, replicas=replicas)
    result = connector.run(chain(source=source(COUNT), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == all_but(BAD)
    assert result.account("c1", "middle") == {"written": COUNT, "acknowledged": COUNT - 1, "dead": 1}
    (letter,) = letters(result)
    assert (letter["kind"], letter["processor"], letter["channel"], letter["number"]) == ("poison", "middle", "c1", BAD)
    assert letter["payload"].startswith(f"{BAD:010d} ")
    assert letter["size_bytes"] == 100
    assert "set aside" in result.output


@pytest.mark.parametrize(("replicas", "seed"), [(1, 1), (3, 2)])
def test_random_kills_blame_no_innocent(connector: Connector, tmp_path: Path, replicas: int, seed: int) -> None:
    middle = poisoned(BAD, replicas=replicas)
    pipeline = chain(source=source(COUNT, "--rate", 3000), middle=middle, sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running, random_kills(running, middle["command"], seed) as hit:
        result = running.finish(120)
    result.completed()
    assert hit, "a test of kills that killed nobody"
    assert [letter["number"] for letter in letters(result)] == [BAD]
    assert numbers(tmp_path / "out") == all_but(BAD)


@pytest.mark.parametrize("replicas", [1, 3])
def test_trouble_elsewhere_sets_nothing_aside(connector: Connector, tmp_path: Path, replicas: int) -> None:
    (tmp_path / "down").touch()
    middle = poisoned("--down", tmp_path / "down", replicas=replicas)
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    assert "does not lie with a message" in result.failed()["cause"]
    account = result.account("c1", "middle")
    assert "dead" not in account
    assert account["unread"] + account.get("acknowledged", 0) == account["written"]
    assert letters(result) == []


def test_later_is_no_poison(connector: Connector, tmp_path: Path) -> None:
    """Exit status 75 of one message again and again, and then no more."""
    middle = poisoned("--how", "later", "--once", tmp_path / "up", 50)
    with connector.start(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out"))) as running:
        for _ in range(8):
            program = running.program(middle["command"])
            program.wait(20)
        (tmp_path / "up").touch()
        result = running.finish()
    result.completed()
    assert letters(result) == []
    assert numbers(tmp_path / "out") == all_but(count=100)


def test_a_program_that_hangs_of_a_message_is_rid_of_it(connector: Connector, tmp_path: Path) -> None:
    middle = poisoned("--how", "hang", 50, stall="300ms")
    result = connector.run(chain(source=source(200), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert [letter["number"] for letter in letters(result)] == [50]
    assert "stalled" in letters(result)[0]["cause"]
    assert numbers(tmp_path / "out") == all_but(50, count=200)


def test_the_last_message_and_several_side_by_side(connector: Connector, tmp_path: Path) -> None:
    bad = (10, 500, 501, 1000)
    middle = poisoned(",".join(map(str, bad)), restart={"backoff": "1ms..20ms"})
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert sorted(letter["number"] for letter in letters(result)) == list(bad)
    assert numbers(tmp_path / "out") == all_but(*bad, count=1000)


def test_more_than_the_limit_fails_the_processor(connector: Connector, tmp_path: Path) -> None:
    middle = poisoned("10,20,30", poison={"limit": "2 in 60s"})
    result = connector.run(chain(source=source(1000), middle=middle, sink=sink(tmp_path / "out")))
    assert "more dead letters than the limit (2 in 1m)" in result.failed()["cause"]
    assert [letter["number"] for letter in letters(result)] == [10, 20]


def test_a_sink_is_rid_of_a_bad_message(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=source(1000), middle=poisoned(77)))
    result.completed()
    assert result.account("c1", "middle") == {"written": 1000, "acknowledged": 999, "dead": 1}


def test_a_stop_in_the_middle_of_a_search_keeps_the_account(connector: Connector, tmp_path: Path) -> None:
    middle = poisoned("--how", "hang", BAD, stall="2s")
    pipeline = chain(source=source(COUNT), middle=middle, sink=sink(tmp_path / "out"))
    with connector.start(pipeline | {"drain": "1s"}) as running:
        for _ in range(4):
            running.program(middle["command"]).wait(20)
        running.signal(signal.SIGTERM)
        result = running.finish()
    result.expect(143, "stopped")


# -- kept, shown, replayed


def kept(connector: Connector, *arguments: str) -> Result:
    return connector.command("dead-letters", *arguments, str(connector.folder / "pipeline.toml"))


def test_dead_letters_are_kept_listed_shown_and_exported(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": DURABLE, "c2": DURABLE}, source=source(100), middle=poisoned("20,40"), sink=sink(tmp_path / "out")
    )
    connector.run(pipeline).completed()
    listed = kept(connector, "list").stdout.splitlines()
    assert [line.split()[:5] for line in listed] == [
        ["1", "poison", "middle", "c1", "20"],
        ["2", "poison", "middle", "c1", "40"],
    ]
    (shown,) = kept(connector, "show", "--number", "30-").stdout.splitlines()
    letter = json.loads(shown)
    assert letter["payload"].startswith("0000000040 ")
    assert letter["exit"] == {"code": 3, "signal": None}
    assert "cannot handle this" in letter["log"]
    assert kept(connector, "list", "--processor", "nobody").stdout == ""
    assert kept(connector, "list", "--cause", "exit 4").stdout == ""
    assert kept(connector, "export", "--codec", "lines", "-o", str(tmp_path / "bad")).code == 0
    assert numbers(tmp_path / "bad") == [20, 40]
    assert kept(connector, "discard").code == 2
    assert kept(connector, "discard", "--letter", "1").stdout == "1 discarded\n"
    assert [line.split()[0] for line in kept(connector, "list").stdout.splitlines()] == ["2"]


def test_a_replayed_letter_reaches_its_reader_once(connector: Connector, tmp_path: Path) -> None:
    middle = poisoned("--once", tmp_path / "mended", "20,40")
    pipeline = chain({"c1": DURABLE, "c2": DURABLE}, source=source(100), middle=middle, sink=sink(tmp_path / "out"))
    connector.run(pipeline).completed()
    assert kept(connector, "replay", "--number", "20").stdout == "1 to be replayed at the next start\n"

    again = connector.run(pipeline)  # still bad: both in the new run, and the letter that came back
    again.completed()
    account = again.account("c1", "middle")
    assert account == {"written": 100, "replayed": 1, "acknowledged": 98, "dead": 3}
    assert [line.split()[0] for line in kept(connector, "list").stdout.splitlines()] == ["1", "2", "3", "4"]

    (tmp_path / "mended").touch()
    (tmp_path / "out").unlink()
    kept(connector, "replay", "--letter", "1")
    last = connector.run(pipeline)
    last.completed()
    assert last.account("c1", "middle") == {"written": 100, "replayed": 1, "acknowledged": 101}
    assert sorted(numbers(tmp_path / "out")) == sorted([*all_but(count=100), 20])
    assert [line.split()[0] for line in kept(connector, "list").stdout.splitlines()] == ["2", "3", "4"]


def test_without_a_state_there_is_none_to_look_at(connector: Connector, tmp_path: Path) -> None:
    connector.run(chain(source=source(100), middle=poisoned(20), sink=sink(tmp_path / "out"))).completed()
    result = kept(connector, "list")
    assert result.code == 3
    assert "durable" in result.output
    assert not (tmp_path / ".connector").exists()


# -- schema

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}}, "required": ["n"]}


@pytest.mark.parametrize("codec", ["lines", "null", "length-prefixed"])
@pytest.mark.parametrize("durable", [False, True])
def test_what_does_not_fit_the_schema_is_refused_at_the_writer(
    connector: Connector, tmp_path: Path, codec: str, durable: bool
) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    payloads = [b'{"n":1}', b"no json", b'{"n":9}', b'{"n":"x"}', b'{"n":5,"m":[]}', b"\xff", b'{"n":2}']
    framing = {"lines": b"%b\n", "null": b"%b\0"}
    framed = (len(one).to_bytes(4, "big") + one if codec not in framing else framing[codec] % one for one in payloads)
    (tmp_path / "in").write_bytes(b"".join(framed))
    pipeline = chain(
        {"c1": {"schema": "s.json"} | (DURABLE if durable else {})},
        source={"command": ["cat", str(tmp_path / "in")], "codec": codec},
        sink={"command": ["tee", str(tmp_path / "out")], "codec": "lines"},
    )
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_bytes() == b'{"n":1}\n{"n":5,"m":[]}\n{"n":2}\n'
    assert result.channel("c1")["written"] == 3
    assert result.channel("c1")["refused"] == 4
    assert result.processor("source")["written"] == 3
    assert [letter["number"] for letter in letters(result)] == [2, 3, 4, 6]
    assert "9 is greater than the maximum of 5, at /n" in letters(result)[1]["cause"]
    if durable:
        assert len(kept(connector, "list", "--kind", "refused").stdout.splitlines()) == 4
        assert "0 to be replayed" in kept(connector, "replay").stdout


def test_a_refused_answer_answers(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "integer", "multipleOf": 2}')
    middle = {"command": ["jq", "--unbuffered", ".n"], "contract": "one-to-one"}
    (tmp_path / "in").write_text("".join(f'{{"n":{number}}}\n' for number in range(1, 101)))
    pipeline = chain(
        {"c2": {"schema": "s.json"}},
        source=["cat", str(tmp_path / "in")],
        middle=middle,
        sink=["tee", str(tmp_path / "out")],
    )
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(2, 101, 2)]
    assert result.account("c1", "middle") == {"written": 100, "acknowledged": 100}
    assert result.channel("c2")["refused"] == 50


@pytest.mark.parametrize("seed", [1, 2])
def test_sigkills_of_the_runner_neither_lose_nor_double_a_dead_letter(
    connector: Connector, tmp_path: Path, seed: int
) -> None:
    """The letter, the mark of the reader and the answers that leave because of it are one transaction."""
    chance = random.Random(seed)
    middle = poisoned("300,600")
    pipeline = chain(
        {"c1": DURABLE, "c2": DURABLE},
        source={"command": source(1000, "--rate", 400), "resume": "skip"},  # 2.5 s: no run below completes
        middle=middle,
        sink={"command": script("poison"), "contract": "one-to-one"},
    )
    for _ in range(4):
        with connector.start(pipeline) as running:
            running.program(middle["command"])
            threading.Event().wait(chance.uniform(0.5, 2.2))  # the moment is what varies
            running.process.kill()
            assert running.process.wait() == -signal.SIGKILL
    connector.run(pipeline).completed()
    listed = [line.split()[4] for line in kept(connector, "list").stdout.splitlines()]
    assert listed == ["300", "600"]
