"""Reads what the kernel and the system say of themselves: /proc, /sys/fs/cgroup, /etc, rlimits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import pwd
import resource
import shlex
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from runner.launch.cgroup import CgroupHome
from runner.launch.cgroup_places import CONTROLLERS, hierarchies, own_folder, own_paths
from runner.launch.owner import this_owner
from runner.launch.sockets import bases
from runner.plan.facts import Cgroups, Namespaces, Seccomp, Surroundings, System
from runner.plan.identity import usable_ids

_CAP_SETGID = 6
_CAP_SETUID = 7
_WANTED_PIPE_BYTES = 1 << 20
_CLOSE_RANGE = 436
"""The number of close_range(2), which is the same on every architecture."""
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_MOST_SOCKET_BYTES = 107
"""unix(7): 108 with the zero byte."""


def system() -> System:
    """The operating system, and who we are on it."""
    release = _os_release()
    uid = os.geteuid()
    user = _user_name(uid)
    return System(
        distribution=(release.get("ID", "linux"), *release.get("ID_LIKE", "").split()),
        distribution_name=release.get("PRETTY_NAME", release.get("ID", "an unknown distribution")),
        init="systemd" if Path("/run/systemd/system").is_dir() else "other",
        arch=platform.machine(),
        kernel=os.uname().release,
        uid=uid,
        user=user,
        own_uids=own_ids() is not None,
        subordinate_uids=subordinates(_text("/etc/subuid"), uid, user),
        container=_container(os.environ),
    )


def cgroups() -> Cgroups:
    """By what resources can be held."""
    found = CgroupHome.find()
    mounted = {
        f"v{one.version}" for one in hierarchies(_text("/proc/self/mountinfo")) if one.version == 2 or one.controllers
    }
    return Cgroups(
        hierarchy="hybrid" if len(mounted) > 1 else next(iter(mounted), "none"),
        held=tuple(name for name in CONTROLLERS if name in found.enforced),
        missing={name: found.missing[name] for name in CONTROLLERS if name in found.missing},
    )


def seccomp() -> Seccomp:
    """What filters the kernel takes, and how many we are under; before Linux 5.9 it says only whether."""
    status = _status()
    filters = status.get("Seccomp_filters") or ("1" if status.get("Seccomp") == "2" else "0")
    return Seccomp(actions=tuple(_text("/proc/sys/kernel/seccomp/actions_avail").split()), filters=int(filters))


def namespaces() -> Namespaces:
    """The switches of user namespaces; the second is Debian's, the third Ubuntu's."""
    unprivileged = _number("/proc/sys/kernel/unprivileged_userns_clone")
    restricted = _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return Namespaces(
        most=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged=None if unprivileged is None else unprivileged > 0,
        apparmor_restricts=None if restricted is None else restricted > 0,
    )


def surroundings() -> Surroundings:
    """What else bounds a run."""
    page = resource.getpagesize()
    files_soft, files_hard = map(_limit, resource.getrlimit(resource.RLIMIT_NOFILE))
    memory = {name: value for name, _, value in (line.partition(":") for line in _text("/proc/meminfo").splitlines())}
    sockets = socket_folder(os.environ)
    return Surroundings(
        pidfd=_has_pidfd(),
        close_range=_has_close_range(),
        children_listed=Path(f"/proc/self/task/{threading.get_native_id()}/children").exists(),
        hidepid=_hidepid(_text("/proc/self/mounts")),
        pipe_most_bytes=_number("/proc/sys/fs/pipe-max-size") or 0,
        pipe_got_bytes=_pipe_bytes(),
        pipe_user_soft_bytes=(_number("/proc/sys/fs/pipe-user-pages-soft") or 0) * page or None,
        pipe_user_hard_bytes=(_number("/proc/sys/fs/pipe-user-pages-hard") or 0) * page or None,
        files_soft=files_soft,
        files_hard=files_hard,
        processes=_limit(resource.getrlimit(resource.RLIMIT_NPROC)[0]),
        pid_max=_number("/proc/sys/kernel/pid_max") or 0,
        threads_max=_number("/proc/sys/kernel/threads-max") or 0,
        memory_bytes=_kib(memory.get("MemTotal", "")),
        memory_free_bytes=_kib(memory.get("MemAvailable", "")),
        cpus=len(os.sched_getaffinity(0)),
        cpu_quota=_cpu_quota(),
        socket_folder=None if sockets is None else str(sockets[0]),
        socket_path_bytes=None if sockets is None else sockets[1],
        core_pattern=_text("/proc/sys/kernel/core_pattern").strip(),
        terminal=sys.stdout is not None and sys.stdout.isatty(),
    )


def socket_folder(environ: Mapping[str, str]) -> tuple[Path, int] | None:
    """Where the folder for a run's sockets would be made, and the bytes of the longest path in it; None: nowhere."""
    tail = f"connector-{this_owner()}-12345678/1234567/socket"
    try:
        found = [(base, len(os.fsencode(base / tail))) for base in bases(environ)]
    except OSError:  # no folder for temporary files can be written
        return None
    good = (each for each in found if each[1] <= _MOST_SOCKET_BYTES and _may_be_made_in(each[0]))
    return next(good, None)


def _may_be_made_in(base: Path) -> bool:
    place = base if base.exists() else base.parent
    return os.access(place, os.W_OK | os.X_OK)


def subordinates(subuid: str, uid: int, user: str) -> int:
    """How many users the text of /etc/subuid gives to this one (subuid(5))."""
    fields = [line.split(":") for line in subuid.splitlines()]
    return sum(int(each[2]) for each in fields if len(each) == 3 and each[0] in {user, str(uid)} and each[2].isdigit())


def own_ids() -> tuple[int, int] | None:
    """A user and a group such as untrusted instances get; None: the runner may not become anybody else."""
    effective = int(_status().get("CapEff", "0"), 16)
    if not all(effective >> capability & 1 for capability in (_CAP_SETUID, _CAP_SETGID)):
        return None
    users, groups = (usable_ids(_text(f"/proc/self/{name}_map")) for name in ("uid", "gid"))
    return None if users is None or groups is None else (users[0], groups[0])


def _os_release() -> dict[str, str]:
    """os-release(5), as far as it can be read."""
    text = _text("/etc/os-release") or _text("/usr/lib/os-release")
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        with contextlib.suppress(ValueError):
            if equals:
                found[name.strip()] = " ".join(shlex.split(value))
    return found


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _container(environ: Mapping[str, str]) -> str | None:
    """By what it looks like we are in a container; None: by nothing."""
    for mark in _CONTAINER_MARKS:
        if Path(mark).exists():
            return f"there is {mark}"
    for name in ("container", "KUBERNETES_SERVICE_HOST"):
        if environ.get(name):
            return f"{name} is set"
    return None


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        return False
    return True


def _has_close_range() -> bool:
    import ctypes

    last = ctypes.c_uint(2**32 - 1)  # no descriptor has this number
    done: int = ctypes.CDLL(None, use_errno=True).syscall(_CLOSE_RANGE, last, last, 0)
    return done == 0


def _hidepid(mounts: str) -> str | None:
    """The option of the /proc that is on top; None: everything is shown."""
    found = None
    for line in mounts.splitlines():
        words = line.split()
        if words[1:2] == ["/proc"]:
            options = dict(option.partition("=")[::2] for option in words[3].split(","))
            found = options.get("hidepid")
    return None if found in {None, "0", "off"} else found


def _pipe_bytes() -> int:
    reader, writer = os.pipe()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _WANTED_PIPE_BYTES)
        return fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    finally:
        os.close(reader)
        os.close(writer)


def _cpu_quota() -> float | None:
    """The cores that our own group and those above it may use, where they are limited."""
    paths = own_paths(_text("/proc/self/cgroup"))
    quotas = []
    for mounted in hierarchies(_text("/proc/self/mountinfo")):
        if mounted.version == 1 and "cpu" not in mounted.controllers:
            continue
        own = own_folder(mounted, paths.get("cpu" if mounted.version == 1 else "", "/"))
        for folder in () if own is None else (own, *own.parents):
            if folder.is_relative_to(mounted.point):
                quotas += _quota(folder, mounted.version)
    return min(quotas, default=None)


def _quota(folder: Path, version: int) -> list[float]:
    if version == 2:
        words = _text(folder / "cpu.max").split()
    else:
        words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    return [int(words[0]) / int(words[1])] if len(words) == 2 and all(word.isdigit() for word in words) else []


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _kib(text: str) -> int:
    words = text.split()
    return int(words[0]) * 1024 if words else 0


def _status() -> dict[str, str]:
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in _text("/proc/self/status").splitlines())
    }


def _number(file: str) -> int | None:
    text = _text(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(file: str | Path) -> str:
    """What is in it; nothing where it cannot be read."""
    try:
        return Path(file).read_text(errors="replace")
    except OSError:
        return ""
