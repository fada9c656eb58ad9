"""`bridge = "zeromq"` as a user meets it: pyzmq in every home, Node's `zeromq`, kills in the middle, dead runners."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.launch.sockets import bases
from tests.children.build import HERE, script, sink, source
from tests.conftest import need_image, need_program
from tests.e2e.connector import PYTHON_IMAGE, Connector, Result, chain, until
from tests.e2e.test_ends import numbers

SWIFT = {"backoff": "0s", "limit": "1000 in 60s"}
SYSTEM_PYTHON = "/usr/bin/python3"
INSTALL_LIMIT_S = 120
COUNT = 1000


@dataclass(frozen=True)
class Place:
    """A home with a Python and a pyzmq that fits it: what is added to a processor there, and its Python."""

    keys: dict[str, Any]
    python: str

    def processor(self, folder: Path, program: str, *arguments: object, **more: Any) -> dict[str, Any]:
        """The processor that runs one of the programs in `folder`."""
        command = [self.python, f"{folder}/{program}.py", *map(str, arguments)]
        keys = {**self.keys, "command": command, "bridge": "zeromq", "restart": SWIFT} | more
        if "mounts" in keys:
            keys["mounts"] = [*keys["mounts"], str(folder)]
        keys["env"] = {**self.keys.get("env", {}), **more.get("env", {})}
        return keys


@pytest.fixture(scope="session")
def pyzmq() -> Iterator[Callable[[str], Path]]:
    """A folder with the pyzmq of a Python version, which every user of this machine can reach."""
    made: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="connector-pyzmq-") as base:
        Path(base).chmod(0o755)

        def install(version: str) -> Path:
            if version not in made:
                folder = Path(base, version)
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--no-deps"]
                command += ["--python-version", version, "--only-binary=:all:", "pyzmq"]
                tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S)
                if tried.returncode != 0:
                    pytest.skip(f"no pyzmq for Python {version} is to be had: {tried.stderr.strip()[-200:]}")
                made[version] = folder
            return made[version]

        yield install


def version_of(python: str) -> str:
    if not Path(python).exists():
        pytest.skip(f"there is no {python}, which untrusted programs could see")
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True, timeout=20).stdout.strip()


@pytest.fixture(
    params=[
        "process",
        "sandbox",
        "sandbox-untrusted",
        pytest.param("container", marks=pytest.mark.engine),
        pytest.param("container-untrusted", marks=pytest.mark.engine),
    ]
)
def place(request: pytest.FixtureRequest, pyzmq: Callable[[str], Path]) -> Place:
    """Every home."""
    home = request.param
    if home == "process":
        return Place({}, sys.executable)
    keys: dict[str, Any] = {"network": "none", "trust": "untrusted" if home.endswith("untrusted") else "trusted"}
    if home.startswith("container"):
        request.getfixturevalue("engine")
        need_image(PYTHON_IMAGE)
        packages = pyzmq("3.13")
        keys |= {"image": PYTHON_IMAGE, "pull": "never"}
        return Place({**keys, "mounts": [str(packages)], "env": {"PYTHONPATH": str(packages)}}, "python3")
    request.getfixturevalue("bubblewrap")
    packages = pyzmq(version_of(SYSTEM_PYTHON))
    return Place({**keys, "mounts": [str(packages)], "env": {"PYTHONPATH": str(packages)}}, SYSTEM_PYTHON)


@pytest.fixture
def programs(open_folder: Path) -> Path:
    """The programs, where every user can reach them."""
    for name in ("sockets", "acknowledges"):
        shutil.copy(HERE / f"{name}.py", open_folder)
        (open_folder / f"{name}.py").chmod(0o644)
    return open_folder


def through(tmp_path: Path, middle: dict[str, Any], count: int = COUNT) -> Result:
    first = {"command": source(count), "resume": "skip"}
    return Connector(tmp_path).run(chain(source=first, middle=middle, sink=sink(tmp_path / "out")))


def test_plain_sockets_in_every_home(place: Place, programs: Path, tmp_path: Path) -> None:
    end = "empty" if place.keys.get("trust") == "trusted" else "signal"
    middle = place.processor(programs, "sockets", "echo", end=end, env={"TEST_END": end}, stop={"grace": "20s"})
    result = through(tmp_path, middle)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, COUNT + 1))
    assert result.account("c1", "middle") == {"written": COUNT, "acknowledged": COUNT}


def test_the_protocol_over_a_dealer_in_every_home(place: Place, programs: Path, tmp_path: Path) -> None:
    """Killed by itself between output and `ack`, again and again: nothing is lost and nothing doubled."""
    middle = place.processor(programs, "acknowledges", "echo", 1, 400, contract="acknowledged")
    result = through(tmp_path, middle)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, COUNT + 1))
    assert result.account("c1", "middle") == {"written": COUNT, "acknowledged": COUNT}
    assert result.processor("middle")["restarts"] >= 2


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def grown(file: Path, before: int) -> bool:
    return size_of(file) > before


def test_kills_from_outside_cost_what_was_sent(tmp_path: Path) -> None:
    """Nothing doubled, nothing out of order, and the account says how many may be missing."""
    count, out = 20_000, tmp_path / "out"
    command = script("sockets", "echo")
    middle = {"command": command, "bridge": "zeromq", "end": "empty", "in_flight": {"bytes": "4KiB"}}
    middle |= {"restart": SWIFT, "env": {"TEST_END": "empty"}}
    pipeline = chain(
        {"c1": {"capacity": "64KiB"}, "c2": {"capacity": "64KiB"}},
        source=source(count, "--rate", 8000),
        middle=middle,
        sink=sink(tmp_path / "out"),
    )
    with Connector(tmp_path).start(pipeline) as running:
        for _ in range(3):
            seen = size_of(out)
            until(partial(grown, out, seen), "progress", 60.0)
            running.program(command).kill()
        result = running.finish()
    result.completed()
    found = numbers(tmp_path / "out")
    assert found == sorted(set(found))
    account = result.account("c1", "middle")
    assert account["written"] == count == account.get("acknowledged", 0) + account.get("indeterminate", 0)
    assert count - len(found) <= account["indeterminate"] < count
    assert result.processor("middle")["restarts"] == 3


def test_nothing_is_left_of_endpoints(tmp_path: Path) -> None:
    """Not after a run, and after SIGKILL of the runner not after the next one."""
    middle = {"command": script("sockets", "never-connects"), "bridge": "zeromq"}
    pipeline = chain(source=source(10), middle=middle, sink=sink(tmp_path / "out"))

    def folders(pid: int) -> list[Path]:
        found = [path for base in bases(os.environ) if base.is_dir() for path in base.glob("connector-*")]
        return [path for path in found if f"-{pid}-" in path.name]

    with Connector(tmp_path).start(pipeline) as running:
        until(lambda: folders(running.pid), "the endpoints", 60.0)
        pid = running.pid
        running.process.kill()
        running.process.wait()
    with Connector(tmp_path).start(pipeline) as running:
        until(lambda: folders(running.pid), "the endpoints", 60.0)
        assert not folders(pid)
        running.signal(15)
        running.signal(15)
        running.finish()
        assert not folders(running.pid)


NODE_PROGRAM = """
import * as zmq from "zeromq";
const pull = new zmq.Pull(), push = new zmq.Push();
pull.connect(process.env.CONNECTOR_READER_STDIN);
push.connect(process.env.CONNECTOR_WRITER_STDOUT);
for await (const [message] of pull) {
  if (message.length === 0) break;
  await push.send(message);
}
pull.close();
push.close();
"""


@pytest.fixture(scope="session")
def node_modules() -> Iterator[Path]:
    """A folder with Node's `zeromq`, whose package brings its binaries."""
    need_program("node")
    npm = need_program("npm")
    with tempfile.TemporaryDirectory(prefix="connector-node-") as base:
        Path(base, "package.json").write_text(json.dumps({"name": "test", "type": "module"}))
        tried = subprocess.run(
            [npm, "install", "--silent", "zeromq@6"],
            cwd=base, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S,
        )  # fmt: skip
        if tried.returncode != 0:
            pytest.skip(f"npm cannot install zeromq: {tried.stderr.strip()[-200:]}")
        asked = subprocess.run(
            ["node", "-e", 'require("zeromq")'], cwd=base, capture_output=True, text=True, check=False, timeout=60
        )
        if asked.returncode != 0:
            pytest.skip(f"zeromq does not load here: {asked.stderr.strip()[-200:]}")
        yield Path(base)


def test_a_node_program(node_modules: Path, tmp_path: Path) -> None:
    program = node_modules / "program.mjs"
    program.write_text(NODE_PROGRAM)
    middle = {"command": ["node", str(program)], "bridge": "zeromq", "end": "empty"}
    result = through(tmp_path, middle)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, COUNT + 1))
