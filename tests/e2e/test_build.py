"""`connector build`: images of folders, made once, and what a person reads where it does not work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_image
from tests.e2e.connector import Connector, Result, Running, until
from tests.e2e.images import Workshop, inspect, workshop
from tests.engine import docker

pytestmark = pytest.mark.engine
PYTHON = "python:3.13-slim-trixie"


@pytest.fixture
def shop(tmp_path: Path, engine: str) -> Iterator[Workshop]:
    need_image(PYTHON)
    with workshop(tmp_path) as made:
        yield made


def build(connector: Connector, *options: str, code: int = 0) -> Result:
    result = connector.command("build", *options, limit_s=100)
    assert result.code == code, str(result)
    result.expect_no_traceback()
    return result


def built(connector: Connector, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(build(connector, "--format", "json", *options).stdout)
    return found


def test_an_image_is_made_once(shop: Workshop, connector: Connector) -> None:
    folder = shop.processor()
    shop.pipeline("up", "up")
    first = build(connector)
    (name,) = shop.images()
    assert re.fullmatch(rf"p0, p1: {name} built in \S+, \S+ MiB\n", first.stdout), str(first)
    assert f"image {name}: step " in first.stderr

    again = build(connector)
    assert re.fullmatch(rf"p0, p1: {name} up to date, \S+ MiB\n", again.stdout), str(again)
    assert "step" not in again.stderr
    os.utime(folder / "up.py", (1, 1))
    (folder / "up.py").chmod(0o600)
    assert "up to date" in build(connector).stdout, "times and who may read do not count"
    identity = inspect(name)["Id"]

    (folder / "up.py").write_text("# other\n" + (folder / "up.py").read_text())
    (other,) = built(connector)
    assert (other["state"], other["processors"]) == ("built", ["p0", "p1"])
    assert other["image"] != name
    assert set(shop.images()) == {name, other["image"]}
    assert inspect(name)["Id"] == identity, "the old one stays as it is"

    (fresh,) = built(connector, "--no-cache")
    assert (fresh["image"], fresh["state"]) == (other["image"], "built")


def test_what_is_in_it(shop: Workshop, connector: Connector) -> None:
    folder = shop.processor(secret="not for everybody")
    (folder / "secret").chmod(0o600)
    (folder / "up.py").chmod(0o600)
    (folder / ".git").mkdir()
    (folder / ".git/HEAD").write_text("ref")
    shop.pipeline("up")
    (made,) = built(connector)
    image = inspect(made["image"])
    assert made["id"] == image["Id"]
    config = image["Config"]
    assert (config["User"], config["WorkingDir"]) == ("65532:65532", "/processor")
    assert (config["Entrypoint"], config["Cmd"]) == (None, ["python3", "up.py"])
    assert config["Labels"]["connector.content"].startswith(made["image"].rpartition(":")[2])
    assert config["Labels"]["org.opencontainers.image.title"] == f"{shop.mark}-up"
    listed = docker(
        "run", "--rm", "--read-only", made["image"], "sh", "-c", "id -u; cat secret; ls -a; touch x || echo ro"
    )
    assert listed.startswith("65532\nnot for everybody")
    assert ".git" not in listed
    assert listed.endswith("ro")


def test_the_same_outputs_as_a_process(shop: Workshop, connector: Connector) -> None:
    shop.processor()
    file = shop.pipeline("up")
    out = shop.folder / "out"
    text = file.read_text()
    connector.run(text).completed()
    assert out.read_text() == "A\nB\nC\n"
    out.unlink()
    missing = connector.run(text, "--home", "container")
    assert missing.code == 3, str(missing)
    assert "connector build" in missing.stderr
    build(connector)
    result = connector.run(text, "--home", "container")
    result.completed()
    assert out.read_text() == "A\nB\nC\n"


def test_libraries_are_installed(shop: Workshop, connector: Connector) -> None:
    shop.processor(
        requirements_txt="tomli_w==1.2.0\n", up_py="import tomli_w\nprint(tomli_w.dumps({'a': 1}), end='')\n"
    )
    shop.pipeline("up")
    result = connector.command("build", "--format", "json", limit_s=100)
    if result.code and re.search(r"resolution|connection|timed out|No matching distribution", result.stderr):
        pytest.skip("no package index can be reached from a build here")
    assert result.code == 0, str(result)
    (made,) = json.loads(result.stdout)
    assert docker("run", "--rm", "--read-only", made["image"]) == "a = 1"


def test_node_with_a_package_of_its_own(shop: Workshop, connector: Connector) -> None:
    need_image("node:20-trixie-slim")
    folder = shop.processor(
        "js", {"command": ["node", "main.js"]},
        main_js='console.log(require("dep"))', package_json='{"dependencies": {"dep": "file:./dep"}}',
    )  # fmt: skip
    (folder / "dep").mkdir()
    (folder / "dep/package.json").write_text('{"name": "dep", "version": "1.0.0", "main": "it.js"}')
    (folder / "dep/it.js").write_text('module.exports = "from dep"')
    shop.pipeline("js")
    (made,) = built(connector)
    assert docker("run", "--rm", "--read-only", made["image"]) == "from dep"


def test_a_static_program_needs_nothing_else(shop: Workshop, connector: Connector, tmp_path: Path) -> None:
    need_image("debian:trixie-slim")
    folder = shop.processor("st", {"command": ["./hello"]})
    (folder / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    compiled = subprocess.run(["cc", "-static", "-o", folder / "hello", folder / "hello.c"], check=False)
    if compiled.returncode != 0:
        pytest.skip("no C compiler that links statically")
    shop.pipeline("st")
    (made,) = built(connector)
    assert docker("run", "--rm", "--read-only", made["image"]) == "hello"
    assert made["size_bytes"] < 8 << 20
    files = docker("run", "--rm", "--read-only", "--entrypoint", "./hello", made["image"])
    assert files == "hello"


def test_a_base_that_has_changed_is_noticed(shop: Workshop, connector: Connector) -> None:
    base = f"{shop.mark}-base:1"
    for text in ("one", "two"):
        (shop.folder / "base").mkdir(exist_ok=True)
        (shop.folder / "base/Dockerfile").write_text(f"FROM {PYTHON}\nENV SAYS={text}\n")
        docker("build", "--quiet", "--tag", base, str(shop.folder / "base"))
        if text == "one":
            shop.processor(keys={"build": {"base": base}}, up_py="import os\nprint(os.environ['SAYS'])\n")
            shop.pipeline("up")
            names = {built(connector)[0]["image"]}
            assert built(connector)[0]["state"] == "up to date"
    (made,) = built(connector)
    assert made["state"] == "built"
    assert names == {made["image"]}
    assert docker("run", "--rm", made["image"]) == "two"
    assert built(connector)[0]["state"] == "up to date"


def test_a_dockerfile_of_its_own(shop: Workshop, connector: Connector) -> None:
    keys = {"build": {"dockerfile": "Dockerfile", "target": "last", "args": {"WORD": "given"}}}
    text = (
        f"FROM {PYTHON} AS first\nRUN exit 1\n"
        f'FROM {PYTHON} AS last\nARG WORD=default\nENV WORD=$WORD\nCOPY . /here\nENTRYPOINT ["sh", "-c"]\n'
        'CMD ["cat /here/note; echo $WORD"]\n'
    )
    folder = shop.processor(keys=keys, Dockerfile=text.replace("RUN exit 1\n", ""), note="noted ")
    (folder / ".dockerignore").write_text("up.py\n")
    shop.pipeline("up")
    (made,) = built(connector)
    assert docker("run", "--rm", "--read-only", made["image"]) == "noted given"
    assert "up.py" not in docker("run", "--rm", made["image"], "ls -a /here")


def test_a_step_that_fails_shows_its_last_lines(shop: Workshop, connector: Connector) -> None:
    loop = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i; done; sleep 0.3; echo why \x1b[31m>&2; exit 7"
    shop.processor(keys={"build": {"dockerfile": "Dockerfile"}}, Dockerfile=f"FROM {PYTHON}\nRUN {loop}\n")
    shop.processor("fine", {"command": ["python3", "fine.py"]})
    shop.pipeline("fine", "up")
    result = build(connector, code=1)
    assert "connector: p1: the image connector/" in result.stderr
    assert "ended with exit status 7; its last lines:" in result.stderr
    shown = re.findall(r"^    line (\d+)$", result.stderr, re.MULTILINE)
    assert shown == [str(number) for number in range(12, 31)], "20 lines, the last of which is the reason"
    assert "why" in result.stderr
    assert "\x1b" not in result.stderr
    going = docker("ps", "--no-trunc", "--format", "{{.Command}}")
    assert "echo why" not in going, "nothing of the failed step goes on"


@pytest.mark.parametrize(
    ("keys", "files", "said"),
    [
        ({"command": ["jq", "."]}, {}, ['nothing tells the language of "jq"', "[build]", "packages = "]),
        ({"build": {"dockerfile": "Nowhere"}}, {}, ["Nowhere is not there"]),
        ({"build": {"context": "nowhere", "dockerfile": "Dockerfile"}}, {"Dockerfile": "FROM x"}, ["is no folder"]),
        ({"build": {"language": "static", "packages": ["jq"]}}, {}, ["packages cannot be installed", "base = "]),
    ],
)
def test_what_cannot_be_built_says_what_to_write(
    keys: dict[str, Any], files: dict[str, str], said: list[str], shop: Workshop, connector: Connector
) -> None:
    shop.processor(keys=keys, **files)
    shop.pipeline("up")
    (shop.folder / "tools").mkdir()
    result = build(connector, code=2)
    assert all(each in result.stderr for each in said), str(result)


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FROM no.invalid/x:1\n", "base no.invalid/x:1"),
        ("NONSENSE\n", "the engine says: "),
        (f"FROM {PYTHON}\nCOPY gone /\n", "COPY gone /"),
        ("", "the engine says: "),
    ],
)
def test_a_dockerfile_that_is_wrong(dockerfile: str, said: str, shop: Workshop, connector: Connector) -> None:
    shop.processor(keys={"build": {"dockerfile": "Dockerfile"}}, Dockerfile=dockerfile)
    shop.pipeline("up")
    assert said in build(connector, code=1).stderr


def test_a_link_out_of_the_folder_stays_a_link(shop: Workshop, connector: Connector) -> None:
    folder = shop.processor()
    (shop.folder / "private").write_text("of this machine")
    (folder / "link").symlink_to("../private")
    shop.pipeline("up")
    (made,) = built(connector)
    assert docker("run", "--rm", made["image"], "readlink", "link") == "../private"
    docker("run", "--rm", made["image"], "cat", "link", code=1)


def test_nothing_to_build(connector: Connector) -> None:
    connector.write({"processors": {"a": {"command": ["true"]}}})
    result = connector.command("build")
    assert (result.code, result.stderr) == (0, ""), str(result)
    assert "nothing to build" in result.stdout


def test_without_an_engine(tmp_path: Path, connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine.sock")
    shop = Workshop(tmp_path)
    shop.processor()
    shop.pipeline("up")
    result = build(connector, code=3)
    assert "no engine" in result.stderr
    assert "DOCKER_HOST" in result.stderr


def test_an_interrupted_build_leaves_nothing_running(shop: Workshop, connector: Connector) -> None:
    mark = f"sleep 50{shop.mark[-4:].translate(str.maketrans('abcdef', '123456'))}"
    shop.processor(keys={"build": {"dockerfile": "Dockerfile"}}, Dockerfile=f"FROM {PYTHON}\nRUN {mark}\n")
    shop.pipeline("up")

    def sleeping() -> list[str]:
        asked = ["ps", "--no-trunc", "--format", "{{.Command}}"]
        return [line for line in docker(*asked).splitlines() if mark in line]

    with Running([*connector.runner, "build"], connector.folder, None, {}) as running:
        until(sleeping, "the step to run", within_s=60)
        running.signal(signal.SIGINT)
        result = running.finish(10)
    assert result.code == 130, str(result)
    result.expect_no_traceback()
    until(lambda: not sleeping(), "the engine to give up", within_s=30)
    assert shop.images() == []
