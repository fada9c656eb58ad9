"""What became of a run with hostile programs in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.connector import Result, check_ledger
from tests.hostile.harness import Arena, failure


@dataclass
class Seen:
    """What became of a run; its folder is there as long as the fixture."""

    place: Arena
    result: Result
    neighbour: str | None
    runner: str | None
    left: list[str]
    more: dict[str, Any]

    def ended(self, name: str) -> dict[str, Any]:
        """What the report says of the last run of a processor's program, its state among it."""
        report = self.result.processor(name)
        last = report["instances"][-1]
        return {"state": report["state"], "code": last["exit"]["code"], "signal": last["exit"]["signal"]} | {
            "cause": report["cause"]
        }


def seen(place: Arena, result: Result, runner: int, **more: Any) -> Seen:
    """Everything that can be looked at once the run is over."""
    print(result)
    return Seen(
        place=place,
        result=result,
        neighbour=failure(lambda: place.check_neighbour(result)),
        runner=failure(lambda: place.check_runner(result)),
        left=place.left(runner),
        more=more,
    )


def check_undisturbed(seen: Seen, code: int = 0, status: str = "completed") -> None:
    """The neighbour, the runner and the host are as they should be, the ledger balances, nothing is left."""
    seen.result.expect(code, status)
    check_ledger(seen.result)
    assert seen.neighbour is None
    assert seen.runner is None
    assert seen.left == []
    seen.place.check_host()
