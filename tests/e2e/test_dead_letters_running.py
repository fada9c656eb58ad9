"""Dead letters of a pipeline that runs: its runner is asked, and gives them back to their readers at once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from runner.cli import control
from runner.cli.letters import desk_of
from tests.children.build import script, sink, source
from tests.e2e.connector import Connector, Result, Running, chain, until
from tests.e2e.test_ends import numbers
from tests.e2e.test_poison import DURABLE, SWIFT

pytestmark = pytest.mark.timeout(240)

BAD = (20, 40)
WITHIN_S = 60.0


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    """Its folder has a longer path than an address of a unix socket can have."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    return Connector(folder)


def asked(connector: Connector, *arguments: str) -> Result:
    (connector.folder / "asking").mkdir(exist_ok=True)
    beside = Connector(connector.folder / "asking")
    return beside.command("dead-letters", *arguments, str(connector.folder / "pipeline.toml"))


def listed(connector: Connector) -> list[str]:
    """What `dead-letters list` says."""
    return asked(connector, "list").stdout.splitlines()


def there(connector: Connector) -> dict[int, bool]:
    """The letters that the runner has, and whether each is on its way to its reader: in no time, to be asked often."""
    folder = connector.folder / ".connector" / "test"
    if not folder.exists() or not control.at_work(folder):
        return {}
    desk = desk_of(folder)
    letters = [letter.id for letter in desk.letters()]
    return {letter: letter in desk.under_way for letter in letters}


def at_rest(connector: Connector) -> bool:
    """Whether the runner is there, and has no letter."""
    return control.at_work(connector.folder / ".connector" / "test") and not there(connector)


def through(connector: Connector, contract: str) -> dict[str, Any]:
    """A pipeline that goes on, and sets two messages aside until `mended` is there; then it waits while `hold` is."""
    folder = connector.folder
    if contract == "one-to-one":
        command = script("poison", "--once", folder / "mended", "--hold", folder / "hold", "20,40")
    else:
        command = script("acknowledges", "poison", "20,40", "exit", 1, "/nonexistent", folder / "mended")
    middle = {"command": command, "contract": contract, "restart": SWIFT}
    first = {"command": source(None, "--rate", 200), "resume": "skip"}
    return chain({"c1": DURABLE, "c2": DURABLE}, source=first, middle=middle, sink=sink(folder / "out"))


def set_aside(connector: Connector) -> None:
    until(lambda: len(there(connector)) == len(BAD), "two dead letters", WITHIN_S)


def stopped(running: Running) -> Result:
    running.signal(signal.SIGTERM)
    result = running.finish()
    result.expect(143, "stopped")
    return result


@pytest.mark.parametrize("contract", ["one-to-one", "acknowledged"])
def test_a_letter_is_given_back_to_its_reader_at_once(connector: Connector, contract: str) -> None:
    out = connector.folder / "out"
    with connector.start(through(connector, contract)) as running:
        set_aside(connector)
        (connector.folder / "mended").touch()
        said = asked(connector, "replay", "--number", "20")
        assert said.stdout == "1 given back to their readers\n", said
        until(lambda: 20 in numbers(out), "the message", WITHIN_S)
        until(lambda: list(there(connector)) == [2], "its letter to go", WITHIN_S)
        assert '"payload":"0000000040 ' in asked(connector, "show").stdout
        assert asked(connector, "discard", "--letter", "2").stdout == "1 discarded\n"
        assert there(connector) == {}
        result = stopped(running)
    assert numbers(out).count(20) == 1
    assert 40 not in numbers(out)
    account = result.account("c1", "middle")
    assert (account["dead"], account["replayed"]) == (2, 1)


def test_what_is_on_its_way_is_neither_given_back_again_nor_discarded(connector: Connector) -> None:
    with connector.start(through(connector, "one-to-one")) as running:
        set_aside(connector)
        (connector.folder / "hold").touch()
        (connector.folder / "mended").touch()
        assert "1 given back" in asked(connector, "replay", "--letter", "1").stdout
        assert listed(connector)[0].endswith(", back at its reader")
        for verb in ("replay", "discard"):
            again = asked(connector, verb, "--letter", "1")
            assert again.stdout.startswith("0 ")
            assert "letter 1: it was given back to its reader, which has not answered yet" in again.stderr
        (connector.folder / "hold").unlink()
        until(lambda: list(there(connector)) == [2], "its letter to go", WITHIN_S)
        stopped(running)
    assert numbers(connector.folder / "out").count(20) == 1


def test_one_that_kills_again_is_a_dead_letter_again(connector: Connector) -> None:
    with connector.start(through(connector, "one-to-one")) as running:
        set_aside(connector)
        assert "1 given back" in asked(connector, "replay", "--letter", "1").stdout
        until(lambda: there(connector) == {1: False, 2: False}, "it to be set aside again", WITHIN_S)
        assert [line.split()[:5] for line in listed(connector)] == [
            ["1", "poison", "middle", "c1", "20"],
            ["2", "poison", "middle", "c1", "40"],
        ]
        result = stopped(running)
    assert result.account("c1", "middle")["dead"] == 3


def test_where_the_reader_has_ended_a_letter_waits_for_the_next_start(connector: Connector) -> None:
    folder = connector.folder
    middle = {"command": script("poison", "20"), "contract": "one-to-one", "restart": SWIFT}
    pipeline = chain({"c1": DURABLE, "c2": DURABLE}, source=source(100), middle=middle, sink=sink(folder / "out"))
    pipeline["processors"]["other"] = {"command": source(None, "--rate", 50), "writes": "c9"}
    pipeline["processors"]["last"] = {"command": sink(folder / "out9"), "reads": "c9"}
    with connector.start(pipeline) as running:
        until(lambda: "sink[1]    ended" in running.output(), "the sink to end", WITHIN_S)
        said = asked(connector, "replay")
        assert said.stdout == "0 given back to their readers\n"
        assert "letter 1: to be replayed at the next start: the input of `middle` has ended" in said.stderr
        assert listed(connector)[0].endswith(", to be replayed")
        stopped(running)
    assert listed(connector)[0].endswith(", to be replayed")


def test_a_runner_that_was_killed_leaves_no_socket_that_is_in_the_way(connector: Connector) -> None:
    pipeline = through(connector, "one-to-one")
    place = connector.folder / ".connector" / "test" / "control"
    with connector.start(pipeline) as running:
        set_aside(connector)
        assert place.stat().st_mode & 0o777 == 0o600
        program = running.program(pipeline["processors"]["middle"]["command"])
        links = [str(entry.readlink()) for entry in Path(f"/proc/{program.pid}/fd").iterdir()]
        assert not any(link.startswith("socket:") for link in links)
        running.process.kill()
        running.process.wait()
    assert place.is_socket()
    assert "2 to be replayed at the next start" in asked(connector, "replay").stdout
    (connector.folder / "mended").touch()
    with connector.start(pipeline) as running:
        until(lambda: at_rest(connector), "both to be answered", WITHIN_S)
        stopped(running)
    assert not place.exists()
    assert [numbers(connector.folder / "out").count(bad) for bad in BAD] == [1, 1]
