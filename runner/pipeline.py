"""A pipeline for those who build or load it in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runner.errors import Problem
from runner.spec import model
from runner.spec.load import LoadedPipeline, load_document, load_file

if TYPE_CHECKING:
    from runner.events import Event
    from runner.supervise.snapshot import RunReport


class Pipeline:
    """A valid pipeline: built here from the keys of a pipeline file, or read from one with `from_file`.

    `processors`, `channels` and `runners` map names to tables as in the file, `folder` is where relative paths start
    from. All processors that can run in `home` (None: each where it runs by itself).
    Raises SpecError with every problem that there is.
    """

    def __init__(
        self,
        *,
        name: str,
        processors: Mapping[str, Mapping[str, Any]],
        channels: Mapping[str, Mapping[str, Any]] | None = None,
        runners: Mapping[str, Mapping[str, Any]] | None = None,
        drain: str | None = None,
        folder: str | os.PathLike[str] = ".",
        home: model.Home | None = None,
    ) -> None:
        document: dict[str, Any] = {"name": name, "processors": processors}
        if channels is not None:
            document["channels"] = channels
        if runners is not None:
            document["runners"] = runners
        if drain is not None:
            document["drain"] = drain
        self._loaded = load_document(document, folder=folder, home=home)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], *, home: model.Home | None = None) -> Pipeline:
        """Read a pipeline file; all processors that can run in `home`.

        Raises SpecError with every problem, each with its line and column.
        """
        pipeline = cls.__new__(cls)
        pipeline._loaded = load_file(file, home=home)  # noqa: SLF001  (its own class)
        return pipeline

    @property
    def spec(self) -> model.Pipeline:
        """The pipeline with every default filled in."""
        return self._loaded.pipeline

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was noticed and is no error."""
        return self._loaded.warnings

    def run(
        self,
        *,
        on_event: Callable[[Event], None] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        runner: str | None = None,
    ) -> RunReport:
        """Run it to its end, in an event loop of its own; see `execute`."""
        import asyncio

        return asyncio.run(self.execute(on_event=on_event, state_dir=state_dir, fresh=fresh, runner=runner))

    async def execute(
        self,
        *,
        on_event: Callable[[Event], None] | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        runner: str | None = None,
    ) -> RunReport:
        """Run it to its end inside of a running event loop; cancel to end it at once.

        `on_event` is called with every event, on the loop's thread, and must neither block nor raise. Only processes of
        this run are ever touched. `state_dir` is where durable channels are kept (None: `.connector/NAME` in the folder
        of the pipeline; a runner's below that, by its name), `fresh` gives up what a run that was cut short has left
        there. Where the pipeline has several runners, `runner` says whose part is run. Raises RunnerError where it has
        no such runner, and MachineError where this machine cannot do what is asked.
        """
        from pathlib import Path

        from runner.events import Bus
        from runner.plan.part import part
        from runner.supervise.run import Run
        from runner.supervise.state import state_folder

        bus = Bus()
        if on_event is not None:
            bus.subscribe(on_event)
        own = part(self.spec, runner)
        folder = state_folder(own, None if state_dir is None else Path(state_dir))
        return await Run(own, bus, state_folder=folder, fresh=fresh).execute()

    _loaded: LoadedPipeline
