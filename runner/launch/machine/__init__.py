"""Finds out what this machine can do. Every look is bounded in time, leaves nothing behind and raises nothing.

`runner.plan.tiers` judges what is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from runner.launch.machine import engine, kernel, tries
from runner.plan.facts import Facts
from runner.spec.model import Home, Processor

EVERY_HOME = frozenset(Home)


def gather(homes: Iterable[Home] = EVERY_HOME, *, surroundings: bool = False) -> Facts:
    """What is known, as far as it matters to `homes`; with `surroundings`, what else bounds a run.

    The engine is only asked for containers, bubblewrap only tried for sandboxes. Takes `engine.LIMIT_S` seconds where
    the engine is silent, `tries.LIMIT_S` where a program hangs that is tried.
    """
    wanted = frozenset(homes)
    system = kernel.system()
    with ThreadPoolExecutor(1, "connector-engine") as thread:  # it may be silent for a while
        asked = thread.submit(engine.look, system) if Home.CONTAINER in wanted else None
        shim = tries.shim()
        return Facts(
            system=system,
            shim=shim,
            cgroups=kernel.cgroups(),
            seccomp=kernel.seccomp(),
            namespaces=kernel.namespaces(),
            bubblewrap=tries.bubblewrap(shim) if Home.SANDBOX in wanted else None,
            surroundings=kernel.surroundings() if surroundings else None,
            engine=None if asked is None else asked.result(),
        )


def gather_for(specs: Iterable[Processor]) -> Facts:
    """What must be known to judge whether these processors can run."""
    return gather({spec.home for spec in specs})
