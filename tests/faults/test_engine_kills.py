"""The engine itself is killed, or ends in order, under a pipeline: with live-restore the programs go on where they are,
without it they come back in other containers. Nothing is lost or doubled by either.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.e2e.connector import Connector, kill_exactly, until
from tests.engine import docker
from tests.faults.deaths import EARLY, KILLED, causes_told, container_of
from tests.faults.doomed import IMAGE, IN_IMAGE, Doomed, alive, contained, doomed, marked
from tests.faults.harness import Plan, Run, running_pipeline, seed
from tests.launch.private_engine import PrivateEngine, private_engine

__all__ = ["doomed"]

pytestmark = pytest.mark.engine

REPLICAS = 2
PROGRESS_BYTES = 20_000
BACK_S = 60.0
KILL, TERM = signal.SIGKILL, signal.SIGTERM


class Engines:
    """Ends an engine under a pipeline again and again. `deaths` is how many programs died of it, or were killed."""

    def __init__(self, engine: PrivateEngine, run: Run, *, lasting: bool) -> None:
        self._engine = engine
        self._run = run
        self._lasting = lasting
        self._chance = random.Random(run.plan.seed)
        self.deaths = 0
        self.killed = 0

    def end(self, number: signal.Signals) -> None:
        """End it, with live-restore and sometimes kill a program while it is away, start it again."""
        before = self._places()
        if number == KILL:
            self._engine.kill()
        else:
            self._engine.stop()
        if self._lasting:
            self._goes_on("while the engine is away")
            assert self._places() == before
            if self._chance.random() < 0.5:
                before = self._kill_one(before)
        self._engine.start()
        if self._lasting:
            until(lambda: self._settled(before) or self._ended(), "the same containers", BACK_S)
        else:
            self.deaths += REPLICAS
            until(lambda: self._replaced(before) or self._ended(), "other containers", BACK_S)
        self._goes_on("when the engine is back")

    def _kill_one(self, before: Counter[str | None]) -> Counter[str | None]:
        """Kill a program; the containers that are to stay. A trusted one needs no engine to be started again."""
        victim = self._chance.choice(alive(self._run.plan.command))
        container = container_of(victim)
        assert kill_exactly(victim, self._run.plan.command)
        self.deaths += 1
        self.killed += 1
        if self._run.plan.more["trust"] == "untrusted":
            return before - Counter([container])
        until(lambda: self._settled(before) and victim not in alive(self._run.plan.command), "it in the same container")
        return before

    def _places(self) -> Counter[str | None]:
        """The containers of the living programs."""
        return Counter(container_of(each) for each in alive(self._run.plan.command))

    def _settled(self, kept: Counter[str | None]) -> bool:
        places = self._places()
        return kept <= places and places.total() == REPLICAS

    def _replaced(self, before: Counter[str | None]) -> bool:
        places = self._places()
        return places.total() == REPLICAS and None not in places and not places & before

    def _ended(self) -> bool:
        return self._run.running.process.poll() is not None

    def _goes_on(self, when: str) -> None:
        """Messages go on arriving."""
        before = self._run.arrived()
        enough = before + PROGRESS_BYTES
        until(lambda: self._run.arrived() > enough or self._ended(), f"messages to arrive {when}")
        assert not self._ended(), self._run.running.output()


def end_engines(
    connector: Connector, doomed: Doomed, trust: str, ends: Sequence[signal.Signals], *, lasting: bool
) -> None:
    with private_engine(live_restore=lasting) as engine:
        doomed.layers().load(IMAGE, engine.host)
        name = f"container {trust}, engine {'with' if lasting else 'without'} live-restore"
        plan = Plan(
            seed(),
            len(ends),
            marked(IN_IMAGE),
            replicas=REPLICAS,
            rate_per_s=2000,
            more={**contained(trust), "restart": {"backoff": "0s", "limit": f"{len(ends)} in 10h"}},
            name=name,
        )
        environment = {"DOCKER_HOST": engine.host}
        with running_pipeline(connector, plan, "--log-format", "json", environment=environment) as run:
            run.begun()
            until(lambda: len(alive(plan.command)) == REPLICAS, "both replicas")
            engines = Engines(engine, run, lasting=lasting)
            for number in ends:
                engines.end(number)
            outcome = run.finish(engines.deaths)
            causes = causes_told(run.running)
        signals = ", ".join(f"{count} {number.name}" for number, count in sorted(Counter(ends).items()))
        print(f"    engine ended by {signals}; {engines.killed} programs killed meanwhile")
        outcome.expect_nothing_lost()
        assert causes.count(KILLED) == engines.killed, causes
        assert all(cause in {KILLED, EARLY} or cause.startswith("its container ") for cause in causes), causes
        assert not docker("ps", "-aq", host=engine.host), "containers were left"


@pytest.mark.parametrize(
    ("trust", "ends", "lasting"),
    [("trusted", [KILL], True), ("untrusted", [KILL, TERM], False)],
    ids=["live-restore", "without"],
)
@pytest.mark.usefixtures("engine")
def test_engine_ends(
    connector: Connector, doomed: Doomed, trust: str, ends: list[signal.Signals], lasting: bool
) -> None:
    end_engines(connector, doomed, trust, ends, lasting=lasting)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lasting", [True, False], ids=["live-restore", "without"])
@pytest.mark.parametrize("trust", ["trusted", "untrusted"])
@pytest.mark.usefixtures("engine")
def test_soak_engine_ends(connector: Connector, doomed: Doomed, trust: str, lasting: bool) -> None:
    """Twenty kills in all, and eight ends in order."""
    end_engines(connector, doomed, trust, [KILL, TERM, KILL, KILL, TERM, KILL, KILL], lasting=lasting)
