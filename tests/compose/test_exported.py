"""The files under compose/ are what their pipelines say; no engine is needed to know."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.compose.conftest import NAMES
from tests.compose.project import PROJECTS
from tests.e2e.connector import Connector


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_what_would_be_written(connector: Connector, name: str) -> None:
    done = connector.command("export", "compose", str(PROJECTS / name / "pipeline.toml"), "--check")
    assert (done.code, done.stdout) == (0, "")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The pipeline file of a project that may be changed."""
    shutil.copytree(PROJECTS / "untrusted", tmp_path / "untrusted")
    return tmp_path / "untrusted" / "pipeline.toml"


def test_a_changed_pipeline_fails_the_check_and_is_written_anew(connector: Connector, copied: Path) -> None:
    copied.write_text(copied.read_text().replace('trust    = "untrusted"', 'trust    = "untrusted"\nreplicas = 2'))
    checked = connector.command("export", "compose", str(copied), "--check")
    assert checked.code == 1
    (line,) = checked.stdout.splitlines()
    assert f"{copied.parent / 'compose.yaml'}:" in line
    written = connector.command("export", "compose", str(copied))
    assert "compose.yaml written" in written.stdout
    assert connector.command("export", "compose", str(copied), "--check").code == 0
    assert yaml.safe_load((copied.parent / "compose.yaml").read_text())["services"]["guest"]["scale"] == 2


def test_a_changed_folder_is_another_image(connector: Connector, copied: Path) -> None:
    with (copied.parent / "guest" / "guest.py").open("a") as program:
        program.write("# changed\n")
    assert "compose.yaml:" in connector.command("export", "compose", str(copied), "--check").stdout


def test_a_compose_file_of_somebody_else_stays(connector: Connector, copied: Path) -> None:
    own = copied.parent / "compose.yaml"
    own.write_text("services: {}\n")
    done = connector.command("export", "compose", str(copied))
    assert (done.code, own.read_text()) == (2, "services: {}\n")
    assert "was not written by this command" in done.stderr
    elsewhere = connector.command("export", "compose", str(copied), "-o", str(copied.parent / "more.yaml"))
    assert elsewhere.code == 0
    assert (copied.parent / "more.connector" / "seccomp.json").is_file()


def test_all_that_cannot_be_is_told_at_once(connector: Connector, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(
        'name = "x"\n[processors.say]\ncommand = ["echo", "x"]\nwrites = "a"\n'
        '[processors.nats]\nimage = "x:1"\ncommand = ["x"]\nreads = "b"\n[processors.hear]\ncommand = ["cat"]\n'
        'reads = "a"\n[channels.b]\nkind = "http"\nurl = "http://127.0.0.1:8000/"\n'
    )
    done = connector.command("export", "compose", str(file))
    assert done.code == 2
    for what in ("processors.say: ", "processors.hear: ", "processors.nats: ", "channels.b: "):
        assert what in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.engine
def test_an_image_that_is_not_here_is_asked_for(connector: Connector, engine: str, tmp_path: Path) -> None:
    del engine
    file = tmp_path / "pipeline.toml"
    file.write_text('name = "x"\n[processors.say]\nimage = "nobody/has-this:1"\nwrites = "a"\n'
                    '[processors.hear]\nimage = "nobody/has-this:1"\nentrypoint = ["cat"]\nreads = "a"\n')  # fmt: skip
    done = connector.command("export", "compose", str(file))
    assert done.code == 2
    assert "processors.say: the image nobody/has-this:1 is not here" in done.stderr
    assert "docker pull nobody/has-this:1" in done.stderr
    assert "processors.hear" not in done.stderr
