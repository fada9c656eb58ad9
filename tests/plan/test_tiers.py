"""The tier of each home, over every combination of facts that matters, and what follows from it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from runner.errors import EXIT_MACHINE, BugError
from runner.plan.facts import Engine, Facts, Trouble
from runner.plan.tiers import RESOURCES, Tier, best_for_untrusted, judge, limits, requirement, unenforced
from runner.spec.model import Home, Processor, Resources, Trust
from tests.plan.machines import (
    ALL,
    BAD_BWRAP,
    BWRAP,
    CGROUPS,
    NO_BWRAP,
    NO_CGROUPS,
    NO_SECCOMP,
    NO_SHIM,
    SECCOMP,
    SHIM,
    SYSTEM,
    USER,
    WHY,
    engine,
    machine,
    without_engine,
)

TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
LIMITED = Resources(memory_bytes=1 << 28, cpus=0.5, pids=64, files=256, disk_bytes=1 << 26)
ONLY_CPUS = replace(CGROUPS, held=("cpus",), missing={"memory": WHY, "pids": WHY})
NO_CPUS = replace(CGROUPS, held=("memory", "pids"), missing={"cpus": "the kernel shows no hierarchy for it"})
ENGINES = [
    *(engine(**{name: value}) for name, value in {"seccomp": False, "memory": False, "pids": False}.items()),
    *(engine(package=None), engine(api="1.40"), engine(api=""), engine(arch="aarch64"), engine()),
    *map(without_engine, TROUBLES),
]
MACHINES = [
    machine(shim=shim, system=system, bubblewrap=bwrap, seccomp=seccomp, cgroups=cgroups, engine=an_engine)
    for shim, system, bwrap, seccomp, cgroups, an_engine in product(
        (SHIM, NO_SHIM, replace(SHIM, static=False)),
        (SYSTEM, USER, replace(SYSTEM, own_uids=False)),
        (BWRAP, NO_BWRAP, BAD_BWRAP),
        (SECCOMP, NO_SECCOMP),
        (CGROUPS, NO_CGROUPS, ONLY_CPUS, NO_CPUS),
        ENGINES,
    )
]


def spec(home: Home, trust: Trust = Trust.UNTRUSTED, **given: Any) -> Processor:
    image = "example" if home is Home.CONTAINER else None
    return Processor("it", ("program",), Path("/"), home=home, image=image, trust=trust, **given)


def sandbox_tier(facts: Facts) -> Tier:
    """As the design has it: B bubblewrap and cgroups, C bubblewrap and rlimits, D none; C without users of its own."""
    assert facts.bubblewrap is not None
    makes = facts.bubblewrap.path is not None and facts.bubblewrap.problem is None and facts.shim.problem is None
    if not makes or not facts.seccomp.filtering:
        return Tier.D
    if facts.system.uid == 0 and not facts.system.own_uids:
        return Tier.D  # bwrap as root alone is not isolation
    return Tier.B if facts.system.own_uids and {"memory", "pids"} <= set(facts.cgroups.held) else Tier.C


def container_tier(facts: Facts) -> Tier:
    """As the design has it: A an engine with seccomp; C where the engine holds no limits."""
    found = facts.engine
    assert found is not None
    usable = found.trouble is None and found.package is not None and found.arch == "x86_64" and found.api == "1.46"
    fit = facts.shim.problem is None and facts.shim.static
    if not usable or not found.seccomp or not fit:
        return Tier.D
    return Tier.A if found.memory and found.pids else Tier.C


# -- every combination


def test_tiers() -> None:
    for facts in MACHINES:
        assert judge(facts, Home.PROCESS).tier is Tier.D
        assert judge(facts, Home.SANDBOX).tier is sandbox_tier(facts), facts
        assert judge(facts, Home.CONTAINER).tier is container_tier(facts), facts
        assert best_for_untrusted(facts).tier == min(sandbox_tier(facts), container_tier(facts))


def test_what_does_not_work_says_why_and_what_to_do() -> None:
    for facts, home in product(MACHINES, Home):
        found = judge(facts, home)
        assert found.home is home
        assert found.cause
        assert not found.cause.endswith(".")
        if not found.works:
            assert found.tier is Tier.D
            assert found.remedy, found


def test_an_untrusted_processor_is_refused_below_c_and_nothing_else_is() -> None:
    refused = 0
    for facts, home in product(MACHINES, Home):
        found = judge(facts, home)
        error = requirement(spec(home), facts)
        assert (error is None) == (found.works and found.tier <= Tier.C)
        trusted = requirement(spec(home, Trust.TRUSTED), facts)
        assert (trusted is None) == found.works
        for each in (error, trusted):
            if each is not None:
                refused += 1
                assert each.exit_code == EXIT_MACHINE
                assert each.where == "processor it"
                assert found.cause in each.what
                assert each.remedy
    assert refused


def test_every_resource_is_held_by_something_or_says_why_not() -> None:
    for facts, home, untrusted in product(MACHINES, Home, (False, True)):
        held = limits(facts, home, untrusted=untrusted)
        assert tuple(held) == RESOURCES
        assert all(hold.note for hold in held.values())
        said = unenforced(spec(home, Trust.UNTRUSTED if untrusted else Trust.TRUSTED, resources=LIMITED), facts)
        assert len(said) == sum(hold.by == "nothing" for hold in held.values())


# -- tiers


def test_order() -> None:
    assert Tier.C.below(Tier.B)
    assert Tier.D.below(Tier.C)
    assert not Tier.B.below(Tier.B)
    assert not Tier.A.below(Tier.C)
    assert [tier for tier in Tier if tier.enough] == [Tier.A, Tier.B, Tier.C]


def test_the_container_is_best_even_where_a_sandbox_works() -> None:
    assert best_for_untrusted(ALL).home is Home.CONTAINER
    assert best_for_untrusted(machine(engine=without_engine("absent"))).home is Home.SANDBOX


def test_facts_that_nobody_gathered_are_a_bug() -> None:
    with pytest.raises(BugError):
        judge(machine(engine=None), Home.CONTAINER)
    with pytest.raises(BugError):
        judge(machine(bubblewrap=None), Home.SANDBOX)
    assert judge(machine(engine=None, bubblewrap=None), Home.PROCESS).works
    assert judge(machine(engine=None), Home.SANDBOX).tier is Tier.B
    assert judge(machine(bubblewrap=None), Home.CONTAINER).tier is Tier.A


def test_an_untrusted_bare_process_is_refused_everywhere() -> None:
    error = requirement(spec(Home.PROCESS), ALL)
    assert error is not None
    assert "cannot wall it off" in error.what
    assert "sandbox or a container" in str(error.remedy)


# -- what to do


@pytest.mark.parametrize(
    ("distribution", "bubblewrap", "docker"),
    [
        (("debian",), "apt-get install -y bubblewrap", "apt-get install -y docker.io"),
        (("linuxmint", "ubuntu", "debian"), "apt-get install -y bubblewrap", "apt-get install -y docker.io"),
        (("fedora",), "dnf install -y bubblewrap", "dnf install -y moby-engine"),
        (("rocky", "rhel", "centos", "fedora"), "dnf install -y bubblewrap", "dnf install -y moby-engine"),
        (("alpine",), "apk add bubblewrap", "apk add docker"),
        (("arch",), "pacman -S --noconfirm bubblewrap", "pacman -S --noconfirm docker"),
        (("nixos",), "install the package bubblewrap", "https://docs.docker.com/engine/install/"),
    ],
)
def test_what_to_install(distribution: tuple[str, ...], bubblewrap: str, docker: str) -> None:
    facts = machine(
        system=replace(USER, distribution=distribution), bubblewrap=NO_BWRAP, engine=without_engine("absent")
    )
    assert bubblewrap in str(judge(facts, Home.SANDBOX).remedy)
    assert docker in str(judge(facts, Home.CONTAINER).remedy)
    known = distribution != ("nixos",)
    assert str(judge(facts, Home.SANDBOX).remedy).startswith("sudo ") is known
    as_root = replace(facts, system=replace(facts.system, uid=0))
    assert "sudo" not in str(judge(as_root, Home.SANDBOX).remedy)


@pytest.mark.parametrize(
    ("trouble", "changed", "words"),
    [
        ("absent", {}, ["apt-get install -y docker.io", "systemctl start docker"]),
        ("absent", {"chosen_by": "DOCKER_HOST"}, ["correct DOCKER_HOST"]),
        ("refused", {}, ["systemctl start docker"]),
        ("silent", {}, ["systemctl restart docker"]),
        ("permission", {}, ["usermod -aG docker ann", "log in again"]),
        ("remote", {"chosen_by": "DOCKER_HOST"}, ["unset DOCKER_HOST", "unix://"]),
        ("remote", {"chosen_by": "the docker context far"}, ["docker context use default"]),
        ("address", {"chosen_by": "DOCKER_HOST"}, ["unset DOCKER_HOST"]),
        ("strange", {"chosen_by": "DOCKER_HOST"}, ["DOCKER_HOST"]),
        ("elsewhere", {}, ["where the engine runs"]),
    ],
)
def test_what_helps_with_an_engine(trouble: str, changed: dict[str, str], words: list[str]) -> None:
    found = judge(machine(system=USER, engine=without_engine(trouble, **changed)), Home.CONTAINER)
    assert found.cause == f"it is {trouble}"
    assert all(word in str(found.remedy) for word in words), found.remedy


def test_starting_an_engine_without_systemd() -> None:
    other = replace(SYSTEM, init="other")
    refused = without_engine("refused")
    assert judge(machine(system=other, engine=refused), Home.CONTAINER).remedy == "service docker start"
    alpine = replace(other, distribution=("alpine",))
    assert judge(machine(system=alpine, engine=refused), Home.CONTAINER).remedy == "rc-service docker start"


@pytest.mark.parametrize(
    ("switches", "command"),
    [
        ({"most": 0}, "sysctl user.max_user_namespaces="),
        ({"unprivileged": False}, "sysctl kernel.unprivileged_userns_clone=1"),
        ({"apparmor_restricts": True}, "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        ({}, "docs/doctor.md"),
    ],
)
def test_what_lets_bubblewrap_work(switches: dict[str, Any], command: str) -> None:
    facts = machine(bubblewrap=BAD_BWRAP, namespaces=replace(ALL.namespaces, **switches))
    found = judge(facts, Home.SANDBOX)
    assert "setting up uid map" in found.cause
    assert command in str(found.remedy)


def test_in_a_container_its_rights_are_what_lacks() -> None:
    inside = replace(SYSTEM, container="there is /.dockerenv")
    facts = machine(system=inside, bubblewrap=BAD_BWRAP, cgroups=NO_CGROUPS)
    assert "container" in str(judge(facts, Home.SANDBOX).remedy)
    assert "/sys/fs/cgroup" in str(judge(replace(facts, bubblewrap=BWRAP), Home.SANDBOX).remedy)


def test_a_user_without_rights_is_told_what_would_be_better() -> None:
    found = judge(machine(system=USER), Home.SANDBOX)
    assert found.tier is Tier.C
    assert "no user of its own" in found.cause
    assert "as root" in str(found.remedy)
    inside = judge(machine(system=replace(SYSTEM, own_uids=False)), Home.SANDBOX)
    assert inside.tier is Tier.D
    assert "SETUID" in str(inside.remedy)


def test_cgroups_that_cannot_be_written_are_named() -> None:
    found = judge(machine(cgroups=NO_CGROUPS), Home.SANDBOX)
    assert found.tier is Tier.C
    assert found.cause == f"no cgroup limits memory and pids: {WHY}"
    assert "Delegate=yes" in str(found.remedy)


def test_a_shim_that_is_closed_to_others_starts_no_container() -> None:
    found = judge(machine(shim=replace(SHIM, open_to_all=False)), Home.CONTAINER)
    assert (found.works, found.remedy) == (False, "chmod o+rx /shim")
    assert judge(machine(shim=replace(SHIM, open_to_all=False)), Home.SANDBOX).tier is Tier.B


def test_engines_that_are_not_enough() -> None:
    old = judge(machine(engine=engine(api="1.40", version="19.03")), Home.CONTAINER)
    assert (old.works, "20.10" in old.cause) == (False, True)
    assert judge(machine(engine=engine(api="1.100")), Home.CONTAINER).works  # by number, not by letter
    other = judge(machine(engine=engine(arch="aarch64")), Home.CONTAINER)
    assert "aarch64" in other.cause
    rootless = judge(machine(engine=engine(rootless=True, hierarchy="v1", memory=False, pids=False)), Home.CONTAINER)
    assert rootless.tier is Tier.C
    assert "rootless" in rootless.cause
    assert judge(machine(engine=engine(rootless=True)), Home.CONTAINER).tier is Tier.A


# -- resources


def by(facts: Facts, home: Home, *, untrusted: bool = True) -> dict[str, str]:
    return {name: hold.by for name, hold in limits(facts, home, untrusted=untrusted).items()}


CGROUP = {"memory": "cgroup", "cpus": "cgroup", "pids": "cgroup", "files": "rlimit"}
RLIMIT = {"memory": "rlimit", "cpus": "nothing", "pids": "rlimit", "files": "rlimit"}


def test_what_holds_where_everything_is_there() -> None:
    assert by(ALL, Home.PROCESS, untrusted=False) == {**CGROUP, "disk": "rlimit"}
    assert by(ALL, Home.SANDBOX) == by(ALL, Home.CONTAINER) == {**CGROUP, "disk": "tmpfs"}


def test_what_holds_without_cgroups() -> None:
    facts = machine(cgroups=NO_CGROUPS)
    assert by(facts, Home.SANDBOX) == {**RLIMIT, "disk": "tmpfs"}
    root = {**RLIMIT, "pids": "nothing"}  # RLIMIT_NPROC does not bind root (setrlimit(2))
    assert by(facts, Home.SANDBOX, untrusted=False) == {**root, "disk": "tmpfs"}
    assert by(facts, Home.PROCESS, untrusted=False) == {**root, "disk": "rlimit"}
    user = machine(cgroups=NO_CGROUPS, system=USER)
    assert by(user, Home.PROCESS, untrusted=False) == {**RLIMIT, "disk": "rlimit"}
    assert by(facts, Home.CONTAINER) == {**CGROUP, "disk": "tmpfs"}  # the engine's own


def test_what_an_engine_cannot_hold() -> None:
    poor: Engine = engine(memory=False, cpus=False, pids=False)
    nothing = {"memory": "nothing", "cpus": "nothing", "pids": "nothing", "files": "rlimit", "disk": "tmpfs"}
    assert by(machine(engine=poor), Home.CONTAINER) == nothing
    swaps = limits(machine(engine=engine(swap=False)), Home.CONTAINER, untrusted=True)
    assert "swap" in swaps["memory"].note


def test_unenforced_names_only_what_was_asked_for() -> None:
    facts = machine(cgroups=NO_CGROUPS)
    assert unenforced(spec(Home.PROCESS, Trust.TRUSTED), facts) == ()
    assert unenforced(spec(Home.PROCESS, Trust.TRUSTED, resources=LIMITED), ALL) == ()
    (said,) = unenforced(spec(Home.PROCESS, Trust.TRUSTED, resources=Resources(cpus=2.0)), facts)
    assert said == f"resources.cpus is not held here: no cgroup can be made: {WHY}"
