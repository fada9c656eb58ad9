"""Exports to Compose that a careless exporter gets wrong: names that meet, paths, files of somebody else."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.errors import RunnerError, SpecError
from runner.pack.compose import export
from runner.pack.compose_files import ExportError, Project

GIVE = 'image = "give:1"\nentrypoint = ["give"]\nnetwork = "none"\n'
TAKE = 'image = "take:1"\nentrypoint = ["take"]\nnetwork = "none"\n'


class Written:
    """A project in a folder, as it is read: `file` the Compose file, `changes` what is laid over the pipeline file."""

    def __init__(self, folder: Path, text: str, output: str | None = None, name: str = "pipeline.toml") -> None:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        self.project = export(folder / name, None if output is None else folder / output, "runner:1")
        texts = list(self.project.files.values())
        self.text = texts[0]
        self.file: dict[str, Any] = yaml.safe_load(texts[0])
        self.changes: dict[str, Any] = tomllib.loads(texts[1])

    def volumes(self, service: str) -> list[Any]:
        """What a service has mounted."""
        found: list[Any] = self.file["services"][service]["volumes"]
        return found


def two(give: str = "", take: str = "", rest: str = "", first: str = "give", second: str = "take") -> str:
    """A pipeline of two processors, with keys of theirs and what stands below."""
    return (
        f'name = "two"\n[processors.{first}]\n{GIVE}writes = "way"\n{give}\n'
        f'[processors.{second}]\n{TAKE}reads = "way"\n{take}\n{rest}\n'
    )


# -- names


def test_two_secrets_are_never_one(tmp_path: Path) -> None:
    text = two('secrets = { B_C = "env:ONE", b_c = "env:TWO" }', 'secrets = { C = "env:THREE" }', "", "a", "a-b")
    found = Written(tmp_path, text)
    tables = found.changes["processors"]
    files = [*tables["a"]["secrets"].values(), *tables["a-b"]["secrets"].values()]
    variables = [found.file["secrets"][file.rpartition("/")[2]]["environment"] for file in files]
    assert variables == ["ONE", "TWO", "THREE"]
    assert sorted(found.file["services"]["connector"]["secrets"]) == sorted(file.rpartition("/")[2] for file in files)


LINK = '[runners.edge]\n[runners.centre]\n[channels.way]\nkind = "tcp"\naddress = "127.0.0.1:7000"\n'


@pytest.mark.parametrize("network", ["runners", "take-outbound"])
def test_nobody_is_in_a_network_that_is_for_others(tmp_path: Path, network: str) -> None:
    text = two('runner = "edge"', 'runner = "centre"', LINK).replace('network = "none"', f'network = "{network}"', 1)
    text = text.replace('network = "none"', 'network = "outbound"')
    with pytest.raises(ExportError, match=f"processors.give: the network `{network}` of the project is for others"):
        Written(tmp_path, text)


def test_a_network_may_be_called_as_one_that_is_not_there(tmp_path: Path) -> None:
    found = Written(tmp_path, two().replace('network = "none"', 'network = "runners"'))
    assert found.file["networks"] == {"runners": {}}


# -- what is listened at


def posted(address: str) -> str:
    """One processor, to which others post."""
    channel = f'[channels.posted]\nkind = "http"\naddress = "{address}"\n'
    return f'name = "open"\n[processors.take]\n{TAKE}reads = "posted"\n{channel}'


@pytest.mark.parametrize(
    ("address", "port"),
    [("localhost:7002", "127.0.0.1:7002:7002"), ("[::1]:7002", "[::1]:7002:7002"), (":7002", "127.0.0.1:7002:7002")],
)
def test_a_port_is_published_at_a_number(tmp_path: Path, address: str, port: str) -> None:
    assert Written(tmp_path, posted(address)).file["services"]["connector"]["ports"] == [port]


def test_a_port_is_not_published_at_a_name(tmp_path: Path) -> None:
    text = posted("here.example:7002") + "insecure = true\n"
    with pytest.raises(ExportError, match=r"channels\.posted: it listens at here\.example"):
        Written(tmp_path, text)


def test_a_nats_server_to_which_others_write_can_be_reached(tmp_path: Path) -> None:
    channel = '[channels.posted]\nkind = "nats"\nurl = "nats://127.0.0.1:4333"\npeer = "plain"\nsubject = "s"\n'
    found = Written(tmp_path, f'name = "open"\n[processors.take]\n{TAKE}reads = "posted"\n{channel}')
    assert found.file["services"]["nats"]["ports"] == ["127.0.0.1:4333:4222"]
    assert found.file["services"]["nats"]["networks"] == ["nats", "outside"]
    assert found.file["networks"] == {"nats": {"internal": True}, "outside": {}}


# -- paths


def kept(path: str) -> str:
    return two(take='writes = "kept"', rest=f'[channels.kept]\nkind = "file"\npath = "{path}"\n')


def test_what_is_laid_over_is_not_put_into_a_folder_of_the_pipeline(tmp_path: Path) -> None:
    found = Written(tmp_path, kept("kept.txt"))
    assert ".:/pipeline" in found.volumes("connector")
    (changes,) = (each for each in found.volumes("connector") if each.startswith("./connector/compose.toml:"))
    target = changes.split(":")[1]
    assert not target.startswith("/pipeline/")
    assert target in found.file["services"]["connector"]["command"]


def test_an_absolute_path_is_where_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "out").mkdir()
    use = tmp_path / "beside"
    use.mkdir()
    (use / "processor.toml").write_text(f'name = "give"\n{GIVE}')
    text = kept(f"{tmp_path}/out/kept.txt").replace(GIVE, f'use = "{use}"\n')
    text = text.replace("[channels.kept]", f'[channels.way]\nschema = "{tmp_path}/schema.json"\n[channels.kept]')
    found = Written(tmp_path / "pipeline", text)
    assert f"../out:{tmp_path}/out" in found.volumes("connector")
    assert f"../schema.json:{tmp_path}/schema.json:ro" in found.volumes("connector")
    assert f"../beside:{use}:ro" in found.volumes("connector")
    assert found.volumes("give")[-1]["target"] == str(use)


@pytest.mark.parametrize("place", ["state", "usr", "bridges/x"])
def test_no_path_hides_what_a_runner_needs(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(ExportError, match=f"would be at /{place} in its runner's container"):
        Written(tmp_path / "pipeline", kept(f"../{place}/kept.txt"))


def test_a_path_with_a_colon_and_a_dollar_sign(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    found = Written(tmp_path, kept("a:b/kept.txt"), name="p$x.toml")
    bind = {"type": "bind", "source": "./a:b", "target": "/pipeline/a:b"}
    assert bind in found.volumes("connector")
    assert "/pipeline/p$$x.toml" in found.file["services"]["connector"]["command"]


def test_variables_are_put_into_the_paths_of_secrets_and_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "there")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/key").write_text("x")
    (tmp_path / "there/schema.json").write_text("{}")
    text = two('secrets = { KEY = "file:${PLACE}/key" }', rest='[channels.way]\nschema = "${PLACE}/schema.json"\n')
    found = Written(tmp_path, text)
    assert found.file["secrets"] == {"give-key": {"file": "./there/key"}}
    assert "./there/schema.json:/pipeline/there/schema.json:ro" in found.volumes("connector")


def test_a_folder_that_is_written_in_another_way_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "pipeline.toml").write_text(two())
    file = tmp_path / "below" / ".." / "pipeline.toml"
    assert export(file, tmp_path / "compose.yaml", "runner:1").files


def test_what_the_runner_may_not_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "out").mkdir(0o755)
    text = kept("out/kept.txt").replace(GIVE, GIVE + 'secrets = { KEY = "file:key" }\n')
    warnings = Written(tmp_path, text).project.warnings
    assert f"{tmp_path}/key: the runner's user 65532 may not read it: setfacl -m u:65532:r" in warnings
    assert (
        f"{tmp_path}/out: the runner's user 65532 may not write there: chmod o+rwx, or setfacl -m u:65532:rwx"
        in warnings
    )
    (tmp_path / "key").chmod(0o644)
    (tmp_path / "out").chmod(0o777)
    assert Written(tmp_path, text).project.warnings == ()


# -- what a project is worth


def test_a_long_grace_period_is_not_cut_short(tmp_path: Path) -> None:
    found = Written(tmp_path, two(take='stop = { grace = "90s" }')).file["services"]
    assert found["take"]["stop_grace_period"] == "1m45s"
    assert found["give"]["stop_grace_period"] == "45s"


def test_what_the_sidecar_would_refuse_is_refused_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.pack.compose.changes_of", lambda *_: {"processors": {"take": {"replicas": 0}}})
    with pytest.raises(SpecError, match="replicas"):
        Written(tmp_path, two())


# -- files that are there


def files(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def project(folder: Path, output: str | None = None) -> Project:
    return Written(folder, two(), output).project


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {}\n"),
        ("compose.yaml", "# mine\n# once Written by `connector export compose`\nservices: {}\n"),
        ("compose.yml", "services: {}\n"),
        ("docker-compose.yml", "services: {}\n"),
        ("connector/compose.toml", "mine = true\n"),
        ("connector/seccomp.json", "{}\n"),
    ],
)
def test_what_is_somebody_elses_stays_and_nothing_is_written(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    made = project(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ExportError, match=f"{name} is there"):
        made.write()
    assert files(tmp_path) == before
    elsewhere = project(tmp_path, "more.yaml")
    assert elsewhere.write() == list(elsewhere.files)


def test_what_was_exported_before_is_written_anew(tmp_path: Path) -> None:
    project(tmp_path).write()
    for name in ("compose.yaml", "connector/compose.toml", "connector/seccomp.json"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
    made = project(tmp_path)
    assert len(list(made.differences())) == 3
    assert made.write() == list(made.files)
    assert list(made.differences()) == []


def test_a_file_of_another_name_says_how_it_is_brought_up(tmp_path: Path) -> None:
    text = next(iter(project(tmp_path, "more.yaml").files.values()))
    assert "#   docker compose -f more.yaml up " in text
    assert "compose.override.yaml" not in text
    assert "#   docker compose up " in next(iter(project(tmp_path).files.values()))


@pytest.mark.parametrize("what", ["a file", "closed"])
def test_what_cannot_be_written_is_said(tmp_path: Path, what: str) -> None:
    made = project(tmp_path)
    if what == "a file":
        (tmp_path / "connector").write_text("")
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o500)
    with pytest.raises(RunnerError, match=r"cannot be (read|written)"):
        made.write()
