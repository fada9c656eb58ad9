"""A Docker engine of a test's own, to be killed and started again: it shares nothing with the machine's.

Only root can start one, and only where dockerd is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.launch.owner import started
from tests.conftest import without
from tests.engine import docker

START_S = 60.0
STOP_S = 40.0


class PrivateEngine:
    """See the module. `host` is its DOCKER_HOST."""

    def __init__(self, folder: Path, *, live_restore: bool) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        folder = self.folder
        self._forget_the_dead()
        command = [
            *("unshare", "--net"),  # with --bridge=none it would take docker0 from the machine's own engine
            "dockerd",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/docker.pid",
            f"--host={self.host}",
            f"--config-file={folder}/daemon.json",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            f"--live-restore={'true' if self._live_restore else 'false'}",
        ]
        (folder / "daemon.json").write_text("{}")
        with Path(folder, "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not docker("version", "--format", "{{.Server.Version}}", host=self.host, code=None):
            if self._process.poll() is not None or time.monotonic() > deadline:
                without(f"no engine of one's own can be started: {Path(folder, 'log').read_text()[-2000:]}")
            time.sleep(0.05)  # it tells nobody when it is there

    def _forget_the_dead(self) -> None:
        """Of a killed engine, which takes a zombie that nobody reaps for a containerd that lives."""
        file = self.folder / "exec/containerd/containerd.pid"
        if file.exists():
            deadline = time.monotonic() + STOP_S
            while started(int(file.read_text())) is not None and time.monotonic() < deadline:
                time.sleep(0.01)  # it is killed with its parent, and that takes a moment
            file.unlink()
        (self.folder / "docker.pid").unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Have it end in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it with all of its containers, and whatever it has started."""
        containers = docker("ps", "-aq", host=self.host, code=None).split()
        if containers:
            docker("rm", "-f", *containers, host=self.host, code=None)
        self.stop()
        for pid in self._helpers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in self._mounts():
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _helpers(self) -> list[int]:
        """Processes that were started on behalf of this engine: its folder is in their arguments."""
        mark = os.fsencode(self.folder)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def _mounts(self) -> list[str]:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in reversed(points) if point.startswith(str(self.folder))]


@contextlib.contextmanager
def private_engine(*, live_restore: bool) -> Iterator[PrivateEngine]:
    """One that is running; gone at the end."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        without("an engine of one's own needs root and dockerd")
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="ce-", dir="/tmp")), live_restore=live_restore)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def own_engine() -> Iterator[PrivateEngine]:
    """An engine that takes its containers with it when it ends."""
    with private_engine(live_restore=False) as engine:
        yield engine


@pytest.fixture
def lasting_engine() -> Iterator[PrivateEngine]:
    """An engine whose containers live on while it is away."""
    with private_engine(live_restore=True) as engine:
        yield engine
