"""Shims that stay, as plain processes: what containers are to an attached home, without an engine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from runner.launch.attached import AttachedLauncher
from runner.launch.base import LaunchContext
from runner.spec.model import Processor

DEADLINE_S = 20.0
PLACE = "PLACE_OF_THE_TEST"
"""Where bridge folders are, for one that will be killed before it can remove them; short."""


_LIBC = ctypes.CDLL(None)


def _stop_with_the_tests() -> None:
    """It is asked to stop when who started it dies, or it would stay for ever (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, int(signal.SIGTERM), 0, 0, 0)


class Shims:
    """Bridge folders in a place of their own, and the shims that were started for them."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="ct-", dir=os.environ.get(PLACE, "/tmp"))
        self.path = Path(self._place.name)
        self.all: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self, name: str, wrap: Callable[[list[str]], list[str]] = list, log: int | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        """A container of `name`, as far as a process can be one; its folder must be there."""
        folder = self.path / name
        environment = {"PATH": os.environ["PATH"], **variables}
        command = wrap([str(folder / "connector-shim"), "--stay", str(folder / "shim.sock")])
        self.all.append(
            subprocess.Popen(
                command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=_stop_with_the_tests,  # noqa: PLW1509 - one system call
            )
        )
        return self.all[-1]

    def close(self) -> None:
        """End them all."""
        for shim in self.all:
            shim.kill()
            shim.wait()
        self._place.cleanup()


class WithShims(AttachedLauncher):
    """The attached home with a shim for each instance."""

    def __init__(self, context: LaunchContext) -> None:
        self.shims = Shims()
        super().__init__(
            LaunchContext(
                context.run,
                context.pipeline,
                exclusive=context.exclusive,
                notify=context.notify,
                stop=context.stop,
                bridges=self.shims.path,
            )
        )

    async def prepare(self, specs: Sequence[Processor]) -> None:
        await super().prepare(specs)
        for spec in specs:
            for _ in range(spec.replicas):
                self.shims.start(spec.name)

    async def close(self) -> None:
        await super().close()
        self.shims.close()
