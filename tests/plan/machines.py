"""Facts of machines that tests judge: one that has everything, and what is taken away from it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from runner.plan.facts import Bubblewrap, Cgroups, Engine, Facts, Namespaces, Seccomp, Shim, Surroundings, System

SYSTEM = System(
    distribution=("debian",),
    distribution_name="Debian",
    init="systemd",
    arch="x86_64",
    kernel="6.1.0",
    uid=0,
    user="root",
    own_uids=True,
    subordinate_uids=0,
    container=None,
)
USER = replace(SYSTEM, uid=1000, user="ann", own_uids=False, subordinate_uids=65536)
SHIM = Shim(path="/shim", static=True, open_to_all=True, problem=None, remedy=None)
NO_SHIM = Shim(path=None, static=False, open_to_all=False, problem="the shim /shim is not there", remedy="build it")
CGROUPS = Cgroups(hierarchy="v2", held=("memory", "cpus", "pids"), missing={})
WHY = "/sys/fs/cgroup is mounted read-only"
NO_CGROUPS = Cgroups(hierarchy="v2", held=(), missing=dict.fromkeys(("memory", "cpus", "pids"), WHY))
SECCOMP = Seccomp(actions=("kill_process", "errno", "allow"), filters=0)
NO_SECCOMP = Seccomp(actions=(), filters=0)
NAMESPACES = Namespaces(most=10_000, unprivileged=None, apparmor_restricts=None)
BWRAP = Bubblewrap(path="/usr/bin/bwrap", version="0.8.0", setuid=False, disable_userns=True, problem=None)
NO_BWRAP = Bubblewrap(path=None, version=None, setuid=False, disable_userns=False, problem=None)
BAD_BWRAP = replace(BWRAP, disable_userns=False, problem="setting up uid map: Permission denied")
ENGINE = Engine(
    address="unix:///var/run/docker.sock",
    chosen_by="the default",
    package="7.1.0",
    version="27.0.1",
    api="1.46",
    arch="x86_64",
    seccomp=True,
    hierarchy="v2",
    cgroup_driver="systemd",
    storage="overlay2",
    live_restore=True,
    memory=True,
    swap=True,
    cpus=True,
    pids=True,
)
SURROUNDINGS = Surroundings(
    pidfd=True,
    close_range=True,
    children_listed=True,
    hidepid=None,
    pipe_most_bytes=1 << 20,
    pipe_got_bytes=1 << 20,
    pipe_user_soft_bytes=64 << 20,
    pipe_user_hard_bytes=None,
    files_soft=20_000,
    files_hard=20_000,
    processes=30_000,
    pid_max=32_768,
    threads_max=100_000,
    memory_bytes=8 << 30,
    memory_free_bytes=4 << 30,
    cpus=4,
    cpu_quota=None,
    socket_folder="/tmp",
    socket_path_bytes=50,
    core_pattern="core",
    terminal=True,
)
ALL = Facts(
    system=SYSTEM,
    shim=SHIM,
    cgroups=CGROUPS,
    seccomp=SECCOMP,
    namespaces=NAMESPACES,
    bubblewrap=BWRAP,
    engine=ENGINE,
    surroundings=SURROUNDINGS,
)


def machine(**changed: Any) -> Facts:
    """The machine that has everything, but for what is named."""
    return replace(ALL, **changed)


def engine(**changed: Any) -> Engine:
    """Its engine, but for what is named."""
    return replace(ENGINE, **changed)


def without_engine(trouble: str, **changed: Any) -> Engine:
    """An engine that cannot be asked."""
    return Engine(
        **{
            "address": ENGINE.address,
            "chosen_by": "the default",
            "package": "7.1.0",
            "trouble": trouble,
            "problem": f"it is {trouble}",
        }
        | changed
    )
