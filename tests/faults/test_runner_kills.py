"""SIGKILL of the runner: no process of any processor may live a second later, nor one of a container after two.

What is no process (containers, folders of sockets, control groups) goes with the next run.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.launch.cgroup import CgroupHome
from runner.launch.owner import this_owner
from runner.launch.sockets import bases
from runner.plan.containers import OWNER_LABEL
from runner.plan.owners import Owner
from tests.children.build import misbehave, sink, source
from tests.e2e.connector import Connector, Running, chain, until, wait_gone
from tests.engine import docker
from tests.faults.doomed import IN_IMAGE, Doomed, alive, contained, doomed, doomed_image, marked, sandboxed
from tests.faults.harness import seed

__all__ = ["doomed", "doomed_image"]

SAMPLE_KILLS = 4
SOAK_KILLS = 100
SAMPLE_HOMES = 2
SOAK_HOMES = 40
GONE_WITHIN_S = 1.0
CONTAINERS_GONE_WITHIN_S = 2.0
HIDDEN = 3


def kill_runner(connector: Connector, chance: random.Random, *, early: bool) -> int:
    """Kill the runner, `early` while it may still be starting; how many processes there were.

    Three processors leave daemons that called setsid, were forked twice and ignore every signal.
    """
    folder = connector.folder
    (folder / "pid").unlink(missing_ok=True)
    pipeline = chain(
        source=source(None, "--rate", 1000),
        one={"command": misbehave("hides", folder / "pid"), "contract": "one-to-one"},
        two=misbehave("hides", folder / "pid"),
        three={"command": misbehave("ignores-term", folder / "other"), "replicas": 2},
        four=misbehave("hides", folder / "pid"),
        sink=sink(folder / "out"),
    )
    with connector.start(pipeline, "--quiet") as running:
        if early:
            until(lambda: running.process.poll() is not None or running.family(), "a first process")
        else:
            until(lambda: daemons(folder / "pid") >= HIDDEN, "all daemons")
        assert running.process.poll() is None, running.output()
        time.sleep(chance.uniform(0, 0.2))
        family = {process.pid for process in running.family()}
        running.process.kill()
        gone_at = time.monotonic() + GONE_WITHIN_S
        running.process.wait()
        left = wait_gone(sorted(family), max(0.0, gone_at - time.monotonic()))
        assert not left, f"alive a second after the runner: {[describe(pid) for pid in left]}"
        until(lambda: not running.marked(), "whatever had hidden", max(0.1, gone_at - time.monotonic()))
        return len(family)


def daemons(file: Path) -> int:
    """How many daemons have said that they live."""
    return len(file.read_text().split()) if file.exists() else 0


def describe(pid: int) -> str:
    """What this process is."""
    try:
        process = psutil.Process(pid)
        return f"{pid} {process.status()} {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{pid} gone by now"


def kill_runners(connector: Connector, kills: int) -> None:
    """Half of them early, half with everything up."""
    chance = random.Random(seed())
    seen = [kill_runner(connector, chance, early=number % 2 == 1) for number in range(kills)]
    print(f"{kills} runners killed, {sum(seen)} processes below them, none left after {GONE_WITHIN_S} s")
    assert max(seen) >= 10


@pytest.mark.alone  # what lives so many seconds later
def test_no_survivor(connector: Connector) -> None:
    kill_runners(connector, SAMPLE_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_no_survivor(connector: Connector) -> None:
    kill_runners(connector, SOAK_KILLS)


# -- with containers and sandboxes


class Homes:
    """A pipeline of containers and sandboxes, both trusted and not; all programs have one mark."""

    def __init__(self, connector: Connector, doomed: Doomed) -> None:
        self._connector = connector
        self.inside = marked(IN_IMAGE)
        self.outside = [str(doomed.file), self.inside[1]]
        answers: dict[str, Any] = {"contract": "one-to-one"}
        contained_, sandboxed_ = {**answers, "command": self.inside}, {**answers, "command": self.outside}
        shown = {"mounts": [f"{connector.folder}:rw"]}
        self.pipeline = {
            "name": f"killed-{uuid.uuid4().hex[:8]}",
            **chain(
                source={"command": source(None, "--rate", 1000), **shown},
                one={**contained_, **contained("trusted"), "replicas": 2},
                two={**contained_, **contained("untrusted")},
                three={**sandboxed_, **sandboxed(doomed, "trusted")},
                four={**sandboxed_, **sandboxed(doomed, "untrusted"), "replicas": 2},
                sink={"command": sink(connector.folder / "out"), **shown},
            ),
        }

    def small_pipeline(self) -> dict[str, Any]:
        """One that ends by itself, with a container and a sandbox."""
        all_of_them = self.pipeline["processors"]
        some = {name: {**all_of_them[name], "reads": "c1", "replicas": 1} for name in ("one", "three")}
        for each in some.values():
            del each["writes"]
        return {
            "name": self.pipeline["name"],
            "processors": {"source": {"command": source(10), "writes": "c1"}, **some},
        }

    def start(self) -> Running:
        """Start the pipeline."""
        return self._connector.start(self.pipeline, "--home", "sandbox", "--quiet")

    def programs(self) -> list[psutil.Process]:
        """All that live of its programs, wherever they are."""
        return alive(self.inside) + alive(self.outside)

    def containers(self) -> list[str]:
        """The ids of its containers, running or not."""
        label = f"label=connector.pipeline={self.pipeline['name']}"
        return docker("ps", "-aq", "--no-trunc", "--filter", label).split()


def in_containers(containers: list[str]) -> list[psutil.Process]:
    """All living processes in the control groups of these."""
    found = []
    for process in psutil.process_iter():
        try:
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
            if any(each in groups for each in containers) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def left_by(runner: Owner) -> Iterator[str]:
    """What a dead runner has left: containers, folders of sockets, control groups."""
    yield from docker("ps", "-aq", "--filter", f"label={OWNER_LABEL}={runner}").split()
    for base in bases(os.environ):
        yield from map(str, base.glob(f"connector-{runner}-*"))
    for place in CgroupHome.find().places:
        yield from map(str, place.folder.glob(f"connector-*-{runner.pid}-{runner.started}"))


def owner_of(pid: int) -> Owner:
    """A runner of this machine, as its containers name it."""
    me = this_owner()
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return Owner(me.boot, me.namespace, pid, started)


def kill_runner_of(homes: Homes, chance: random.Random, *, early: bool) -> tuple[int, Owner]:
    """Kill the runner, `early` while it may still be starting; how many processes there were, and who it was."""
    with homes.start() as running:
        if early:
            until(lambda: homes.containers() or running.process.poll() is not None, "a first container")
        else:
            until(lambda: len(homes.programs()) == 6 or running.process.poll() is not None, "all programs")
        assert running.process.poll() is None, running.output()
        time.sleep(chance.uniform(0, 0.5))
        owner = owner_of(running.pid)
        containers = homes.containers()
        family = {process.pid for process in (*running.family(), *in_containers(containers))}
        running.process.kill()
        gone_at = time.monotonic() + CONTAINERS_GONE_WITHIN_S
        running.process.wait()
        left = wait_gone(sorted(family), max(0.0, gone_at - time.monotonic()))
        assert not left, f"alive two seconds after the runner: {[describe(pid) for pid in left]}"
        within_s = max(0.1, gone_at - time.monotonic())
        until(lambda: not homes.programs() and not running.marked(), "whatever had hidden", within_s)
        # a start that the engine was about may still come to its end: the shim finds nobody, and goes
        later_s = 10.0 if early else max(0.1, gone_at - time.monotonic())
        until(lambda: not in_containers(homes.containers()), "the containers to end", later_s)
        return len(family), owner


def kill_runners_of(connector: Connector, doomed: Doomed, kills: int) -> None:
    """Half of them early, half with everything up; then a run of both homes takes away what the last ones left."""
    chance = random.Random(seed())
    seen, owners = [], []
    homes = Homes(connector, doomed)
    for number in range(kills):
        processes, owner = kill_runner_of(homes, chance, early=number % 2 == 1)
        seen.append(processes)
        owners.append(owner)
    left = [each for owner in owners for each in left_by(owner)]
    assert left, "nothing was left that could be taken away"
    small = homes.small_pipeline()
    connector.run(small, "--home", "sandbox").completed()
    assert not [each for owner in owners for each in left_by(owner)]
    print(
        f"{kills} runners with containers and sandboxes killed, {sum(seen)} processes below them, none left after "
        f"{CONTAINERS_GONE_WITHIN_S} s; the next run took the last {len(left)} things away"
    )
    assert max(seen) >= 20


@pytest.mark.alone
@pytest.mark.engine
@pytest.mark.usefixtures("bubblewrap", "doomed_image")
def test_no_survivor_in_any_home(connector: Connector, doomed: Doomed) -> None:
    kill_runners_of(connector, doomed, SAMPLE_HOMES)


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("bubblewrap", "doomed_image")
def test_soak_no_survivor_in_any_home(connector: Connector, doomed: Doomed) -> None:
    kill_runners_of(connector, doomed, SOAK_HOMES)
