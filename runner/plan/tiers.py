"""How well each home walls a processor off on this machine, and which resources it holds. Pure: facts in, words out."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from runner.errors import BugError, MachineError
from runner.plan import remedies
from runner.plan.facts import Bubblewrap, Engine, Facts, Shim, System
from runner.plan.limits import asked
from runner.spec.model import Home, Processor

OLDEST_API = (1, 41)
"""Docker 20.10, the first that gives a container a private cgroup namespace."""

RESOURCES = ("memory", "cpus", "pids", "files", "disk")


class Tier(StrEnum):
    """How well something is walled off: A is best, below C nothing untrusted is started."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"

    @property
    def enough(self) -> bool:
        """Whether an untrusted processor may run in it."""
        return self is not Tier.D

    @property
    def means(self) -> str:
        """What it is, in a few words."""
        return _MEANS[self]

    def below(self, wanted: Tier) -> bool:
        """Whether it walls off less than `wanted`."""
        return self.value > wanted.value


_MEANS = {
    Tier.A: "a container with a user, limits and a seccomp filter of its own",
    Tier.B: "a bubblewrap sandbox with a user, limits and a seccomp filter of its own",
    Tier.C: "walled off, with weaker limits",
    Tier.D: "not walled off",
}


class HomeVerdict(msgspec.Struct, frozen=True):
    """What a home is worth here.

    `works`: programs can be started in it at all. `cause` says why it does not, or why `tier` is not better. `remedy`
    says what to do about that; None: nothing, that is how it is.
    """

    home: Home
    works: bool
    tier: Tier
    cause: str
    remedy: str | None = None


class Hold(msgspec.Struct, frozen=True):
    """By what a limit holds in a home; `note` says how far, or why not."""

    by: Literal["cgroup", "rlimit", "tmpfs", "nothing"]
    note: str


def judge(facts: Facts, home: Home) -> HomeVerdict:
    """What `home` is worth. Raises BugError when the facts that it needs were not gathered."""
    shim = facts.shim
    if shim.problem is not None:
        return HomeVerdict(home, works=False, tier=Tier.D, cause=shim.problem, remedy=shim.remedy)
    if home is Home.SANDBOX:
        return _sandbox(facts)
    if home is Home.CONTAINER:
        return _container(facts)
    return HomeVerdict(home, works=True, tier=Tier.D, cause="a bare process can do whatever the runner's user can")


def best_for_untrusted(facts: Facts) -> HomeVerdict:
    """The home that walls off best here."""
    return min((judge(facts, home) for home in (Home.CONTAINER, Home.SANDBOX)), key=lambda each: each.tier.value)


def requirement(spec: Processor, facts: Facts) -> MachineError | None:
    """Why this machine cannot run `spec` as it asks to be run; None: it can. There is no silent downgrade."""
    found = judge(facts, spec.home)
    if not found.works:
        return MachineError(
            f"this machine cannot run it in a {spec.home}: {found.cause}",
            where=f"processor {spec.name}",
            remedy=found.remedy,
        )
    if spec.untrusted and not found.tier.enough:
        return MachineError(
            f"it is untrusted, and this machine cannot wall it off: {found.cause}",
            where=f"processor {spec.name}",
            remedy=found.remedy or 'let it run in a sandbox or a container, or say trust = "trusted"',
        )
    return None


def unenforced(spec: Processor, facts: Facts) -> tuple[str, ...]:
    """One sentence for each limit that `spec` asks for and this machine cannot hold."""
    held, wanted = limits(facts, spec.home, untrusted=spec.untrusted), asked(spec.resources)
    return tuple(
        f"resources.{name} is not held here: {held[name].note}"
        for name in RESOURCES
        if name in wanted and held[name].by == "nothing"
    )


def limits(facts: Facts, home: Home, *, untrusted: bool) -> dict[str, Hold]:
    """By what each resource is held in `home`."""
    if home is Home.CONTAINER:
        return _held_by_engine(_engine(facts))
    held = _held_by_cgroup(facts, own_user=untrusted and facts.system.own_uids)
    held["files"] = Hold("rlimit", "for each process")
    held["disk"] = (
        Hold("tmpfs", "/tmp and /dev/shm; what it writes counts as memory")  # noqa: S108 - a name, not a file
        if home is Home.SANDBOX
        else Hold("rlimit", "the size of each file, not of all together")
    )
    return held


def _sandbox(facts: Facts) -> HomeVerdict:
    found, system = _bubblewrap(facts), facts.system
    if found.path is None:
        return _not_at_all(Home.SANDBOX, "bubblewrap is not installed", remedies.install_bubblewrap(system))
    if found.problem is not None:
        cause = f"bubblewrap cannot make a sandbox: {found.problem}"
        return _not_at_all(Home.SANDBOX, cause, remedies.allow_namespaces(facts))
    open_wall = _open_wall(facts)
    if open_wall is not None:
        cause, remedy = open_wall
        return HomeVerdict(Home.SANDBOX, works=True, tier=Tier.D, cause=cause, remedy=remedy)
    if not system.own_uids:
        cause = "without root an untrusted processor gets no user of its own, only the runner's in another namespace"
        return HomeVerdict(Home.SANDBOX, works=True, tier=Tier.C, cause=cause, remedy=remedies.own_users(system))
    missing = {name: why for name, why in facts.cgroups.missing.items() if name in {"memory", "pids"}}
    if missing:
        cause = f"no cgroup limits {' and '.join(missing)}: {next(iter(missing.values()))}"
        return HomeVerdict(Home.SANDBOX, works=True, tier=Tier.C, cause=cause, remedy=remedies.delegate(system))
    return HomeVerdict(Home.SANDBOX, works=True, tier=Tier.B, cause="bubblewrap, a user of its own, cgroups")


def _open_wall(facts: Facts) -> tuple[str, str | None] | None:
    """Why a sandbox that works is no wall, and what helps."""
    if not facts.seccomp.filtering:
        return "this kernel has no seccomp filters", None
    if facts.system.uid == 0 and not facts.system.own_uids:
        cause = "the runner is root, and has no other users to give to what is not trusted"
        return cause, remedies.own_users(facts.system)
    return None


def _container(facts: Facts) -> HomeVerdict:
    engine, system = _engine(facts), facts.system
    unusable = _unusable(engine, system) or _unfit(facts.shim)
    if unusable is not None:
        return _not_at_all(Home.CONTAINER, *unusable)
    if not engine.seccomp:
        cause = "the engine was started without seccomp"
        remedy = "use an engine that was built with seccomp, on a kernel that has it"
        return HomeVerdict(Home.CONTAINER, works=True, tier=Tier.D, cause=cause, remedy=remedy)
    missing = [name for name, held in (("memory", engine.memory), ("pids", engine.pids)) if not held]
    if missing:
        cause = f"the engine cannot limit {' and '.join(missing)} (cgroup {engine.hierarchy or 'none'}"
        cause += ", rootless)" if engine.rootless else ")"
        remedy = "give it these cgroup controllers: https://docs.docker.com/engine/security/rootless/"
        return HomeVerdict(Home.CONTAINER, works=True, tier=Tier.C, cause=cause, remedy=remedy)
    return HomeVerdict(Home.CONTAINER, works=True, tier=Tier.A, cause="an engine with seccomp and cgroups")


def _unusable(engine: Engine, system: System) -> tuple[str, str] | None:
    """Why no container can be started, and what helps."""
    if engine.package is None:
        return "the Python package docker is not installed", "pip install docker"
    if engine.trouble is not None:
        return engine.problem or engine.trouble, remedies.for_engine(engine, system)
    if _numbers(engine.api) < OLDEST_API:
        cause = f"the engine {engine.version} speaks API {engine.api or 'of no version'}, 1.41 (Docker 20.10) is needed"
        return cause, remedies.install_engine(system)
    if engine.arch != system.arch:
        cause = f"the engine is for {engine.arch or 'an unknown architecture'}, the runner for {system.arch}"
        return cause, f"use an engine for {system.arch}"
    return None


def _unfit(shim: Shim) -> tuple[str, str] | None:
    """Why the shim cannot be what a container starts, and what helps."""
    if not shim.static:
        return f"the shim {shim.path} needs libraries, which images may not have", remedies.BUILD_SHIM
    if not shim.open_to_all:
        return f"containers' users may not execute the shim {shim.path}", f"chmod o+rx {shim.path}"
    return None


def _not_at_all(home: Home, cause: str, remedy: str) -> HomeVerdict:
    return HomeVerdict(home, works=False, tier=Tier.D, cause=cause, remedy=remedy)


def _held_by_cgroup(facts: Facts, *, own_user: bool) -> dict[str, Hold]:
    """Memory, cpus and pids of a home that the runner itself sets up."""
    missing = facts.cgroups.missing
    if own_user:
        processes = Hold("rlimit", "counts what its user runs, which is the instance alone")
    elif facts.system.uid == 0:
        processes = Hold("nothing", f"an rlimit does not bind root, and no cgroup can be made: {missing.get('pids')}")
    else:
        processes = Hold("rlimit", "counts every process of the runner's user")
    otherwise = {
        "memory": Hold("rlimit", "the data of each process, not of all together"),
        "cpus": Hold("nothing", f"no cgroup can be made: {missing.get('cpus')}"),
        "pids": processes,
    }
    together = Hold("cgroup", "the instance as a whole")
    return {name: together if name in facts.cgroups.held else other for name, other in otherwise.items()}


def _held_by_engine(engine: Engine) -> dict[str, Hold]:
    cannot = Hold("nothing", engine.problem or "the engine cannot limit it")
    together = Hold("cgroup", "the instance as a whole")
    memory = together if engine.swap else Hold("cgroup", "the instance as a whole, but it may swap as much again")
    usable = engine.trouble is None
    return {
        "memory": memory if engine.memory else cannot,
        "cpus": together if engine.cpus else cannot,
        "pids": together if engine.pids else cannot,
        "files": Hold("rlimit", "for each process") if usable else cannot,
        "disk": Hold("tmpfs", "/tmp and /dev/shm; the rest is read-only when it is untrusted")  # noqa: S108 - a name
        if usable
        else cannot,
    }


def _bubblewrap(facts: Facts) -> Bubblewrap:
    if facts.bubblewrap is None:
        raise BugError("a sandbox was judged, but nobody looked for bubblewrap")
    return facts.bubblewrap


def _engine(facts: Facts) -> Engine:
    if facts.engine is None:
        raise BugError("a container was judged, but nobody looked for an engine")
    return facts.engine


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version; what is no version is older than all."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
