"""A pipeline in which a hostile processor runs beside a trusted neighbour, and what is looked at when it is over.

    source -> echo (one-to-one) -> sink        the neighbour: goes on until the file `stop` is there
    guide -> hostile -> told-hostile           what it is told (facts, one line) and what it tells

There may be several hostile ones, each with its sink. Everything is in one folder that every user can reach; the
hostile ones get three parts of it as mounts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner.launch.sockets import bases
from runner.plan.identity import instance_uid
from tests.children.build import script, sink, source
from tests.conftest import has_image, without
from tests.e2e.connector import Connector, Result, Running, until
from tests.e2e.test_ends import numbers
from tests.engine import docker
from tests.hostile.outside import IMAGE, kill, processes_of_user, processes_with

PROGRAMS = Path(__file__).parent / "programs"
HOMES = ("sandbox", "container")
Spec = Mapping[str, Any]
RATE_PER_S = 2000
MIB = 1 << 20
RUNNER_PEAK_BYTES = 120 * MIB
SYSTEM_PYTHON = Path("/usr/bin/python3")

GUIDE = """
import os, pathlib, sys, time
facts, stop = map(pathlib.Path, sys.argv[1:3])
while not facts.exists() and not stop.exists():
    time.sleep(0.005)
os.write(1, facts.read_bytes() if facts.exists() else b"{}\\n")
while not stop.exists():
    time.sleep(0.005)
"""


@dataclass
class Arena:
    """The folder of one run, its names, its pipeline. `mark` is in the command line of all that is hostile."""

    folder: Path
    home: str
    names: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: f"token-{secrets.token_hex(16)}")
    mark: str = field(default_factory=lambda: f"hostile-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        self.programs = self._made("programs")
        self.shared = self._made("shared", 0o777)
        self.readonly = self._made("readonly", 0o777)
        self.canary = self._made("canary")
        self.sockets = self._made("sockets", 0o777)
        self.work = self._made("work")
        self.temporary = self._made("t")
        self.out = self.work / "out"
        self.stop = self.work / "stop"
        self.facts = self.work / "facts"
        self.total = self.work / "total"
        (self.canary / "secret").write_text(self.token)
        (self.readonly / "file").write_text("as it was")
        (self.readonly / "file").chmod(0o666)
        for file in PROGRAMS.glob("*.py"):
            shutil.copy(file, self.programs)
        for file in self.programs.iterdir():
            file.chmod(0o755)

    def _made(self, name: str, mode: int = 0o755) -> Path:
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)
        return folder

    @property
    def pipeline_name(self) -> str:
        """Nobody else's, so that what carries it is this run's."""
        return self.mark

    def seen(self, name: str) -> str:
        """Where the hostile processor sees the part of this name."""
        if self.home == "process":
            return str(self.folder / name)
        return {"programs": "/hostile", "shared": "/shared", "readonly": "/readonly"}[name]

    def python(self, program: str, *arguments: object) -> list[str]:
        """The command of one of the programs, with the mark as its first argument."""
        interpreter = {"process": sys.executable, "sandbox": str(SYSTEM_PYTHON), "container": "python3"}[self.home]
        return [interpreter, "-u", f"{self.seen('programs')}/{program}.py", self.mark, *map(str, arguments)]

    def placed(self, command: list[str], **more: Any) -> dict[str, Any]:
        """A processor of the arena's home with that command: untrusted, but for the home "process"."""
        spec: dict[str, Any] = {"command": command, "restart": "never", "continue_on_error": True}
        spec["stop"] = {"grace": "500ms"}
        if self.home == "container":
            spec |= {"image": IMAGE, "pull": "never"}
        if self.home != "process":
            spec["trust"] = "untrusted"
            spec["mounts"] = [
                f"{self.programs}:{self.seen('programs')}",
                f"{self.shared}:{self.seen('shared')}:rw",
                f"{self.readonly}:{self.seen('readonly')}",
            ]
        return spec | more

    def pipeline(self, hostile: Mapping[str, Spec], more: Mapping[str, Spec]) -> dict[str, Any]:
        """See the module; `hostile` by name, `more` are added as they are."""
        writing = source(None, "--until", self.stop, "--total", self.total, "--rate", RATE_PER_S)
        guide = [sys.executable, "-c", GUIDE, str(self.facts), str(self.stop)]
        env = {"NEIGHBOUR_SECRET": self.token}
        echo = {"command": script("echo"), "reads": "c1", "writes": "c2", "contract": "one-to-one", "env": env}
        processors: dict[str, Any] = {
            "source": {"command": writing, "writes": "c1"},
            "echo": echo,
            "sink": {"command": sink(self.out), "reads": "c2"},
            "guide": {"command": guide, "writes": "facts"},
        }
        for name, spec in hostile.items():
            processors[name] = {"reads": "facts", "writes": f"told-{name}"} | dict(spec)
            told = {"command": sink(self.told(name)), "reads": f"told-{name}"}
            processors[f"told-{name}"] = told | ({"codec": spec["codec"]["stdout"]} if "codec" in spec else {})
        if all(each.get("reads") != "facts" for each in processors.values()):
            del processors["guide"]
        return {"name": self.pipeline_name, "drain": "2s", "processors": processors | dict(more)}

    def start(
        self,
        hostile: Mapping[str, Spec],
        *options: str,
        more: Mapping[str, Spec] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> Running:
        """Start `connector run` with these hostile processors; what it keeps for itself goes into `temporary`."""
        environment = {"TMPDIR": str(self.temporary), "CONNECTOR_HOSTILE_SECRET": self.token}
        self.names = list(hostile)
        pipeline = self.pipeline(hostile, more or {})
        return Connector(self.work).start(pipeline, *options, environment=environment, wrapper=wrapper)

    def told(self, name: str = "hostile") -> Path:
        """The file with what a hostile processor has told."""
        return self.work / f"told-{name}"

    def go(self, **facts: Any) -> None:
        """Tell the hostile processors the facts, and with that to begin."""
        part = self.facts.with_suffix(".part")
        part.write_text(json.dumps(facts) + "\n")
        part.rename(self.facts)

    # -- while it runs

    def lines(self, name: str = "hostile") -> list[str]:
        """What a hostile processor has told so far, whole lines."""
        file = self.told(name)
        return file.read_text(errors="replace").split("\n")[:-1] if file.exists() else []

    def until(self, running: Running, condition: Callable[[], object], what: str, within_s: float = 30.0) -> None:
        """Wait for what the run is to bring about; fails when it ends first."""
        due = time.monotonic() + within_s
        while not condition():
            if running.process.poll() is not None and not condition():
                raise AssertionError(f"the run ended before {what}: {running.finish()}")
            assert time.monotonic() < due, f"{within_s} s in vain for {what}\n{running.output()[-4000:]}"
            time.sleep(0.02)  # each look goes through /proc

    def until_told(self, running: Running, name: str, line: str) -> None:
        """Wait until a hostile processor has said this."""
        self.until(running, lambda: line in self.lines(name), f"{line!r} of {name}")

    def until_up(self, running: Running) -> None:
        """Wait until every hostile processor has been started and the neighbour is at work."""

        def up() -> bool:
            output = running.output()
            names = ("sink", *self.names)
            return self.out_bytes() > 0 and all(re.search(rf" {name}\[1\] +started: ", output) for name in names)

        self.until(running, up, "all of them to start")

    def out_bytes(self) -> int:
        """How much the neighbour has brought to its sink."""
        return self.out.stat().st_size if self.out.exists() else 0

    def until_neighbour_went_on(self, running: Running, messages: int = 1500) -> None:
        """Wait until the neighbour has brought so many more messages to its sink."""
        due = self.out_bytes() + messages * 101
        self.until(running, lambda: self.out_bytes() >= due, "the neighbour went on", 10.0)

    def pids(self, program: str = "") -> list[int]:
        """The processes of hostile programs as this machine sees them; of one, where `program` is in the arguments."""
        return [pid for pid in processes_with(self.mark) if program in arguments_of(pid)]

    # -- afterwards

    def check_neighbour(self, result: Result, least: int = 1000) -> None:
        """Everything that the trusted source wrote has arrived, in order, and no trusted program was restarted."""
        sent = int(self.total.read_text())
        assert numbers(self.out) == list(range(1, sent + 1)), str(result)
        assert sent >= least, f"the neighbour brought {sent} messages only\n{result}"
        assert result.report is not None
        for name in {"source", "echo", "sink", "guide"} & result.report["processors"].keys():
            report = result.report["processors"][name]
            assert (report["state"], report["restarts"]) == ("exited", 0), f"{name}\n{result}"
        for channel, reader in (("c1", "echo"), ("c2", "sink")):
            assert result.account(channel, reader) == {"written": sent, "acknowledged": sent}, str(result)

    def check_runner(self, result: Result) -> None:
        """Its memory stayed bounded, and nothing fell over."""
        assert result.report is not None, str(result)
        assert result.report["supervisor"]["peak_rss_bytes"] < RUNNER_PEAK_BYTES, str(result)
        result.expect_no_traceback()

    def check_host(self) -> None:
        """Nothing outside of the shared folder was changed."""
        assert contents(self.canary) == {"secret": self.token}
        assert contents(self.readonly) == {"file": "as it was"}

    def left(self, runner: int) -> list[str]:
        """What is left of the run: processes, containers, control groups, mounts, files."""
        found = [f"process {pid}" for pid in processes_with(self.mark)]
        if os.geteuid() == 0 and self.home != "process":
            for name in (*self.names, "bystander"):
                uid = instance_uid(self.pipeline_name, name, 1)
                found += [f"process {pid} of user {uid}" for pid in processes_of_user(uid)]
        if self.home == "container":
            found += docker(
                "ps",
                "--all",
                "--filter",
                f"label=connector.pipeline={self.pipeline_name}",
                "--format",
                "container {{.ID}}",
            ).split("\n")
        found += [f"control group {path}" for path in control_groups(runner)]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if str(self.folder) in line]
        found += [f"file {path}" for path in (*self.temporary.rglob("*"), *private_folders(runner))]
        return [each for each in found if each]

    def check_nothing_left(self, running: Running, within_s: float = 0.0) -> None:
        """Nothing is left of the run, at once or in so many seconds."""
        if within_s:
            until(lambda: not self.left(running.pid), f"nothing to be left, but: {self.left(running.pid)}", within_s)
        left = self.left(running.pid)
        assert not left, left

    def clean(self) -> None:
        """Take away what a failed run may have left, and the folder."""
        kill(processes_with(self.mark))
        if self.home == "container":
            filtered = f"label=connector.pipeline={self.pipeline_name}"
            for container in docker("ps", "--all", "--quiet", "--filter", filtered).split():
                docker("rm", "--force", "--volumes", container)
        shutil.rmtree(self.folder, ignore_errors=True)


def control_groups(runner: int) -> list[str]:
    """The control groups that a runner has made, wherever they are; others may come and go meanwhile."""
    name = re.compile(rf"connector-\d+-{runner}-\d+")
    walk = os.walk("/sys/fs/cgroup")
    return [f"{folder}/{each}" for folder, inside, _ in walk for each in inside if name.fullmatch(each)]


def private_folders(runner: int) -> list[Path]:
    """Where a runner keeps its sockets."""
    return [each for base in bases(os.environ) for each in base.glob(f"connector-*-{runner}-*")]


def arguments_of(pid: int) -> str:
    """Its command line, words between spaces; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def contents(folder: Path) -> dict[str, str | None]:
    """What a folder holds; None for what is no regular file."""
    return {
        each.name: each.read_text() if each.is_file() and not each.is_symlink() else None for each in folder.iterdir()
    }


@contextlib.contextmanager
def arena(home: str) -> Iterator[Arena]:
    """An arena for this home; skips where the home's python is missing."""
    if home == "sandbox" and not SYSTEM_PYTHON.exists():
        without(f"there is no {SYSTEM_PYTHON} that a sandbox would see")
    if home == "container" and not has_image(IMAGE):
        without(f"the engine has no image {IMAGE}")
    made = Arena(Path(tempfile.mkdtemp(prefix="hostile-", dir="/tmp")), home)
    try:
        yield made
    finally:
        made.clean()


def answers(arena: Arena) -> dict[str, dict[str, Any]]:
    """The answers to attempts, by name."""
    lines = [json.loads(line) for line in arena.lines()]
    return {each["attempt"]: each for each in lines}


def failure(check: Callable[[], object]) -> str | None:
    """What a check says; None when it holds. So that each becomes a test of its own."""
    try:
        check()
    except AssertionError as error:
        return str(error) or repr(error)
    return None


# -- homes as parameters of tests


def need(request: pytest.FixtureRequest, home: str | None = None) -> None:
    """Skip (or fail, where nothing may be missing) without what the home needs; by default that of a fixture."""
    needed = {"container": "engine", "sandbox": "bubblewrap"}.get(home or request.param)
    if needed is not None:
        request.getfixturevalue(needed)


def homes(*names: str) -> list[Any]:
    """Parameters, marked with what they need."""
    return [pytest.param(name, marks=[pytest.mark.engine] if name == "container" else []) for name in names]


def walled(fixture: str, *names: str) -> pytest.MarkDecorator:
    """A test of a fixture that makes one run per home; by default of those that wall off."""
    return pytest.mark.parametrize(fixture, homes(*(names or HOMES)), indirect=True, scope="module")
