"""Messages that an acknowledged processor cannot handle: those that kill it, and those that it gives back for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.children.build import script, sink, source
from tests.e2e.connector import Connector, chain
from tests.e2e.test_ends import numbers
from tests.e2e.test_poison import DURABLE, SWIFT, all_but, letters, random_kills

pytestmark = pytest.mark.timeout(180)

COUNT, BAD = 10_000, 4321


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    return Connector(tmp_path)


def client(what: str, *arguments: object, **more: Any) -> dict[str, Any]:
    """An acknowledged processor that is restarted at once."""
    return {"command": script("acknowledges", what, *arguments), "contract": "acknowledged", "restart": SWIFT} | more


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("arguments", [("exit",), ("kill",), ("exit", 50)])
def test_one_bad_message_in_ten_thousand_is_set_aside(
    connector: Connector, tmp_path: Path, replicas: int, arguments: tuple[object, ...]
) -> None:
    middle = client("poison", BAD, *arguments, replicas=replicas)
    result = connector.run(chain(source=source(COUNT), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == all_but(BAD)
    assert result.account("c1", "middle") == {"written": COUNT, "acknowledged": COUNT - 1, "dead": 1}
    (letter,) = letters(result)
    assert (letter["kind"], letter["processor"], letter["channel"], letter["number"]) == ("poison", "middle", "c1", BAD)
    assert "killed `middle` again and again" in letter["cause"]
