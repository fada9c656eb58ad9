"""What a Compose project of a pipeline has in it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.plan.compose.links import links_of
from runner.plan.compose.naming import here, inside
from runner.plan.compose.project import Ground, changes_of, compose_text, entrypoint
from runner.plan.compose.runners import Secret, Surroundings, Variable
from runner.plan.images import Image
from runner.spec.load import load_text
from runner.spec.model import Home, Processor

IMAGE = Image("sha256:1", entrypoint=("/entry.sh",), command=("serve",))


class Exported:
    """A pipeline's project: the Compose file as it is read, and what is laid over the pipeline file."""

    def __init__(self, text: str, folder: Path, image: Image = IMAGE, **secrets: Any) -> None:
        loaded = load_text(text, folder=folder, env=dict(os.environ), home=Home.CONTAINER).pipeline
        links = links_of(loaded, tomllib.loads(text).get("channels", {}))
        self.problems = links.problems
        around = Surroundings(
            loaded, folder / "pipeline.toml", "connector", "runner:1", links, (Variable("URL", needed=True),), **secrets
        )
        ground = Ground(around, dict.fromkeys(loaded.processors, image), self.names(loaded.processors), "{}")
        self.text = compose_text(ground)
        self.file = yaml.safe_load(self.text)
        self.changes = changes_of(ground, {})

    @staticmethod
    def names(processors: dict[str, Processor]) -> dict[str, str]:
        return {name: spec.image or "connector/made:1" for name, spec in processors.items()}

    def service(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.file["services"][name]
        return found


CHAIN = """
name = "chain"

[processors.fetch]
image  = "fetch:1"
writes = "raw"

[processors.clean]
image    = "clean:1"
reads    = "raw"
writes   = "done"
trust    = "untrusted"
contract = "one-to-one"
replicas = 3

[processors.store]
image   = "store:1"
reads   = "done"
network = "database"
"""


@pytest.fixture
def chain(tmp_path: Path) -> Exported:
    return Exported(CHAIN, tmp_path, secrets=())


def test_a_service_for_each_processor_and_one_for_the_runner(chain: Exported) -> None:
    assert list(chain.file["services"]) == ["connector", "fetch", "clean", "store"]
    assert chain.file["name"] == "chain"
    assert [chain.service(name)["image"] for name in ("connector", "fetch", "clean")] == [
        "runner:1",
        "fetch:1",
        "clean:1",
    ]


@pytest.mark.parametrize("name", ["fetch", "clean", "store"])
def test_every_processor_is_behind_walls(chain: Exported, name: str) -> None:
    service = chain.service(name)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true", "seccomp=connector/seccomp.json"]
    assert service["entrypoint"] == ["/.shim/connector-shim", "--stay", "/.connector/shim.sock"]
    assert service["depends_on"] == {"connector": {"condition": "service_healthy"}}
    shared = {"type": "volume", "read_only": True, "volume": {"nocopy": True}}
    assert service["volumes"][:2] == [
        shared | {"source": "shim", "target": "/.shim"},
        shared | {"source": f"bridge-{name}", "target": "/.connector"},
    ]


def test_an_untrusted_one_has_no_network_a_user_of_its_own_and_limits(chain: Exported) -> None:
    service = chain.service("clean")
    assert service["network_mode"] == "none"
    assert "networks" not in service
    uid, _, gid = service["user"].partition(":")
    assert int(uid) >= 1 << 30
    assert int(gid) >= 1 << 30
    assert (service["mem_limit"], service["memswap_limit"], service["cpus"]) == ("512m", "512m", "0.5")
    assert (service["pids_limit"], service["ulimits"]) == (65, {"nofile": 256, "core": 0})
    assert (service["ipc"], service["cgroup"], service["scale"]) == ("none", "private", 3)
    (tmp,) = service["tmpfs"]
    assert tmp.startswith("/tmp:noexec,nosuid,nodev,size=64m,nr_inodes=")


def test_the_volumes_of_an_untrusted_image_are_bounded(tmp_path: Path) -> None:
    found = Exported(CHAIN, tmp_path, Image("x", entrypoint=("go",), volumes=("/data", "/tmp")), secrets=())
    first, second = found.service("clean")["tmpfs"]
    assert first.startswith("/tmp:noexec,nosuid,nodev,size=64m,")
    assert second == first.replace("/tmp:", "/data:")
    assert len(found.service("fetch")["tmpfs"]) == 1


def test_an_untrusted_home_does_not_depend_on_what_was_built(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean/processor.toml").write_text('name = "clean"\ncommand = ["python3", "clean.py"]\n')
    (tmp_path / "clean/clean.py").write_text("")
    text = CHAIN.replace('image    = "clean:1"', 'use = "clean"')
    for image in (IMAGE, Image("sha256:2", entrypoint=("go",), env=("HOME=/tmp",))):
        assert Exported(text, tmp_path, image, secrets=()).service("clean")["environment"] == {"HOME": "/tmp"}


def test_a_network_is_only_where_the_file_asks_for_one(chain: Exported) -> None:
    assert chain.service("fetch")["networks"] == ["fetch-outbound"]  # the default of a trusted image
    assert chain.service("store")["networks"] == ["database"]
    assert chain.service("connector")["network_mode"] == "none"
    assert set(chain.file["networks"]) == {"fetch-outbound", "database"}


def test_a_bridge_is_between_two_and_in_memory(chain: Exported) -> None:
    users = {
        name: [volume if isinstance(volume, str) else volume["source"] for volume in service.get("volumes", [])]
        for name, service in chain.file["services"].items()
    }
    for name in ("fetch", "clean", "store"):
        assert f"bridge-{name}:/bridges/{name}" in users["connector"]
        assert [user for user, volumes in users.items() if f"bridge-{name}" in volumes] == [name]
        assert chain.file["volumes"][f"bridge-{name}"]["driver_opts"]["type"] == "tmpfs"
    assert "state:/state" in users["connector"]
    assert not any("docker.sock" in each for volumes in users.values() for each in volumes)


def test_what_drains_has_time_to(tmp_path: Path) -> None:
    found = Exported('drain = "2m"\n' + CHAIN, tmp_path, secrets=())
    assert found.service("connector")["stop_grace_period"] == "2m10s"
    assert found.service("clean")["stop_grace_period"] == "2m15s"


def test_variables_of_the_file_are_those_where_the_project_is_brought_up(chain: Exported) -> None:
    assert chain.service("connector")["environment"] == {"URL": "${URL?the pipeline file needs it}"}


def test_a_secret_goes_to_the_runner_whose_processor_has_it(tmp_path: Path) -> None:
    secrets = (Secret("clean-key", None, variable="KEY"), Secret("store-cert", None, file=tmp_path / "cert"))
    found = Exported(CHAIN, tmp_path, secrets=secrets)
    assert found.service("connector")["secrets"] == ["clean-key", "store-cert"]
    assert found.file["secrets"] == {"clean-key": {"environment": "KEY"}, "store-cert": {"file": "./cert"}}
    assert "secrets" not in found.service("clean")
    assert "read_only" not in found.service("connector")  # Compose cannot copy it into one that is


def spec_of(**values: Any) -> Processor:
    return Processor(
        **{"name": "p", "command": (), "directory": None, "home": Home.CONTAINER, "image": "i:1", **values}
    )


@pytest.mark.parametrize(
    ("spec", "due"),
    [
        (spec_of(), ("/entry.sh", "serve")),
        (spec_of(command=("work",)), ("/entry.sh",)),
        (spec_of(entrypoint=("/mine",)), None),
        (spec_of(entrypoint=("/mine",), command=("work",)), None),
    ],
)
def test_what_an_image_says_is_laid_over_the_file(spec: Processor, due: tuple[str, ...] | None) -> None:
    assert entrypoint(spec, IMAGE) == due


def test_what_answers_each_message_may_have_more_containers(chain: Exported) -> None:
    assert {name: table.get("replicas") for name, table in chain.changes["processors"].items()} == {
        "fetch": None,
        "clean": 8,
        "store": None,
    }


def test_nothing_is_laid_over_what_says_it_all(tmp_path: Path) -> None:
    found = Exported(
        CHAIN.replace('image  = "fetch:1"', 'image = "fetch:1"\ncommand = ["go"]'), tmp_path, Image("x"), secrets=()
    )
    assert "fetch" not in found.changes["processors"]


TWO = """
name = "two"

[runners.edge]
[runners.centre]

[processors.fetch]
image  = "fetch:1"
writes = "raw"
runner = "edge"

[processors.store]
image  = "store:1"
reads  = "raw"
runner = "centre"

[channels.raw]
kind = "websocket"
"""


def test_two_runners_meet_at_the_one_that_listens(tmp_path: Path) -> None:
    found = Exported(TWO + 'address = "127.0.0.1:7400"\n', tmp_path, secrets=())
    assert found.changes["channels"] == {"raw": {"address": ":7400", "insecure": True}}
    assert found.changes["runners"] == {"edge": {"host": "connector-edge"}, "centre": {"host": "connector-centre"}}
    assert found.service("connector-edge")["networks"] == ["runners"]
    assert found.service("connector-edge")["command"][-2:] == ["--runner", "edge"]
    assert found.service("store")["depends_on"] == {"connector-centre": {"condition": "service_healthy"}}
    assert found.file["networks"]["runners"] == {"internal": True}
    assert "ports" not in found.service("connector-centre")


def test_a_url_stays_one(tmp_path: Path) -> None:
    found = Exported(TWO + 'url = "ws://127.0.0.1:7400/link"\n', tmp_path, secrets=())
    assert found.changes["channels"] == {"raw": {"url": "ws://:7400/link", "insecure": True}}


def test_a_nats_server_of_this_machine_becomes_a_service(tmp_path: Path) -> None:
    text = TWO.replace("websocket", "nats") + 'url = "nats://127.0.0.1:4222"\n'
    found = Exported(text, tmp_path, secrets=())
    assert found.changes["channels"] == {"raw": {"url": "nats://nats:4222"}}
    assert found.service("nats")["command"] == ["-js", "-sd", "/data"]
    assert found.service("connector-edge")["networks"] == ["nats"]
    assert found.service("connector-edge")["depends_on"] == ["nats"]


def test_a_nats_server_elsewhere_stays_where_it_is(tmp_path: Path) -> None:
    found = Exported(TWO.replace("websocket", "nats") + 'url = "nats://broker.example:4222"\n', tmp_path, secrets=())
    assert "channels" not in found.changes
    assert "nats" not in found.file["services"]
    assert found.service("connector-edge")["networks"] == ["outside"]


PLAIN = """
name = "open"

[processors.store]
image = "store:1"
reads = "posted"

[channels.posted]
kind = "http"
peer = "plain"
"""


@pytest.mark.parametrize(
    ("address", "port"),
    [("127.0.0.1:8088", "127.0.0.1:8088:8088"), (":8088", "127.0.0.1:8088:8088"), ("[::1]:8088", "[::1]:8088:8088")],
)
def test_what_is_listened_at_is_published_as_narrow_as_it_is_written(tmp_path: Path, address: str, port: str) -> None:
    found = Exported(PLAIN + f'address = "{address}"\n', tmp_path, secrets=())
    assert found.service("connector")["ports"] == [port]
    assert found.changes["channels"] == {"posted": {"address": "0.0.0.0:8088", "insecure": True}}
    assert found.service("connector")["networks"] == ["outside"]


def test_a_port_that_nobody_knows_is_not_published(tmp_path: Path) -> None:
    found = Exported(PLAIN + 'address = ":0"\n', tmp_path, secrets=())
    ((name, what, _),) = found.problems
    assert (name, "port 0" in what) == ("posted", True)


def test_for_everybody_is_for_everybody(tmp_path: Path) -> None:
    found = Exported(PLAIN + 'address = "0.0.0.0:8088"\ninsecure = true\n', tmp_path, secrets=())
    assert found.service("connector")["ports"] == ["8088:8088"]


def test_loopback_of_this_machine_is_out_of_reach(tmp_path: Path) -> None:
    found = Exported(PLAIN + 'url = "http://127.0.0.1:8088/"\n', tmp_path, secrets=())
    ((name, what, _),) = found.problems
    assert (name, "the container itself" in what) == ("posted", True)


def test_files_and_folders_that_the_file_names_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    text = CHAIN.replace('network = "database"', 'writes = "kept"\nmounts = ["data", "data:/out:rw"]')
    found = Exported(text + '[channels.kept]\nkind = "file"\npath = "out/kept.txt"\n', tmp_path, secrets=())
    assert "./out:/pipeline/out" in found.service("connector")["volumes"]
    binds = found.service("store")["volumes"][2:]
    assert binds[0] == {
        "type": "bind",
        "source": "./data",
        "target": str(tmp_path / "data"),
        "read_only": True,
        "bind": {"create_host_path": False},
    }
    assert binds[1]["target"] == "/out"
    assert "read_only" not in binds[1]


@pytest.mark.parametrize(
    ("path", "seen", "in_container"),
    [
        ("/home/me/p", ".", "/pipeline"),
        ("/home/me/p/a/b", "./a/b", "/pipeline/a/b"),
        ("/home/me/q/a", "../q/a", "/q/a"),
        ("/home/me/p/../q", "../q", "/q"),
        ("/home/you", "../../you", "/you"),
        ("/srv/data", "/srv/data", "/srv/data"),
    ],
)
def test_paths_are_as_far_from_the_pipeline_as_they_are_here(path: str, seen: str, in_container: str) -> None:
    folder = Path("/home/me/p")
    assert here(Path(path), folder) == seen
    assert inside(Path(path), folder) == in_container
