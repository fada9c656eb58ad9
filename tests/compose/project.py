"""One of the projects under compose/, brought up from a copy of its own, and what a person does to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

PROJECTS = Path(__file__).resolve().parents[2] / "compose"
UP_LIMIT_S = 120
END_LIMIT_S = 150
_ASK_EVERY_S = 0.3


@dataclass
class Project:
    """A project in `folder`; `environment` is what its variables come from."""

    folder: Path
    environment: dict[str, str]
    name: str = field(default_factory=lambda: f"connector-test-{uuid.uuid4().hex[:8]}")

    def compose(self, *words: str, limit_s: float = 60, code: int | None = 0) -> str:
        """What `docker compose` prints; `code` None: whatever it ends with."""
        done = subprocess.run(
            ["docker", "compose", "--progress", "quiet", *words],
            cwd=self.folder,
            env={**os.environ, **self.environment, "COMPOSE_PROJECT_NAME": self.name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
        assert code is None or done.returncode == code, (
            f"docker compose {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.told()}"
        )
        return done.stdout

    def told(self) -> str:
        """All logs, for a failure."""
        done = subprocess.run(
            ["docker", "compose", "logs", "--no-color", "--timestamps"],
            cwd=self.folder,
            env={**os.environ, **self.environment, "COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout[-12_000:]

    def up(self) -> None:
        """Bring it up, in the background."""
        self.compose("up", "--detach", "--no-build", limit_s=UP_LIMIT_S)

    def change(self, service: str, **environment: str) -> None:
        """Bring one service up anew with other values of these variables."""
        self.environment |= environment
        self.compose("up", "--detach", "--no-build", "--no-deps", service, limit_s=UP_LIMIT_S)

    def states(self) -> dict[str, tuple[str, int]]:
        """The state of each container, by service and number, and its exit code."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines if line]
        return {each["Name"].removeprefix(f"{self.name}-"): (each["State"], each["ExitCode"]) for each in found}

    def logs(self, service: str) -> str:
        """What a service has said."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = END_LIMIT_S) -> None:
        """Wait for what no event tells."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {limit_s} s\n{self.told()}"
            time.sleep(_ASK_EVERY_S)

    def until_ended(self, *services: str, limit_s: float = END_LIMIT_S) -> None:
        """Wait until all these containers have ended with 0."""
        self.until(
            lambda: all(self.states().get(f"{service}-1") == ("exited", 0) for service in services),
            f"the end of {', '.join(services)}",
            limit_s,
        )

    def init_of(self, service: str, number: int = 1) -> int:
        """The process of this machine that is PID 1 in a container; 0: it does not run."""
        return self._inspected(service, number, "{{.State.Pid}}")

    def restarts_of(self, service: str) -> int:
        """How often the engine has started it again."""
        return self._inspected(service, 1, "{{.RestartCount}}")

    def up_for_s(self, service: str) -> float:
        """How long it has been running, in seconds; 0: it does not run."""
        running, started = self._asked(service, 1, "{{.State.Running}} {{.State.StartedAt}}").split() or ("false", "")
        if running != "true":
            return 0
        since = datetime.fromisoformat(started[:26].rstrip("Z")).replace(tzinfo=UTC)  # nanoseconds are too fine for it
        return (datetime.now(UTC) - since).total_seconds()

    def _inspected(self, service: str, number: int, what: str) -> int:
        return int(self._asked(service, number, what) or 0)

    def _asked(self, service: str, number: int, what: str) -> str:
        command = ["docker", "inspect", "--format", what, f"{self.name}-{service}-{number}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout

    def kill_container(self, service: str) -> bool:
        """SIGKILL its first process, from this machine; False: there was none."""
        return _killed(self.init_of(service))

    def kill_program(self, service: str) -> bool:
        """SIGKILL what its first process has started; False: there was nothing."""
        init = self.init_of(service)
        children = Path(f"/proc/{init}/task/{init}/children")
        try:
            programs = children.read_text().split() if init else []
        except OSError:
            return False
        return sum(_killed(int(program)) for program in programs) > 0

    def running(self, *services: str) -> bool:
        """Whether all of them run."""
        states = self.states()
        return all(states.get(f"{service}-1", ("", 0))[0] == "running" for service in services)


def _killed(pid: int) -> bool:
    if pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def project(name: str, folder: Path, **environment: str) -> Iterator[Project]:
    """The project `name`, copied into `folder`; all of it is removed at the end."""
    copy = folder / "compose"
    shutil.copytree(PROJECTS, copy)
    for out in copy.glob("*/out"):
        out.chmod(0o777)
    for parent in (copy, *copy.parents):
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(folder):
            parent.chmod(parent.stat().st_mode | 0o055)
    made = Project(copy / name, environment)
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "1", limit_s=120, code=None)
