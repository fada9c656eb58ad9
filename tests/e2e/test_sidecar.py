"""`connector sidecar FILE` as a user sees it: containers that somebody else starts, here as plain processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.children.build import sink, source
from tests.e2e.sidecar import Sidecar
from tests.e2e.test_run import sent

COUNT = 20_000
DEADLINE_S = 30.0


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
