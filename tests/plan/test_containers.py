"""What a container is made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError
from runner.plan.containers import (
    EngineFacts,
    Ground,
    Status,
    User,
    container_config,
    container_name,
    labels,
    network_config,
    out_of_reach,
    own_network,
    own_user,
    refuse_mounts,
)
from runner.plan.images import Image
from runner.spec.model import MIB, UNTRUSTED_RESOURCES, Home, Mount, Processor, Resources, Trust

IMAGE = Image("sha256:1", user="guest", env=("PATH=/bin",), volumes=("/data", "/tmp/more"))
GROUND = Ground("run-1", "flights", "boot-1-2-3", "/lib/shim", EngineFacts((1, 41), "x86_64", 2), '{"seccomp": 1}')
OWN_USERS = replace(GROUND, engine=replace(GROUND.engine, own_users=True))
DIRECTORY, FILE = 0o040000, 0o100000


def spec_of(**values: Any) -> Processor:
    more = {"name": "p", "command": (), "directory": None, "home": Home.CONTAINER, "image": "image:1"}
    return Processor(**{**more, "network": "none", **values})


def untrusted(**values: Any) -> Processor:
    return spec_of(**{"trust": Trust.UNTRUSTED, "resources": UNTRUSTED_RESOURCES, **values})


def config_of(spec: Processor, ground: Ground = GROUND, image: Image = IMAGE) -> dict[str, Any]:
    config = container_config(spec, 2, image, ground, sockets="/run/x/1")
    json.dumps(config)
    return config


def test_of_a_trusted_image_nothing_is_changed_but_its_entrypoint() -> None:
    config = config_of(spec_of())
    assert config["Image"] == "sha256:1"
    assert (config["Entrypoint"], config["Cmd"]) == (["/.connector/shim"], ["/.connector/run/socket"])
    assert not {"User", "Env", "WorkingDir", "Volumes", "Hostname"} & config.keys()
    assert config["StopSignal"] == "SIGTERM"
    host = config["HostConfig"]
    assert {key for key, value in host.items() if value not in ([], {}, False)} == {
        "NetworkMode",
        "Mounts",
        "LogConfig",
        "RestartPolicy",
    }
    assert [(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in host["Mounts"]] == [
        ("/lib/shim", "/.connector/shim", True),
        ("/run/x/1", "/.connector/run", True),
    ]
    assert host["LogConfig"] == {"Type": "none"}
    assert host["Init"] is False


def test_it_is_found_by_its_labels() -> None:
    assert config_of(spec_of())["Labels"] == {
        "connector.run": "run-1",
        "connector.pipeline": "flights",
        "connector.processor": "p",
        "connector.instance": "2",
        "connector.owner": "boot-1-2-3",
        "connector.image": "image:1",
    }
    assert "connector.instance" not in labels(GROUND, "p")
    assert container_name(spec_of(), 2, GROUND, "ab12") == "connector-flights-p-2-ab12"


def test_resources_hold_where_they_are_given() -> None:
    limits = Resources(memory_bytes=64 * MIB, cpus=8.0, pids=10, files=100, disk_bytes=MIB)
    host = config_of(spec_of(resources=limits))["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 64 * MIB
    assert host["NanoCpus"] == 2_000_000_000  # there are no more
    assert host["PidsLimit"] == 11  # and the shim
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 100}]
    assert host["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,size=1048576,nr_inodes=256,mode=1777"}
    assert "ReadonlyRootfs" not in host


def test_the_whole_profile_of_an_untrusted_one() -> None:
    config = config_of(untrusted())
    user = own_user(untrusted(), 2, GROUND)
    assert user is not None
    assert config["User"] == f"{user.uid}:{user.gid}"
    assert config["Env"] == ["HOME=/tmp"]
    host = config["HostConfig"]
    tmpfs = f"rw,noexec,nosuid,nodev,size=67108864,nr_inodes=16384,mode=1777,uid={user.uid},gid={user.gid}"
    assert host.pop("Mounts")[0]["BindOptions"] == {"Propagation": "rprivate", "NonRecursive": True}
    assert host == {
        "NetworkMode": "none",
        "LogConfig": {"Type": "none"},
        "Init": False,
        "RestartPolicy": {"Name": "no"},
        "Memory": 512 * MIB,
        "MemorySwap": 512 * MIB,
        "NanoCpus": 500_000_000,
        "PidsLimit": 65,
        "Ulimits": [{"Name": "nofile", "Soft": 256, "Hard": 256}, {"Name": "core", "Soft": 0, "Hard": 0}],
        "Tmpfs": {"/tmp": tmpfs, "/data": tmpfs, "/tmp/more": tmpfs},
        "ReadonlyRootfs": True,
        "Privileged": False,
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", 'seccomp={"seccomp": 1}'],
    }


def test_what_an_image_says_of_home_is_kept() -> None:
    assert "Env" not in config_of(untrusted(), image=replace(IMAGE, env=("HOME=/app",)))


def test_a_mount_takes_the_place_of_a_tmpfs() -> None:
    mounts = (Mount(Path("/a"), "/tmp", writable=True), Mount(Path("/b"), "/data"))
    for spec in (untrusted(mounts=mounts), spec_of(mounts=mounts, resources=UNTRUSTED_RESOURCES)):
        assert not {"/tmp", "/data"} & config_of(spec)["HostConfig"]["Tmpfs"].keys()


def test_mounts_are_private_and_a_read_only_one_is_so_all_the_way_down() -> None:
    mounts = (Mount(Path("/a"), "/x"), Mount(Path("/b"), "/y", writable=True))

    def binds(spec: Processor, ground: Ground = GROUND) -> list[dict[str, Any]]:
        return [bind for bind in config_of(spec, ground)["HostConfig"]["Mounts"] if bind["Target"] in {"/x", "/y"}]

    assert [bind["ReadOnly"] for bind in binds(spec_of(mounts=mounts))] == [True, False]
    assert all(bind["Type"] == "bind" for bind in binds(untrusted(mounts=mounts)))
    assert [bind["BindOptions"] for bind in binds(spec_of(mounts=mounts))] == [{"Propagation": "rprivate"}] * 2
    assert [bind["BindOptions"].get("NonRecursive") for bind in binds(untrusted(mounts=mounts))] == [True, None]
    newer = replace(GROUND, engine=replace(GROUND.engine, api=(1, 44)))
    forced = [bind["BindOptions"].get("ReadOnlyForceRecursive") for bind in binds(untrusted(mounts=mounts), newer)]
    assert forced == [True, None]


def test_a_template_is_mounted_by_itself_and_once() -> None:
    folder = Path("/templates/delay")
    for mounts in ((), (Mount(folder, str(folder)),)):
        found = config_of(spec_of(template=folder, mounts=mounts))["HostConfig"]["Mounts"]
        assert [(bind["Target"], bind["ReadOnly"]) for bind in found[2:]] == [("/templates/delay", True)]


def test_a_folder_of_the_files_own_is_left_to_the_shim() -> None:
    assert config_of(spec_of(directory=Path("/work")))["WorkingDir"] == "/"


@pytest.mark.parametrize(
    ("network", "trusted_mode", "untrusted_mode"),
    [
        ("none", "none", "none"),
        ("host", "host", "host"),
        ("outbound", "bridge", "connector-flights-p-run-1"),
        ("backend", "backend", "backend"),
    ],
)
def test_networks(network: str, trusted_mode: str, untrusted_mode: str) -> None:
    assert config_of(spec_of(network=network))["HostConfig"]["NetworkMode"] == trusted_mode
    assert config_of(untrusted(network=network))["HostConfig"]["NetworkMode"] == untrusted_mode


def test_a_network_of_its_own_joins_nobody_to_anybody() -> None:
    config = network_config(untrusted(), GROUND)
    assert config["name"] == own_network(untrusted(), GROUND)
    assert config["options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert config["labels"] == labels(GROUND, "p")


def test_users_of_their_own_are_above_all_others_or_within_what_an_engine_has() -> None:
    assert own_user(spec_of(), 1, GROUND) is None
    users = [own_user(untrusted(name=name), replica, GROUND) for name in "ab" for replica in (1, 2)]
    assert len({user.uid for user in users if user is not None}) == 4
    assert len({user.gid for user in users if user is not None}) == 2
    assert all(user is not None and user.uid >= 1 << 30 for user in users)
    mapped = own_user(untrusted(), 1, OWN_USERS)
    assert mapped is not None
    assert 1000 < mapped.uid < 65534
    assert 1000 < mapped.gid < 65534


@pytest.mark.parametrize("source", ["/run/docker.sock", "/run", "/", "/run/../run"])
def test_what_leads_to_the_engine_is_not_mounted(source: str) -> None:
    sockets = [Path("/run/docker.sock"), Path("/run/containerd/containerd.sock")]
    with pytest.raises(LaunchError, match=r"processor p: the engine's socket /run/docker.sock") as caught:
        refuse_mounts(spec_of(mounts=(Mount(Path(source), "/x"),)), sockets)
    assert caught.value.remedy
    with pytest.raises(LaunchError):
        refuse_mounts(untrusted(template=Path(source)), sockets)
    refuse_mounts(spec_of(mounts=(Mount(Path("/run/docker"), "/x"), Mount(Path("/usr"), "/y"))), sockets)


def test_a_link_to_what_leads_to_the_engine_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inside")
    with pytest.raises(LaunchError):
        refuse_mounts(spec_of(mounts=(Mount(tmp_path / "link", "/x"),)), [tmp_path / "inside/docker.sock"])


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "writable", "same_users", "reached"),
    [
        (DIRECTORY | 0o755, 0, 0, False, True, True),
        (DIRECTORY | 0o754, 0, 0, False, True, False),  # listed, but not entered
        (DIRECTORY | 0o755, 0, 0, True, True, False),
        (DIRECTORY | 0o777, 0, 0, True, True, True),
        (DIRECTORY | 0o700, 1001, 0, True, True, True),
        (DIRECTORY | 0o700, 1001, 0, True, False, False),  # that 1001 is somebody else
        (DIRECTORY | 0o750, 0, 1002, False, True, True),
        (DIRECTORY | 0o057, 1001, 0, False, True, False),  # the first that fits counts (path_resolution(7))
        (FILE | 0o644, 0, 0, False, True, True),
        (FILE | 0o640, 0, 0, False, True, False),
        (FILE | 0o644, 0, 0, True, True, False),
    ],
)
def test_whether_a_mount_can_be_used(
    mode: int, uid: int, gid: int, writable: bool, same_users: bool, reached: bool
) -> None:
    mount = Mount(Path("/a/b"), "/b", writable)
    problem = out_of_reach(mount, Status(mode, uid, gid), User(1001, 1002), same_users=same_users)
    assert (problem is None) is reached
    if problem is not None:
        assert "/a/b" in problem.what
        assert f"mode {mode & 0o7777:04o}" in problem.what
        assert problem.remedy.endswith("/a/b")
