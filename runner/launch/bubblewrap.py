"""What bubblewrap is told, and what it says: the profiles of the home `sandbox` as argument lists. Pure.

The option names are those of bwrap(1), in the order in which bwrap carries them out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from runner.errors import LaunchError, MachineError
from runner.launch.base import ShimLostError
from runner.plan.containers import SOCKET_FOLDER
from runner.spec.model import MIB, Mount, Processor
from runner.spec.visible import SYSTEM_FOLDERS

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
HOME = "/tmp"  # noqa: S108 - the sandbox's own, and the one place it can write to
USER = "connector"
ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "pki/ca-trust",
    "pki/java",
    "pki/tls",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)
"""What of the machine's /etc an untrusted program sees besides `java*`: how to find libraries and whom to trust."""

RESOLVER = "/etc/resolv.conf"

_FRESH = ("/dev", "/proc", "/tmp")  # noqa: S108 - the sandbox's own
_SHM_BYTES = 16 * MIB
_LEAST_TMPFS_BYTES = 4096  # 0 would mean no limit to the kernel


@dataclass(frozen=True, slots=True)
class System:
    """What of this machine's files there is to show: links (by place, with what is in them), folders, files in /etc."""

    links: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    etc: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wall:
    """One sandbox to be built.

    `shim` and `channel` are the descriptors of the inner shim's program and of its socket, `seccomp` that of its
    filter, `files` those of the contents of files that are made for it. `user_namespace`: it gets one of its own;
    `forbid_more`: this bubblewrap can forbid further ones. `directory` is where the program will be started.
    `endpoints` is the folder with its sockets for ZeroMQ, if it has any (see `endpoints_inside`).
    """

    bwrap: str
    hostname: str
    directory: str
    shim: int
    channel: int
    user_namespace: bool
    forbid_more: bool = True
    seccomp: int | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    endpoints: str | None = None


def endpoints_inside(spec: Processor) -> str | None:
    """Where the program finds the folder with its sockets; None: at its path of this machine."""
    return SOCKET_FOLDER if spec.untrusted else None  # whoever is walled off is shown no path of ours


def arguments(spec: Processor, system: System, wall: Wall) -> list[str]:
    """The whole command line of the sandbox for an instance of `spec`: bwrap, its options, the inner shim."""
    words = [wall.bwrap, *_namespaces(spec, wall)]
    words += _untrusted(spec, system, wall) if spec.untrusted else _trusted(spec, wall)
    for mount in _mounts(spec):
        words += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target]
    if wall.endpoints is not None and (spec.untrusted or _is_below(wall.endpoints, _FRESH)):
        words += ["--ro-bind", wall.endpoints, endpoints_inside(spec) or wall.endpoints]
    if spec.untrusted:
        words += ["--remount-ro", "/"]
    words += ["--chdir", "/"]
    if wall.seccomp is not None:
        words += ["--seccomp", str(wall.seccomp)]
    return [*words, "--", f"/proc/self/fd/{wall.shim}", str(wall.channel)]


def _namespaces(spec: Processor, wall: Wall) -> list[str]:
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session", "--as-pid-1"]
    if spec.network == "none":
        words.append("--unshare-net")
    if wall.user_namespace:
        words.append("--unshare-user")
    if spec.untrusted:
        words += ["--unshare-cgroup", "--cap-drop", "ALL", "--hostname", wall.hostname, "--clearenv"]
        words += ["--disable-userns"] if wall.forbid_more and wall.user_namespace else []
    return words


def _trusted(spec: Processor, wall: Wall) -> list[str]:
    """The machine's files as they are, read-only, but for what every sandbox has of its own."""
    words = ["--ro-bind", "/", "/", *_own(spec)]
    for folder in dict.fromkeys((wall.directory, str(spec.template or "/"))):
        if _is_below(folder, _FRESH) and folder not in _FRESH:  # the pipeline itself lies in /tmp
            words += ["--ro-bind", folder, folder]
    return words


def _untrusted(spec: Processor, system: System, wall: Wall) -> list[str]:
    words: list[str] = []
    for folder in system.folders:
        words += ["--ro-bind", folder, folder]
    for place, target in system.links.items():
        words += ["--symlink", target, place]
    words += [*_own(spec), "--dir", "/etc"]
    for place, descriptor in wall.files.items():
        words += ["--perms", "0444", "--file", str(descriptor), place]
    for place in system.etc:
        words += [] if place == RESOLVER and spec.network == "none" else ["--ro-bind", place, place]
    if wall.directory not in {"/", *_FRESH} and not _is_below(wall.directory, seen_by(spec)):
        words += ["--dir", wall.directory]
    return words


def _own(spec: Processor) -> list[str]:
    """Fresh /proc, /dev and /tmp."""
    size = spec.resources.disk_bytes
    bound = [] if size is None else ["--size", str(max(size, _LEAST_TMPFS_BYTES))]
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"),  # noqa: S108 - the sandbox's own
        *("--remount-ro", "/dev", "--perms", "1777", *bound, "--tmpfs", "/tmp"),  # noqa: S108 - the same
    ]


def _mounts(spec: Processor) -> list[Mount]:
    """What is mounted, outer folders first: an outer one would hide what lies in it."""
    folders = [] if spec.template is None or not spec.untrusted else [Mount(spec.template, str(spec.template))]
    return sorted([*folders, *spec.mounts], key=lambda mount: len(PurePosixPath(mount.target).parts))


def seen_by(spec: Processor) -> list[str]:
    """The folders and files of this machine that an untrusted program sees."""
    template = [] if spec.template is None else [str(spec.template)]
    return [*SYSTEM_FOLDERS, *template, *(mount.target for mount in spec.mounts)]


def search_path(spec: Processor, path: str) -> str:
    """What of the runner's PATH means anything to an untrusted program."""
    seen = seen_by(spec)
    return os.pathsep.join(each for each in path.split(os.pathsep) if _is_below(each, seen)) or DEFAULT_PATH


def _is_below(path: str, folders: Sequence[str]) -> bool:
    pure = PurePosixPath(path)
    return any(pure.is_relative_to(folder) for folder in folders)


def made_files(uid: int, gid: int, hostname: str) -> dict[str, str]:
    """The files of a small /etc, by place: who the user is, who the machine is, where names are looked up."""
    nobody = "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    return {
        "/etc/passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{uid}:{gid}:{USER}:{HOME}:/bin/sh\n{nobody}",
        "/etc/group": f"root:x:0:\n{USER}:x:{gid}:\nnogroup:x:65534:\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost\n",
        "/etc/hostname": f"{hostname}\n",
    }


_NO_NAMESPACES = (
    "No permissions to create new namespace",
    "Creating new namespace failed",
    "creating new namespace failed",
    "setting up uid map",
    "setting up gid map",
    "Failed RTM_NEWADDR",
    "Failed to make / slave",
    "Unexpected capabilities",
)
_SWITCHES = (
    "where sysctl shows them, set kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap (Ubuntu), "
    "user.max_user_namespaces above 0 (Fedora and others); in a container, let it make user namespaces"
)


_MOUNTS = (
    (
        ("find source path",),
        "what is to be mounted cannot be reached",
        "see that it is there, and that the processor's user may enter every folder above it",
    ),
    (
        ("Can't mkdir", "Can't create file"),
        "there is no place to mount at",
        "a target inside of what is read-only must be there already",
    ),
)


class MountsChangedError(ShimLostError):
    """Bubblewrap binds every mount of the machine one by one, and one of them was gone when it was its turn."""


def cause(said: str) -> LaunchError | MachineError:
    """Why bubblewrap did not build a sandbox, from what it wrote to its stderr."""
    text = said.strip().removeprefix("bwrap: ")
    if any(sign in text for sign in _NO_NAMESPACES):
        return MachineError(f"cannot be started: bubblewrap may not make namespaces here ({text})", remedy=_SWITCHES)
    if "mount proc" in text:
        return MachineError(
            f"cannot be started: bubblewrap may not mount /proc here ({text})",
            remedy="in a container, let it see all of /proc (systempaths=unconfined), or run the runner outside of it",
        )
    for signs, what, remedy in _MOUNTS:
        if any(sign in text for sign in signs):
            return LaunchError(f"cannot be started: {what} ({text})", remedy=remedy)
    if "Unable to apply mount flags" in text:  # one of this machine's mounts went away while all of them were bound
        return MountsChangedError(f"cannot be started: the machine's mounts have changed meanwhile ({text})")
    if "Unknown option" in text:
        return MachineError(f"cannot be started: bubblewrap is too old ({text})", remedy="install a newer bubblewrap")
    return LaunchError(f"cannot be started: bubblewrap says: {text}")


def can_forbid_namespaces(version: str) -> bool:
    """Whether a bubblewrap that calls itself `version` ("bubblewrap 0.8.0") has --disable-userns."""
    numbers = version.strip().rpartition(" ")[2].split(".")
    return all(part.isdecimal() for part in numbers[:2]) and [int(part) for part in numbers[:2]] >= [0, 8]
