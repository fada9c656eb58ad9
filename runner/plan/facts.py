"""What is known of this machine, as plain values. `runner.launch.machine` finds them out; nothing here looks anywhere.

A section is None where nobody looked, and a field None where the machine does not say. A `problem` is one sentence
without a full stop.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system and who the runner is on it.

    `distribution` holds ID and then ID_LIKE of os-release(5); `init` is "systemd" or "other". `own_uids`: the runner
    may start a process as any of the users that untrusted instances get. `subordinate_uids` is how many /etc/subuid
    gives to this user. `container` says by what it looks like the runner is in a container itself; None: it does not.
    """

    distribution: tuple[str, ...]
    distribution_name: str
    init: str
    arch: str
    kernel: str
    uid: int
    user: str
    own_uids: bool
    subordinate_uids: int
    container: str | None


class Shim(msgspec.Struct, frozen=True, kw_only=True):
    """The shim's binary. `problem` None: it runs here. `open_to_all`: every user may execute it."""

    path: str | None
    static: bool
    open_to_all: bool
    problem: str | None
    remedy: str | None


class Cgroups(msgspec.Struct, frozen=True, kw_only=True):
    """`hierarchy` is "v1", "v2", "hybrid" or "none".

    `held` are the resources (memory, cpus, pids) that groups of the runner's own hold, `missing` the others with the
    reason why not.
    """

    hierarchy: str
    held: tuple[str, ...]
    missing: dict[str, str]


class Bubblewrap(msgspec.Struct, frozen=True, kw_only=True):
    """`problem` None: a sandbox was really started, as the user that an untrusted one would have.

    `disable_userns`: it can forbid further user namespaces. `setuid`: it is a setuid program. `path` None: not there.
    """

    path: str | None
    version: str | None
    setuid: bool
    disable_userns: bool
    problem: str | None


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """User namespaces, as the kernel's switches say; None: this kernel has no such switch."""

    most: int | None
    unprivileged: bool | None
    apparmor_restricts: bool | None


class Seccomp(msgspec.Struct, frozen=True, kw_only=True):
    """`actions` are those of the kernel, none without seccomp; `filters`: how many the runner itself is under."""

    actions: tuple[str, ...]
    filters: int

    @property
    def filtering(self) -> bool:
        """Whether the kernel takes filters that refuse a call."""
        return {"allow", "errno"} <= set(self.actions)


Trouble = Literal["address", "remote", "absent", "permission", "refused", "silent", "strange", "elsewhere"]


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The container engine at `address`; with `trouble`, the fields from `version` on say nothing.

    `trouble`: "address" (the address makes no sense), "remote" (not a unix socket), "absent" (no such socket),
    "permission", "refused" (nobody listens), "silent" (no answer in time), "strange" (what answers is no engine),
    "elsewhere" (it runs on another kernel or outside of the container that the runner is in, so it does not see our
    files). `problem` says it for people. `package`: the version of the Python package that speaks to it; None: not
    installed.
    """

    address: str
    chosen_by: str
    trouble: Trouble | None = None
    problem: str | None = None
    package: str | None = None
    version: str = ""
    api: str = ""
    arch: str = ""
    rootless: bool = False
    remapped: bool = False
    seccomp: bool = False
    hierarchy: str = ""
    cgroup_driver: str = ""
    storage: str = ""
    live_restore: bool = False
    memory: bool = False
    swap: bool = False
    cpus: bool = False
    pids: bool = False


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a run beside isolation; sizes in bytes, None: no limit (or not known, for `cpu_quota`).

    `pipe_got_bytes` is what a pipe became that was asked to hold 1 MiB. `socket_folder` is where the runner would put
    its sockets, `socket_path_bytes` the length of the longest path in it; None: there is no such place. `hidepid`: the
    option of /proc that hides the processes of others.
    """

    pidfd: bool
    close_range: bool
    children_listed: bool
    hidepid: str | None
    pipe_most_bytes: int
    pipe_got_bytes: int
    pipe_user_soft_bytes: int | None
    pipe_user_hard_bytes: int | None
    files_soft: int | None
    files_hard: int | None
    processes: int | None
    pid_max: int
    threads_max: int
    memory_bytes: int
    memory_free_bytes: int
    cpus: int
    cpu_quota: float | None
    socket_folder: str | None
    socket_path_bytes: int | None
    core_pattern: str
    terminal: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known. `engine`, `bubblewrap` and `surroundings` are None where nobody needed them."""

    system: System
    shim: Shim
    cgroups: Cgroups
    seccomp: Seccomp
    namespaces: Namespaces
    bubblewrap: Bubblewrap | None = None
    engine: Engine | None = None
    surroundings: Surroundings | None = None
