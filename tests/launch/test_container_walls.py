"""The walls of a container, as the program behind them finds them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner.spec.model import MIB, Mount
from tests.engine import docker
from tests.launch.conftest import VOLUME
from tests.launch.containers import launched, program, run, running, spec_of, untrusted
from tests.launch.test_container import ECHO, proc

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


def test_the_profile_of_an_untrusted_processor(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(VOLUME)) as (made, it):
            await it.start(*ECHO)
            assert await it.line() == "up"
            found = json.loads(docker("inspect", *made.containers()))[0]
            status = proc(it.pid, "status").read_text()
            limits = proc(it.pid, "limits").read_text()
        host = found["HostConfig"]
        assert (host["NetworkMode"], host["IpcMode"], host["CgroupnsMode"]) == ("none", "none", "private")
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["LogConfig"]["Type"] == "none"
        assert host["Memory"] == host["MemorySwap"] == 512 * MIB
        assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 65)
        assert not [mount for mount in found["Mounts"] if mount["Type"] == "volume"]
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert len(set(uids)) == 1
        assert int(uids[0]) >= 1 << 30
        gid = found["Config"]["User"].partition(":")[2]
        assert f"Groups:\t{gid} \n" in status
        for name, value in (("Max open files", "256"), ("Max core file size", "0")):
            assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3:-1] == [value] * 2

    del images
    run(test)


def test_what_an_untrusted_processor_can_see_and_write(images: str) -> None:
    async def test() -> None:
        async with running(untrusted(VOLUME)) as (_, it):
            said = await it.says(
                "sh", "-c", "for f in / /work /data /tmp /dev /dev/shm; do touch $f/x && echo $f; done"
            )
            assert said.split() == ["/data", "/tmp"]
            said = await it.says("sh", "-c", "dd if=/dev/zero of=/tmp/x bs=1M count=100; wc -c < /tmp/x")
            assert int(said) == 64 * MIB
            assert await it.says("ls", "/sys/class/net") == "lo"
            assert await it.says("sh", "-c", "echo $HOME") == "/tmp"
            said = await it.says("sh", "-c", "cp /bin/cat /tmp/c || cat /bin/cat > /tmp/c; /tmp/c /dev/null || echo no")
            assert said == "no"

    del images
    run(test)


def test_replicas_are_not_the_same_user(images: str) -> None:
    async def test() -> None:
        spec = untrusted(images, replicas=2)
        async with launched(spec) as made, program(made, spec, 1) as one, program(made, spec, 2) as two:
            said = [await it.says("sh", "-c", "id -u; id -g") for it in (one, two)]
            uids, gids = zip(*(each.split() for each in said), strict=True)
            assert len(set(uids)) == 2
            assert len(set(gids)) == 1

    run(test)


def test_a_way_out_of_its_own_is_made_and_taken_away(images: str) -> None:
    async def test() -> None:
        spec = untrusted(images, network="outbound", replicas=2)
        async with launched(spec) as made, program(made, spec) as it:
            assert set((await it.says("ls", "/sys/class/net")).split()) == {"lo", "eth0"}
            network = json.loads(docker("network", "inspect", f"connector-pipeline-p-{made.run}"))[0]
            assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
        assert not docker("network", "ls", "-q", "--filter", f"label=connector.run={made.run}")

    run(test)


def test_networks_of_trusted_ones(images: str) -> None:
    async def test() -> None:
        async with running(spec_of(images, network="host")) as (_, it):
            assert set((await it.says("ls", "/sys/class/net")).split()) == set(os.listdir("/sys/class/net"))  # noqa: PTH208
        async with running(spec_of(images, network="outbound")) as (_, it):
            assert set((await it.says("ls", "/sys/class/net")).split()) == {"lo", "eth0"}

    run(test)


def test_mounts_are_read_only_unless_they_say_otherwise(images: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file.txt").write_text("there\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    tmp_path.chmod(0o700)  # who may go through it does not matter to the engine

    async def test() -> None:
        mounts = (Mount(tmp_path / "in", "/in"), Mount(tmp_path / "out", "/out", writable=True))
        for spec in (spec_of(images, mounts=mounts), untrusted(images, mounts=mounts)):
            async with running(spec) as (_, it):
                said = await it.says(
                    "sh", "-c", "cat /in/file.txt; touch /in/x || echo no; echo yes > /out/x; cat /out/x"
                )
                assert said.split() == ["there", "no", "yes"]
                assert (tmp_path / "out/x").read_text() == "yes\n"
                (tmp_path / "out/x").unlink()

    run(test)


def test_a_template_is_seen_where_it_is(images: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo of the template")
    tmp_path.chmod(0o755)

    async def test() -> None:
        async with running(untrusted(images, template=tmp_path)) as (_, it):
            assert await it.says("sh", f"{tmp_path}/script") == "of the template"

    run(test)
