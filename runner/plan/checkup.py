"""What the facts about a machine mean, one line each: fine, worth knowing, or in the way. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from runner.plan import remedies
from runner.plan.facts import Bubblewrap, Engine, Facts, Namespaces, Surroundings
from runner.plan.tiers import judge
from runner.spec.model import Home
from runner.units import format_size

Mark = Literal["good", "note", "bad"]

_FEW_FILES = 4096
_FEW_PROCESSES = 512
_LITTLE_MEMORY_BYTES = 256 << 20
_WANTED_PIPE_BYTES = 1 << 20
_LONGEST_SOCKET_PATH = 107
"""unix(7): sun_path has 108 bytes, and ends with a zero here."""


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's: "bad" stops a home from working, "note" makes something weaker or slower.

    `source` says how it was found; `remedy` what to do, None: nothing.
    """

    group: Literal["machine", "engine", "sandbox", "bounds"]
    name: str
    mark: Mark
    said: str
    source: str
    remedy: str | None = None


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Every line for what was looked at, in the order in which a person reads it."""
    lines = [*_machine(facts)]
    if facts.engine is not None:
        lines += _engine_lines(facts, facts.engine)
    if facts.bubblewrap is not None:
        lines += _sandbox(facts, facts.bubblewrap)
    if facts.surroundings is not None:
        lines += _bounds(facts.surroundings)
    return tuple(lines)


def _machine(facts: Facts) -> Iterator[Finding]:
    system, shim, around = facts.system, facts.shim, facts.surroundings
    yield Finding("machine", "system", "good", f"{system.distribution_name}, {system.arch}", "/etc/os-release, uname")
    yield _kernel(system.kernel, around)
    user = f"{system.user} (uid {system.uid})"
    source = "geteuid, CapEff, /proc/self/uid_map, /etc/subuid"
    if system.own_uids:
        yield Finding("machine", "user", "good", f"{user}: every untrusted instance gets a user of its own", source)
    else:
        given = f"; /etc/subuid has {system.subordinate_uids:,} for it" if system.subordinate_uids else ""
        said = f"{user}: sandboxes share the runner's own user{given}"
        yield Finding("machine", "user", "note", said, source, remedies.own_users(system))
    inside = "in none" if system.container is None else f"in one, as it seems: {system.container}"
    yield Finding("machine", "container", "good", f"the runner itself is {inside}", "files and variables of engines")
    said = shim.problem or f"it runs, {'static' if shim.static else 'linked dynamically'} ({shim.path})"
    source = "it was started; its ELF header"
    if shim.problem is None and not shim.static:
        yield Finding("machine", "shim", "bad", said, source, remedies.BUILD_SHIM)
    elif shim.problem is None and not shim.open_to_all:
        said = f"{said}, but not for every user"
        yield Finding("machine", "shim", "bad", said, source, f"chmod o+rx {shim.path}")
    else:
        yield Finding("machine", "shim", "good" if shim.problem is None else "bad", said, source, shim.remedy)


def _kernel(release: str, around: Surroundings | None) -> Finding:
    source = "uname; pidfd_open and close_range were tried"
    if around is not None and not around.pidfd:
        said = f"Linux {release} is too old: it has no pidfd_open"
        return Finding("machine", "kernel", "bad", said, source, "use Linux 5.9 or later")
    if around is not None and not around.close_range:
        return Finding("machine", "kernel", "note", f"Linux {release}, without close_range", source, "use 5.9 or later")
    return Finding("machine", "kernel", "good", f"Linux {release}", source)


def _engine_lines(facts: Facts, engine: Engine) -> Iterator[Finding]:
    source = f"GET /info at {engine.address or 'no address'} ({engine.chosen_by})"
    package = f"docker {engine.package}" if engine.package else "the Python package docker is not installed"
    yield Finding(
        "engine",
        "package",
        "bad" if engine.package is None else "good",
        package,
        "the metadata of the installed package",
        "pip install docker" if engine.package is None else None,
    )
    if engine.trouble is not None:
        remedy = remedies.for_engine(engine, facts.system)
        yield Finding("engine", "engine", "bad", engine.problem or engine.trouble, source, remedy)
        return
    verdict = judge(facts, Home.CONTAINER)
    usable = verdict.works or engine.package is None
    said = f"{engine.version}, API {engine.api}, {engine.arch}, {engine.storage} ({engine.address})"
    said = said if usable else f"{said}: {verdict.cause}"
    yield Finding("engine", "engine", "good" if usable else "bad", said, source, None if usable else verdict.remedy)
    filters = "filters can be given to containers" if engine.seccomp else "the engine was started without seccomp"
    yield Finding("engine", "seccomp", "good" if engine.seccomp else "note", filters, source)
    lacking = [
        name
        for name, held in {
            "memory": engine.memory,
            "swap": engine.swap,
            "cpus": engine.cpus,
            "pids": engine.pids,
        }.items()
        if not held
    ]
    held = f"{engine.hierarchy}, {engine.cgroup_driver or 'no'} driver"
    yield Finding(
        "engine",
        "cgroups",
        "note" if lacking else "good",
        f"{held}, cannot limit {', '.join(lacking)}" if lacking else f"{held}, limits memory, swap, cpus, pids",
        source,
    )
    mode = "rootless" if engine.rootless else "users are remapped" if engine.remapped else "as root, users as they are"
    yield Finding("engine", "users", "good", mode, source)
    yield Finding(
        "engine",
        "live-restore",
        "good" if engine.live_restore else "note",
        "on: containers outlive a restart of the engine"
        if engine.live_restore
        else "off: when the engine restarts, containers are started again",
        source,
        None if engine.live_restore else 'put "live-restore": true into /etc/docker/daemon.json',
    )


def _sandbox(facts: Facts, bubblewrap: Bubblewrap) -> Iterator[Finding]:
    source = "a sandbox was started, as an untrusted user" if facts.system.own_uids else "a sandbox was started"
    if bubblewrap.path is None:
        remedy = remedies.install_bubblewrap(facts.system)
        yield Finding("sandbox", "bubblewrap", "bad", "bwrap is not installed", "PATH", remedy)
    elif bubblewrap.problem is not None:
        remedy = remedies.allow_namespaces(facts)
        yield Finding("sandbox", "bubblewrap", "bad", f"it makes no sandbox: {bubblewrap.problem}", source, remedy)
    else:
        setuid = ", setuid" if bubblewrap.setuid else ""
        said = f"{bubblewrap.version or 'of no version'}{setuid}, makes sandboxes ({bubblewrap.path})"
        if bubblewrap.disable_userns:
            yield Finding("sandbox", "bubblewrap", "good", said, source)
        else:
            said += ", cannot forbid further user namespaces (the seccomp filter still does)"
            yield Finding("sandbox", "bubblewrap", "note", said, source, "use bubblewrap 0.8 or later, not setuid")
    yield _namespaces(facts.namespaces)
    filtering = facts.seccomp.filtering
    said = "filters that refuse calls" if filtering else "no filters in this kernel"
    if facts.seccomp.filters:
        said += "; the runner is under one itself"
    files = "/proc/sys/kernel/seccomp/actions_avail, /proc/self/status"
    yield Finding("sandbox", "seccomp", "good" if filtering else "note", said, files)
    groups = facts.cgroups
    said = f"{groups.hierarchy}, can limit {', '.join(groups.held) or 'nothing'}"
    said += "".join(f"; not {name}: {why}" for name, why in groups.missing.items())
    files = "/proc/self/cgroup, /proc/self/mountinfo, the rights of the folders"
    delegate = remedies.delegate(facts.system) if groups.missing else None
    yield Finding("sandbox", "cgroups", "note" if groups.missing else "good", said, files, delegate)


def _namespaces(switches: Namespaces) -> Finding:
    said = "not in this kernel" if switches.most is None else f"at most {switches.most:,}"
    if switches.unprivileged is False:
        said += ", not without privileges"
    if switches.apparmor_restricts:
        said += ", restricted by AppArmor"
    free = switches.most and switches.unprivileged is not False and not switches.apparmor_restricts
    files = "user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
    return Finding("sandbox", "namespaces", "good" if free else "note", said, files)


def _bounds(around: Surroundings) -> Iterator[Finding]:
    yield _pipes(around)
    few = around.files_soft is not None and around.files_soft < _FEW_FILES
    yield Finding(
        "bounds",
        "descriptors",
        "note" if few else "good",
        f"{_count(around.files_soft)}, at most {_count(around.files_hard)}",
        "RLIMIT_NOFILE",
        f"ulimit -n {min(around.files_hard or 65536, 65536)}" if few else None,
    )
    few = around.processes is not None and around.processes < _FEW_PROCESSES
    yield Finding(
        "bounds",
        "processes",
        "note" if few else "good",
        f"{_count(around.processes)} for this user, {min(around.pid_max, around.threads_max):,} in all",
        "RLIMIT_NPROC, kernel.pid_max, kernel.threads-max",
        "raise it: ulimit -u, or nproc in /etc/security/limits.conf" if few else None,
    )
    little = around.memory_free_bytes < _LITTLE_MEMORY_BYTES
    free = f"{format_size(around.memory_free_bytes)} of {format_size(around.memory_bytes)} available"
    yield Finding("bounds", "memory", "note" if little else "good", free, "/proc/meminfo")
    quota = "" if around.cpu_quota is None else f", {around.cpu_quota:g} by the quota of its cgroup"
    source = "sched_getaffinity, cpu.max or cpu.cfs_quota_us"
    yield Finding("bounds", "cpus", "good", f"{around.cpus}{quota}", source)
    yield _proc(around)
    yield _sockets(around)
    piped = around.core_pattern.startswith("|")
    said = "given to a program of this machine, which gets those of untrusted programs too" if piped else "as files"
    pattern = "/proc/sys/kernel/core_pattern"
    yield Finding("bounds", "core dumps", "note" if piped else "good", f"{said} ({around.core_pattern})", pattern)
    said = "a live table" if around.terminal else "none: plain lines"
    yield Finding("bounds", "terminal", "good", said, "isatty of standard output")


def _pipes(around: Surroundings) -> Finding:
    small = around.pipe_got_bytes < _WANTED_PIPE_BYTES
    soft = "no limit" if around.pipe_user_soft_bytes is None else format_size(around.pipe_user_soft_bytes)
    said = f"{format_size(around.pipe_got_bytes)} each, {soft} for all of a user's before they become small"
    remedy = None
    if small:
        most = around.pipe_most_bytes < _WANTED_PIPE_BYTES
        remedy = f"sysctl fs.{'pipe-max-size=1048576' if most else 'pipe-user-pages-soft=65536'} (as root): faster"
    return Finding("bounds", "pipes", "note" if small else "good", said, "F_SETPIPE_SZ was tried; fs.pipe-*", remedy)


def _sockets(around: Surroundings) -> Finding:
    source = "/run/connector, XDG_RUNTIME_DIR, TMPDIR"
    if around.socket_folder is None:
        said = f"no folder can be written whose paths have at most {_LONGEST_SOCKET_PATH} bytes"
        remedy = "set XDG_RUNTIME_DIR to a short folder of your own with mode 0700"
        return Finding("bounds", "sockets", "bad", said, source, remedy)
    said = f"in {around.socket_folder}, paths of {around.socket_path_bytes} bytes ({_LONGEST_SOCKET_PATH} are possible)"
    return Finding("bounds", "sockets", "good", said, source)


def _proc(around: Surroundings) -> Finding:
    said = "children of a process are listed" if around.children_listed else "children are found by looking at all"
    if around.hidepid is not None:
        said += f", the processes of others are hidden (hidepid={around.hidepid})"
    good = around.children_listed and around.hidepid is None
    return Finding(
        "bounds", "/proc", "good" if good else "note", said, "/proc/self/task/TID/children, /proc/self/mounts"
    )


def _count(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"
