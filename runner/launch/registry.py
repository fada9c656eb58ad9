"""Launchers by the name of their home, and those of one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from runner.events import Warned
from runner.launch.base import Handle, LaunchContext, Launcher
from runner.plan.limits import asked
from runner.plugged import plugged
from runner.spec.model import Home, Processor

ENTRY_POINT_GROUP = "connector.launchers"

_BUILT_IN = {
    "process": ("runner.launch.process", "ProcessLauncher"),
    "sandbox": ("runner.launch.sandbox", "SandboxLauncher"),
    "container": ("runner.launch.container", "ContainerLauncher"),
    "attached": ("runner.launch.attached", "AttachedLauncher"),
}

_OWN = (Home.PROCESS, Home.SANDBOX)
"""The homes that the runner itself sets up."""


def launcher_kind(name: str) -> Callable[[LaunchContext], Launcher]:
    """What makes the launcher of that home: built in, or brought by an installed package as entry point.

    Raises RunnerError when there is none that can be loaded.
    """
    kind: Callable[[LaunchContext], Launcher] = plugged(
        name, _BUILT_IN, ENTRY_POINT_GROUP, what="launcher", those="homes"
    )
    return kind


class Homes:
    """The launchers of one run, each made when the first processor needs it."""

    def __init__(self, context: LaunchContext) -> None:
        self._context = context
        self._launchers: dict[str, Launcher] = {}

    async def prepare(self, specs: Iterable[Processor]) -> None:
        """Have every home that is needed get ready; see `Launcher.prepare`."""
        by_home: dict[str, list[Processor]] = {}
        for spec in specs:
            by_home.setdefault(spec.home, []).append(spec)
        for home in by_home:
            self._launchers[home] = launcher_kind(home)(self._context)
        for home, theirs in by_home.items():
            await self._launchers[home].prepare(theirs)
        self._say_what_is_not_held([spec for home, theirs in by_home.items() if home in _OWN for spec in theirs])

    def _say_what_is_not_held(self, specs: list[Processor]) -> None:
        """Warn of limits that this machine cannot hold; a container's are said by its launcher."""
        if not any(asked(spec.resources) for spec in specs):
            return
        from runner.launch.machine import gather  # a sixth of what a run imports, and few need it
        from runner.plan.tiers import unenforced

        facts = gather(())
        for spec in specs:
            for sentence in unenforced(spec, facts):
                self._context.notify(Warned(message=sentence, processor=spec.name))

    async def open(self, spec: Processor, replica: int) -> Handle:
        """A handle of the processor's home; see `Launcher.open`."""
        return await self._launchers[spec.home].open(spec, replica)

    def tell_over(self, code: int) -> None:
        """See `Launcher.tell_over`."""
        for launcher in self._launchers.values():
            launcher.tell_over(code)

    async def close(self) -> None:
        """The run is over."""
        await asyncio.gather(*(launcher.close() for launcher in self._launchers.values()))
