"""The runner's state on disk: opened where a channel asks for it, gone on with where a run was cut short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.channel import positions
from runner.channel.file_kept import FILE, let_go_of_all
from runner.channel.network import far_name
from runner.errors import RunnerError
from runner.events import Bus, Warned
from runner.spec.model import Channel, Durability, Pipeline
from runner.store import letters
from runner.store.store import Store
from runner.supervise.processor import ProcessorRun
from runner.units import format_count

_RUNS, _CUT = "runs", b"cut"


def state_folder(pipeline: Pipeline, given: Path | None = None) -> Path:
    """Where the state of a pipeline is, `given` or beside its file; that of a part is below, by its runner's name."""
    folder = given or pipeline.folder / ".connector" / pipeline.name
    return folder if pipeline.runner is None else folder / pipeline.runner


def _readers(spec: Channel) -> tuple[str, ...]:
    """Who reads what the channel stores."""
    plain = spec.network is not None and spec.network.plain and bool(spec.writers)
    far = tuple(far_name(runner) for runner in (("",) if plain else spec.far_readers))
    return (FILE,) if spec.file is not None and spec.writers else (*spec.readers, *far)


class State:
    """See the module. `goes_on`: an earlier run of the pipeline was cut short, and this one goes on where it was."""

    def __init__(self, pipeline: Pipeline, folder: Path, *, fresh: bool) -> None:
        self._given_up = False
        durable = {name: spec for name, spec in pipeline.channels.items() if spec.durable}
        self.store = Store.open(
            folder,
            sync=any(spec.durability is Durability.DISK for spec in durable.values()),
            capacity_bytes={name: spec.capacity_bytes for name, spec in durable.items()},
        )
        try:
            if fresh:
                let_go_of_all(self.store)
                self.store.reset(None, keep=(letters.TABLE,))
            self._refuse_changes(pipeline)
            self.goes_on = self.store.get(_RUNS, _CUT) is not None
        except BaseException:
            self.store.close()
            raise

    def _refuse_changes(self, pipeline: Pipeline) -> None:
        """Messages that nobody of this pipeline would get are an error, never dropped."""
        lost = []
        for name in self.store.channels():
            spec, last = pipeline.channels.get(name), self.store.state(name).last
            readers = _readers(spec) if spec is not None and spec.durable else ()
            for reader, cursor in self.store.readers(name).items():
                waiting = sum(end - first + 1 for first, end in cursor.open_ranges(last))
                if waiting and reader not in readers:
                    lost.append(f"{format_count(waiting, 'message')} of channel `{name}` for `{reader}`")
                elif reader not in readers:
                    self.store.forget_reader(name, reader)
        if lost:
            raise RunnerError(
                f"the state holds messages that this pipeline has no reader for: {'; '.join(lost)}",
                where=str(self.store.path),
                remedy="put the channel and its reader back, or give the messages up with --fresh",
            )

    def begin(self, processors: dict[str, ProcessorRun], bus: Bus) -> None:
        """The run begins. Raises RunnerError for a source that nobody can go on with."""
        for processor in processors.values() if self.goes_on else ():
            self._judge(processor, bus)
        self.store.transaction.put(_RUNS, _CUT, b"1")

    def _judge(self, processor: ProcessorRun, bus: Bus) -> None:
        spec, outlets = processor.spec, processor.shared.outlets.values()
        if not processor.is_source or processor.ended_before:
            return
        writers = [writer for outlet in outlets for writer in outlet.writers]
        if all(writer.durable and not writer.carried for writer in writers):
            return  # nothing of it is on record, or it writes nothing: it begins
        if spec.resume == "none":
            raise RunnerError(
                'the run before was cut short while it wrote, and resume = "none" says that nothing tells where it was',
                where=f"processor {spec.name}",
                remedy='connector run --fresh starts over; resume = "skip", "self" or "live" lets it go on',
            )
        if spec.resume != "live" and any(not writer.durable for writer in writers):
            text = "what it had written before the run was cut short is not on record: it writes all of it again"
            bus.emit(Warned(message=text, processor=spec.name))

    async def end(self, *, completed: bool) -> None:
        """The run is over. One that completed leaves its dead letters behind alone, so the next one starts fresh."""
        if self._given_up and self.store.stuck is not None:
            raise RunnerError(
                f"what the run did last could not be stored, and will be done again by the next: {self.store.stuck}",
                where=str(self.store.path),
            )
        await self.store.flush()
        if completed:
            self.store.reset(None, keep=(letters.TABLE, positions.TABLE))

    def give_up(self) -> None:
        """The run is ended at once: wait no longer for a store that cannot write."""
        self._given_up = True

    def watch(self, fail: Callable[[str], None], room: Callable[[str | None], None], bus: Bus) -> None:
        """Call `fail` when nothing can be stored any more, `room` with a channel (None: any) that has room again."""
        said = False

        def trouble() -> None:
            nonlocal said
            if self.store.failed is not None:
                fail(f"the state cannot be written: {self.store.failed}")
            elif self.store.stuck is not None:
                said = True
                bus.emit(Warned(message=f"nothing can be stored for now, so writers wait: {self.store.stuck}"))
            else:
                if said:
                    bus.emit(Warned(message="what waited is stored, and writers go on"))
                said = False
                room(None)

        if self.store.doubt is not None:
            bus.emit(Warned(message=self.store.doubt))
        self.store.on_trouble = trouble
        self.store.on_freed = room

    def close(self) -> None:
        """Let go of it."""
        self.store.close()
