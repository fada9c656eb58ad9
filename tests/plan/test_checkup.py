"""What the doctor says line by line."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runner.plan.checkup import Finding, findings
from runner.plan.facts import Facts
from tests.plan.machines import (
    ALL,
    BAD_BWRAP,
    BWRAP,
    NO_BWRAP,
    NO_CGROUPS,
    NO_SECCOMP,
    NO_SHIM,
    SHIM,
    SURROUNDINGS,
    SYSTEM,
    USER,
    WHY,
    engine,
    machine,
    without_engine,
)


def line(facts: Facts, group: str, name: str) -> Finding:
    (found,) = [each for each in findings(facts) if (each.group, each.name) == (group, name)]
    return found


def test_a_machine_that_has_everything_is_all_good() -> None:
    assert {each.mark for each in findings(ALL)} == {"good"}
    assert all(each.said and each.source and each.remedy is None for each in findings(ALL))
    assert {each.group for each in findings(ALL)} == {"machine", "engine", "sandbox", "bounds"}


def test_names_are_unique_so_that_scripts_can_look_them_up() -> None:
    keys = [(each.group, each.name) for each in findings(ALL)]
    assert len(set(keys)) == len(keys)


def test_what_was_not_looked_at_is_not_spoken_of() -> None:
    groups = {each.group for each in findings(machine(engine=None, bubblewrap=None, surroundings=None))}
    assert groups == {"machine"}


@pytest.mark.parametrize(
    ("changed", "group", "name", "mark", "words"),
    [
        ({"shim": NO_SHIM}, "machine", "shim", "bad", "not there"),
        ({"shim": replace(SHIM, static=False)}, "machine", "shim", "bad", "dynamically"),
        ({"shim": replace(SHIM, open_to_all=False)}, "machine", "shim", "bad", "not for every user"),
        ({"system": USER}, "machine", "user", "note", "65,536"),
        ({"system": replace(SYSTEM, container="there is /x")}, "machine", "container", "good", "there is /x"),
        ({"engine": engine(package=None)}, "engine", "package", "bad", "not installed"),
        ({"engine": engine(package=None)}, "engine", "engine", "good", "27.0.1"),
        ({"engine": without_engine("permission")}, "engine", "engine", "bad", "it is permission"),
        ({"engine": engine(arch="aarch64")}, "engine", "engine", "bad", "aarch64"),
        ({"engine": engine(seccomp=False)}, "engine", "seccomp", "note", "without seccomp"),
        ({"engine": engine(swap=False, cpus=False)}, "engine", "cgroups", "note", "cannot limit swap, cpus"),
        ({"engine": engine(live_restore=False)}, "engine", "live-restore", "note", "off"),
        ({"engine": engine(rootless=True)}, "engine", "users", "good", "rootless"),
        ({"engine": engine(remapped=True)}, "engine", "users", "good", "remapped"),
        ({"bubblewrap": NO_BWRAP}, "sandbox", "bubblewrap", "bad", "not installed"),
        ({"bubblewrap": BAD_BWRAP}, "sandbox", "bubblewrap", "bad", "setting up uid map"),
        ({"bubblewrap": replace(BWRAP, disable_userns=False)}, "sandbox", "bubblewrap", "note", "cannot forbid"),
        ({"bubblewrap": replace(BWRAP, setuid=True)}, "sandbox", "bubblewrap", "good", "setuid"),
        ({"namespaces": replace(ALL.namespaces, most=0)}, "sandbox", "namespaces", "note", "at most 0"),
        ({"namespaces": replace(ALL.namespaces, most=None)}, "sandbox", "namespaces", "note", "not in this kernel"),
        ({"namespaces": replace(ALL.namespaces, unprivileged=False)}, "sandbox", "namespaces", "note", "privileges"),
        ({"namespaces": replace(ALL.namespaces, apparmor_restricts=True)}, "sandbox", "namespaces", "note", "AppArmor"),
        ({"seccomp": NO_SECCOMP}, "sandbox", "seccomp", "note", "no filters"),
        ({"seccomp": replace(ALL.seccomp, filters=2)}, "sandbox", "seccomp", "good", "under one itself"),
        ({"cgroups": NO_CGROUPS}, "sandbox", "cgroups", "note", WHY),
    ],
)
def test_what_is_said_of_the_walls(changed: dict[str, Any], group: str, name: str, mark: str, words: str) -> None:
    found = line(machine(**changed), group, name)
    assert found.mark == mark
    assert words in found.said
    if mark == "bad":
        assert found.remedy


@pytest.mark.parametrize(
    ("changed", "name", "mark", "words"),
    [
        ({"pipe_got_bytes": 4096}, "pipes", "note", "4.0 KiB each"),
        ({"pipe_user_soft_bytes": None}, "pipes", "good", "no limit"),
        ({"files_soft": 1024}, "descriptors", "note", "1,024, at most 20,000"),
        ({"files_soft": None, "files_hard": None}, "descriptors", "good", "no limit"),
        ({"processes": 100}, "processes", "note", "100 for this user"),
        ({"processes": None}, "processes", "good", "no limit for this user, 32,768 in all"),
        ({"memory_free_bytes": 1 << 20}, "memory", "note", "1.0 MiB of 8.0 GiB"),
        ({"cpu_quota": 0.5}, "cpus", "good", "4, 0.5 by the quota"),
        ({"children_listed": False}, "/proc", "note", "looking at all"),
        ({"hidepid": "2"}, "/proc", "note", "hidepid=2"),
        ({"socket_folder": None, "socket_path_bytes": None}, "sockets", "bad", "no folder"),
        ({"socket_path_bytes": 107}, "sockets", "good", "107 bytes"),
        ({"core_pattern": "|/usr/bin/x %p"}, "core dumps", "note", "untrusted"),
        ({"terminal": False}, "terminal", "good", "plain lines"),
    ],
)
def test_what_is_said_of_the_bounds(changed: dict[str, Any], name: str, mark: str, words: str) -> None:
    found = line(machine(surroundings=replace(SURROUNDINGS, **changed)), "bounds", name)
    assert found.mark == mark
    assert words in found.said
    if mark == "bad":
        assert found.remedy


def test_small_pipes_name_the_switch_that_makes_them_small() -> None:
    few = replace(SURROUNDINGS, pipe_got_bytes=65536, pipe_most_bytes=65536)
    assert "fs.pipe-max-size" in str(line(machine(surroundings=few), "bounds", "pipes").remedy)
    used_up = replace(SURROUNDINGS, pipe_got_bytes=4096)
    assert "fs.pipe-user-pages-soft" in str(line(machine(surroundings=used_up), "bounds", "pipes").remedy)


def test_old_kernels() -> None:
    old = machine(surroundings=replace(SURROUNDINGS, pidfd=False, close_range=False))
    assert line(old, "machine", "kernel").mark == "bad"
    older = machine(surroundings=replace(SURROUNDINGS, close_range=False))
    assert line(older, "machine", "kernel").mark == "note"
