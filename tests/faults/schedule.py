"""Schedules of kills: who is killed, when, and how often the runner is. Pure: a seed in, a schedule out.

What is random in a run beyond its schedule is when the kernel lets whom run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.faults.topology import Topology

MOST_AT_ONCE = 3
ENGINE = "engine"
"""As a victim: the container engine, which is started again at once."""
EARLY, EARLY_S = 0.15, 0.5
SHIMS = 0.15
STOPPED, STOPPED_S = 0.2, 0.01


@dataclass(frozen=True)
class Victim:
    """One program of a processor, or what is `above` it by so many levels; `replica` by age, modulo how many live.

    `stopped_s`: it reads nothing for so long before it dies, so that it dies with input.
    """

    processor: str
    replica: int = 0
    above: int = 0
    stopped_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.processor}.{self.replica}" + "^" * self.above + "~" * (self.stopped_s > 0)


@dataclass(frozen=True)
class Act:
    """After a pause, `messages` more may come, and these die together."""

    pause_s: float
    messages: int
    victims: tuple[Victim, ...]

    def __str__(self) -> str:
        return f"{self.pause_s * 1000:.0f}ms +{self.messages} {' '.join(map(str, self.victims))}"


@dataclass(frozen=True)
class Life:
    """One run of the runner. `killed_after_s`: it is killed that long after its last act; None: it is the last one.

    `early`: it is killed after its start, whatever it has done by then.
    """

    acts: tuple[Act, ...] = ()
    killed_after_s: float | None = None
    early: bool = False


@dataclass(frozen=True)
class Schedule:
    """The lives of a pipeline."""

    lives: tuple[Life, ...]

    @property
    def victims(self) -> int:
        """How many programs and shims die in it."""
        return sum(len(act.victims) for life in self.lives for act in life.acts) - self.engines

    @property
    def engines(self) -> int:
        """How many times the engine does."""
        return sum(victim.processor == ENGINE for life in self.lives for act in life.acts for victim in act.victims)

    @property
    def runners(self) -> int:
        """How many runners do."""
        return sum(life.killed_after_s is not None for life in self.lives)

    def __str__(self) -> str:
        lines = []
        for number, life in enumerate(self.lives, 1):
            end = "" if life.killed_after_s is None else f", killed after {life.killed_after_s * 1000:.0f} ms"
            lines.append(f"life {number}{' (early)' if life.early else ''}{end}: {'; '.join(map(str, life.acts))}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Deaths:
    """How many of whom: `programs` (shims among them), `runners`, `engines`; `pause_s` is the mean between two acts.

    `of`: only these processors (None: all but those that are to see every message once).
    """

    programs: int
    runners: int = 0
    pause_s: float = 0.015
    messages: int = 150
    of: frozenset[str] | None = None
    engines: int = 0

    def only(self, processors: Iterable[str]) -> Deaths:
        """As many of these processors alone."""
        return replace(self, of=frozenset(processors))


def draw(seed: int, topology: Topology, deaths: Deaths) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)
    cuts = sorted(chance.randint(0, deaths.programs) for _ in range(deaths.runners))
    shares = [last - first for first, last in pairwise((0, *cuts, deaths.programs))]
    lives = []
    for number, share in enumerate(shares):
        killed = number < deaths.runners
        early = killed and not share and chance.random() < 0.5
        after_s = chance.uniform(0, EARLY_S if early else 0.2) if killed else None
        lives.append(Life(_acts(chance, topology, deaths, share), after_s, early))
    for _ in range(deaths.engines):
        at = chance.randrange(len(lives))
        acts = list(lives[at].acts)
        acts.insert(chance.randint(0, len(acts)), Act(0.0, deaths.messages, (Victim(ENGINE),)))
        lives[at] = replace(lives[at], acts=tuple(acts), early=False)
    return Schedule(tuple(lives))


def _acts(chance: random.Random, topology: Topology, deaths: Deaths, share: int) -> tuple[Act, ...]:
    parts = [part for part in topology.parts if part.program != "held"]
    if deaths.of is not None:
        parts = [part for part in parts if part.name in deaths.of]
    acts = []
    while share > 0:
        victims = []
        for _ in range(min(share, 1 if chance.random() < 0.7 else chance.randint(2, MOST_AT_ONCE))):
            part = chance.choice(parts)
            above = chance.randint(1, part.levels) if chance.random() < SHIMS else 0
            stopped_s = chance.uniform(0.001, STOPPED_S) if not above and chance.random() < STOPPED else 0.0
            victims.append(Victim(part.name, chance.randrange(part.replicas), above, stopped_s))
        share -= len(victims)
        pause_s = chance.uniform(0, 2 * deaths.pause_s)
        acts.append(Act(pause_s, chance.randint(1, 2 * deaths.messages), tuple(victims)))
    return tuple(acts)
