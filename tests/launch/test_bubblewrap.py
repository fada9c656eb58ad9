"""What bubblewrap is told and what its words mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import LaunchError, MachineError
from runner.launch.bubblewrap import (
    DEFAULT_PATH,
    MountsChangedError,
    System,
    Wall,
    arguments,
    can_forbid_namespaces,
    cause,
    made_files,
    search_path,
)
from runner.spec.model import MIB, Home, Mount, Processor, Resources, Trust

SYSTEM = System(
    links={"/bin": "usr/bin", "/etc/localtime": "/usr/share/zoneinfo/UTC"},
    folders=("/usr", "/lib64"),
    etc=("/etc/ld.so.cache", "/etc/resolv.conf"),
)
WALL = Wall(
    bwrap="/usr/bin/bwrap",
    hostname="store",
    directory="/home/me/flights",
    shim=4,
    channel=3,
    user_namespace=True,
    seccomp=9,
    files={"/etc/passwd": 5, "/etc/hosts": 6},
)


def untrusted(
    *,
    network: str = "none",
    mounts: tuple[Mount, ...] = (),
    template: Path | None = None,
    resources: Resources = Resources(disk_bytes=64 * MIB),  # noqa: B008 - frozen
) -> Processor:
    return Processor(
        name="store",
        command=("true",),
        directory=None,
        home=Home.SANDBOX,
        trust=Trust.UNTRUSTED,
        network=network,
        mounts=mounts,
        template=template,
        resources=resources,
    )


TRUSTED = Processor(name="store", command=("true",), directory=None, home=Home.SANDBOX)


def has(words: list[str], *run: str) -> bool:
    """Whether `run` stands in `words`, one after the other."""
    return any(tuple(words[at : at + len(run)]) == run for at in range(len(words)))


@pytest.mark.parametrize(
    "run",
    [
        ("--unshare-user",),
        ("--unshare-pid",),
        ("--unshare-ipc",),
        ("--unshare-net",),
        ("--unshare-uts",),
        ("--unshare-cgroup",),
        ("--disable-userns",),
        ("--die-with-parent",),
        ("--new-session",),
        ("--clearenv",),
        ("--cap-drop", "ALL"),
        ("--as-pid-1",),
        ("--hostname", "store"),
        ("--seccomp", "9"),
        ("--ro-bind", "/usr", "/usr"),
        ("--ro-bind", "/lib64", "/lib64"),
        ("--symlink", "usr/bin", "/bin"),
        ("--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        ("--file", "5", "/etc/passwd"),
        ("--remount-ro", "/"),
        ("--remount-ro", "/dev"),
        ("--size", str(64 * MIB), "--tmpfs", "/tmp"),
        ("--size", str(16 * MIB), "--tmpfs", "/dev/shm"),
        ("--dir", "/home/me/flights"),
        ("--", "/proc/self/fd/4", "3"),
    ],
)
def test_the_whole_wall_is_built_for_what_is_not_trusted(run: tuple[str, ...]) -> None:
    assert has(arguments(untrusted(), SYSTEM, WALL), *run)


def test_nothing_else_of_the_machine_is_bound() -> None:
    words = arguments(untrusted(), SYSTEM, WALL)
    bound = {words[at + 1] for at, word in enumerate(words) if word.endswith("bind")}
    assert bound == {"/usr", "/lib64", "/etc/ld.so.cache"}


def test_the_root_is_closed_when_everything_is_in_place() -> None:
    words = arguments(untrusted(mounts=(Mount(Path("/data"), "/data"),)), SYSTEM, WALL)
    closed = words.index("--remount-ro", words.index("/data"))
    assert words[closed + 1] == "/"
    assert not {"--bind", "--ro-bind", "--dir", "--symlink", "--tmpfs", "--file"} & set(words[closed:])


def test_each_loosening_is_one_thing() -> None:
    """With the machine's network come its resolvers, and nothing else."""
    shut, open_ = (arguments(untrusted(network=network), SYSTEM, WALL) for network in ("none", "host"))
    assert set(shut) - set(open_) == {"--unshare-net"}
    assert set(open_) - set(shut) == {"/etc/resolv.conf"}


def test_mounts_are_made_from_the_outside_in() -> None:
    mounts = (
        Mount(Path("/s/inner"), "/data/inner", writable=True),
        Mount(Path("/s/outer"), "/data"),
    )
    words = arguments(untrusted(mounts=mounts, template=Path("/data/inner/template")), SYSTEM, WALL)
    assert has(words, "--ro-bind", "/s/outer", "/data", "--bind", "/s/inner", "/data/inner", "--ro-bind")
    assert has(words, "--ro-bind", "/data/inner/template", "/data/inner/template")


@pytest.mark.parametrize("directory", ["/", "/tmp", "/usr/share", "/data/of/it", "/template"])
def test_a_folder_that_is_seen_is_not_made(directory: str) -> None:
    spec = untrusted(mounts=(Mount(Path("/s"), "/data"),), template=Path("/template"))
    wall = Wall("bwrap", "h", directory, 4, 3, user_namespace=True)
    assert not has(arguments(spec, SYSTEM, wall), "--dir", directory)


def test_a_folder_in_the_machines_tmp_is_made_in_its_own() -> None:
    wall = Wall("bwrap", "h", "/tmp/flights", 4, 3, user_namespace=True)
    words = arguments(untrusted(), SYSTEM, wall)
    assert has(words, "--dir", "/tmp/flights")
    assert not has(words, "--ro-bind", "/tmp/flights", "/tmp/flights")


def test_no_size_of_zero_is_asked_for() -> None:
    """It would mean that there is no limit."""
    assert "0" not in arguments(untrusted(resources=Resources(disk_bytes=0)), SYSTEM, WALL)


def test_a_trusted_sandbox_shows_the_machine_as_it_is() -> None:
    wall = Wall("bwrap", "h", "/home/me/flights", 4, 3, user_namespace=False)
    words = arguments(TRUSTED, SYSTEM, wall)
    assert has(words, "--ro-bind", "/", "/")
    assert {"--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"} <= set(words)
    assert not {"--unshare-user", "--unshare-net", "--seccomp", "--clearenv", "--dir", "--file"} & set(words)


def test_a_pipeline_in_tmp_is_seen_by_what_is_trusted() -> None:
    wall = Wall("bwrap", "h", "/tmp/flights", 4, 3, user_namespace=False)
    words = arguments(TRUSTED, SYSTEM, wall)
    assert has(words, "--tmpfs", "/tmp", "--ro-bind", "/tmp/flights", "/tmp/flights")


def test_an_older_bubblewrap_is_not_asked_for_what_it_has_not() -> None:
    wall = Wall("bwrap", "h", "/", 4, 3, user_namespace=True, forbid_more=False)
    assert "--disable-userns" not in arguments(untrusted(), SYSTEM, wall)


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("bubblewrap 0.8.0\n", True),
        ("bubblewrap 0.11.0", True),
        ("bubblewrap 1.0", True),
        ("bubblewrap 0.7.0", False),
        ("bubblewrap 0.4.1", False),
        ("something else", False),
        ("", False),
    ],
)
def test_the_version_says_what_it_can(version: str, can: bool) -> None:
    assert can_forbid_namespaces(version) is can


def test_only_what_is_seen_of_the_search_path_is_left() -> None:
    spec = untrusted(mounts=(Mount(Path("/opt/node"), "/opt/node"),))
    path = "/root/.pyenv/shims:/opt/node/bin:/usr/local/bin::/usr/bin:/opt/nodes:relative"
    assert search_path(spec, path) == "/opt/node/bin:/usr/local/bin:/usr/bin"
    assert search_path(spec, "/root/bin") == search_path(spec, "") == DEFAULT_PATH


def test_the_user_is_in_the_small_passwd() -> None:
    made = made_files(1234, 567, "store")
    assert "connector:x:1234:567:" in made["/etc/passwd"]
    assert "connector:x:567:" in made["/etc/group"]
    assert "store" in made["/etc/hosts"]
    assert made["/etc/hostname"] == "store\n"
    assert all(line.count(":") == 6 for line in made["/etc/passwd"].splitlines())


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("bwrap: No permissions to create new namespace, likely because …", MachineError, "may not make namespaces"),
        ("bwrap: setting up uid map: Permission denied", MachineError, "may not make namespaces"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", MachineError, "may not make namespaces"),
        ("bwrap: Creating new namespace failed: nesting depth or …", MachineError, "may not make namespaces"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", MachineError, "may not mount /proc"),
        ("bwrap: Can't find source path /root/x: Permission denied", LaunchError, "cannot be reached"),
        ("bwrap: Can't mkdir /usr/x: Read-only file system", LaunchError, "no place to mount at"),
        ("bwrap: Can't create file at /usr/x: Read-only file system", LaunchError, "no place to mount at"),
        ("bwrap: Unknown option --as-pid-1", MachineError, "too old"),
        (
            "bwrap: … Unable to apply mount flags: remount …: Invalid argument",
            MountsChangedError,
            "mounts have changed",
        ),
        ("bwrap: something new", LaunchError, "says: something new"),
    ],
)
def test_what_bubblewrap_says_becomes_a_cause(said: str, kind: type[Exception], words: str) -> None:
    found = cause(said)
    assert type(found) is kind
    assert words in str(found)


def test_what_forbids_namespaces_is_named() -> None:
    remedy = cause("bwrap: setting up uid map: Permission denied").remedy
    assert remedy is not None
    assert "kernel.unprivileged_userns_clone" in remedy
    assert "kernel.apparmor_restrict_unprivileged_userns" in remedy
    assert "user.max_user_namespaces" in remedy
