"""A durable channel against a model, in which messages are single and what became of each stands beside it.

Anything that may happen at its ends: publish, take, acknowledge, die, come back, be read, leave, join late, wait for
room, end; and at any moment the runner is killed (what is in its files at that moment is opened again, unclosed), or
closes. What is there afterwards has to be what was there at some moment, and at none before the last flush.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.channel.durable import DurableChannel
from runner.channel.durable_reader import DurableReader
from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.spec.model import Channel as ChannelSpec
from runner.store import Store
from tests.channel.durable_model import DEAD, DONE, LOST, OPEN, PAST, READ, TAKEN, Model, OnDisk, View, numbers_of

CODECS = ["lines", "null", "length-prefixed"]
CAPACITY_BYTES = 100
MOST_READERS = 4
STEPS = 8
"""So many callbacks belong to a run at least."""
Taken = tuple[int, list[bytes]]

payloads = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"n").replace(b"\0", b"0"))
messages = st.lists(payloads, min_size=1, max_size=8)


class DurableMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(
        reading=st.lists(st.tuples(st.booleans(), st.sampled_from(CODECS)), min_size=1, max_size=2),
        writing=st.sampled_from(CODECS),
    )
    def begin(self, reading: list[tuple[bool, str]], writing: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="connector-durable-"))
        self.codec = codec_named(writing)
        views = {f"r{number}": View(*each) for number, each in enumerate(reading)}
        self.model = Model({**views, "answers": View(claims=False, codec=writing)})
        self.store = self._store()
        self._join()

    # -- opening

    def _store(self) -> Store:
        """Without syncs it commits on the loop's thread: the same steps do the same each time."""
        capacity_bytes = {"c": CAPACITY_BYTES, "d": CAPACITY_BYTES}
        return Store.open(self.folder, sync=False, capacity_bytes=capacity_bytes, tail_bytes=200)

    def _join(self) -> None:
        """A run begins: what it finds is what the model has."""
        self.taken: dict[str, list[Taken]] = {name: [] for name in self.model.views}
        self.waiting = self.called = self.steps = 0
        self.loop.run_until_complete(self._open())
        self.flush()

    async def _open(self) -> None:
        spec = ChannelSpec("c", kind="durable", capacity_bytes=CAPACITY_BYTES)
        self.channel = DurableChannel(spec, self.store)
        self.other = DurableChannel(ChannelSpec("d", kind="durable", capacity_bytes=1 << 20), self.store)
        self.store.on_freed = lambda name: self.channel.room() if name == "c" else None
        self.readers: dict[str, DurableReader] = {}
        for name, view in self.model.views.items():
            reader = self.channel.open_reader(name, codec_named(view.codec))
            reader.claims = view.claims
            self.readers[name] = reader
            assert reader.left_before == view.gone
            self._expect_carried(reader, view)
        self.other.open_reader("nobody", self.codec)
        self.writer = self.channel.open_writer("w", self.codec)
        self.answers = self.other.open_writer("answers", self.codec)
        assert (self.writer.carried, self.writer.ended_before) == (self.model.written, self.model.ended)
        assert self.answers.carried == len(self.model.answered)
        for name, view in self.model.views.items():
            if view.gone:
                self.readers[name].leave()
        if self.model.ended:
            self.writer.end()

    @staticmethod
    def _expect_carried(reader: DurableReader, view: View) -> None:
        """What was handed out counts once more, as carried and as indeterminate; then it is lost."""
        if view.gone:
            assert reader.account.carried == 0
            for number in view.numbers({TAKEN, READ}):
                view.set(number, 1, LOST)  # with the run in which it left
            return
        limbo = view.numbers({TAKEN, READ}) if view.claims else view.numbers({READ})
        assert reader.account.carried == len(view.numbers({OPEN, TAKEN, READ}))
        assert reader.account.indeterminate == len(limbo)
        for number in limbo:
            view.set(number, 1, LOST)
        for number in view.numbers({TAKEN}):
            view.set(number, 1, OPEN)

    # -- callbacks

    def do(self, callback: Callable[[], object]) -> None:
        """As a callback of the loop, which may or may not come to commit it."""

        async def run() -> None:
            callback()

        self.loop.run_until_complete(run())
        self.steps += 1
        self.moments.append(copy.deepcopy(self.model))

    @rule()
    def flush(self) -> None:
        self.loop.run_until_complete(self.store.flush())
        self.moments = [copy.deepcopy(self.model)]

    @precondition(lambda self: not self.model.ended)
    @rule(sent=messages)
    def publish(self, sent: list[bytes]) -> None:
        model = self.model
        model.written += len(sent)
        if not all(view.gone for view in model.views.values()):
            model.sent += sent
            for view in model.views.values():
                view.fates += [PAST if view.gone else OPEN] * len(sent)
        self.do(lambda: self.writer.publish(self.codec.batch_of(sent)))

    @precondition(lambda self: not self.model.ended and len(self.model.sent) > 10)
    @rule()
    def end(self) -> None:
        self.model.ended = True
        self.do(lambda: self.writer.end(for_good=True))
        assert all(reader.ended for reader in self.readers.values())

    def _take(self, name: str, most: int | None) -> Taken | None:
        """What is next, and nothing else; None: there is nothing, or it has left."""
        reader, view = self.readers[name], self.model.views[name]
        found: list[Batch] = []

        def take() -> None:
            batch = reader.take(most_messages=most)
            if batch is not None:
                found.append(batch)

        self.do(take)
        for _ in range(2):  # to be committed, and to be claimed
            if not found:
                self.flush()
                self.do(take)
        waiting = view.numbers({OPEN})
        assert bool(found) == (bool(waiting) and not view.left)
        if not found:
            return None
        got = [reader.codec.payload(each) for each in reader.codec.split(found[0])]
        assert reader.number == min(waiting)
        assert got == self.model.sent[reader.number - 1 : reader.number - 1 + len(got)]
        assert most is None or len(got) <= most
        assert all(view.fates[number - 1] == OPEN for number in range(reader.number, reader.number + len(got)))
        view.set(reader.number, len(got), TAKEN)
        self.moments[-1] = copy.deepcopy(self.model)
        return reader.number, got

    @rule(data=st.data(), most=st.none() | st.integers(1, 5))
    def take(self, data: st.DataObject, most: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.views.keys() - {"answers"})))
        taken = self._take(name, most)
        if taken is not None:
            self.taken[name].append(taken)

    @rule(most=st.none() | st.integers(1, 5))
    def answer(self, most: int | None) -> None:
        taken = self._take("answers", most)
        if taken is not None:
            self._answer(taken)

    def _answer(self, taken: Taken) -> None:
        """Output and acknowledgement by one callback: both are there after a crash, or neither."""
        number, got = taken
        self.model.answered += got
        self.model.views["answers"].set(number, len(got), DONE)

        def answer() -> None:
            self.answers.publish(self.codec.batch_of(got))
            self.readers["answers"].acknowledge(number, len(got))

        self.do(answer)

    @precondition(lambda self: any(self.taken.values()))
    @rule(data=st.data(), handled=st.booleans(), back=st.booleans(), dead=st.integers(-2, 8))
    def settle(self, data: st.DataObject, *, handled: bool, back: bool, dead: int) -> None:
        """In any order: acknowledged or dead; come back, or read by a program that has ended, or goes on."""
        held = [(name, taken) for name, each in self.taken.items() for taken in each]
        name, taken = data.draw(st.sampled_from(held))
        self.taken[name].remove(taken)
        if not self.model.views[name].claims:
            self._answered(name, taken, min(max(0, dead), len(taken[1])))
        elif back:
            self._came_back(name, taken)
        else:
            self._was_read(name, taken, ends=data.draw(st.booleans()), handled=handled)

    def _answered(self, name: str, taken: Taken, dead: int) -> None:
        """All of them are acknowledged, but one may be dead (0: none)."""
        reader, view, (number, got) = self.readers[name], self.model.views[name], taken
        view.set(number, len(got), DONE)
        if dead:
            view.set(number + dead - 1, 1, DEAD)

        def settle() -> None:
            if not dead:
                reader.acknowledge(number, len(got))
                return
            reader.acknowledge(number, dead - 1)
            reader.die(number + dead - 1)
            reader.acknowledge(number + dead, len(got) - dead)

        self.do(settle)

    def _came_back(self, name: str, taken: Taken) -> None:
        reader, view, (number, got) = self.readers[name], self.model.views[name], taken
        view.set(number, len(got), OPEN)
        kept: list[bool] = []
        self.do(lambda: kept.append(reader.came_back(number, reader.codec.batch_of(got))))
        assert kept == [not view.left]
        if view.left:
            reader.account.unread += len(got)  # as who took it does

    def _was_read(self, name: str, taken: Taken, *, ends: bool, handled: bool) -> None:
        reader, view, (number, got) = self.readers[name], self.model.views[name], taken
        view.set(number, len(got), READ)
        self.do(lambda: reader.passed(number, len(got)))
        if ends:
            view.set(number, len(got), DONE if handled else LOST)
            self.do(lambda: reader.was_read(len(got), handled=handled))

    @precondition(lambda self: self.steps > STEPS and any(not view.left for view in self.model.views.values()))
    @rule(data=st.data(), for_good=st.booleans())
    def leave(self, data: st.DataObject, *, for_good: bool) -> None:
        name = data.draw(st.sampled_from([name for name, view in self.model.views.items() if not view.left]))
        view = self.model.views[name]
        view.left = True
        view.gone = for_good
        self.do(lambda: self.readers[name].leave(for_good=for_good))
        assert self.readers[name].left

    # -- room

    @precondition(lambda self: self.writer.full)
    @rule()
    def wait_for_room(self) -> None:
        def room() -> None:
            assert not self.writer.full
            self.called += 1

        before = self.called
        self.waiting += 1
        self.writer.when_room(room)
        assert self.called == before

    @precondition(lambda self: self.steps % 4 == 0)
    @rule()
    def read_everything(self) -> None:
        """When nobody waits for anything there is room, and whoever waited for that has been told."""
        for name in self.model.views:
            for taken in self.taken[name]:
                self._done_with(name, taken)
            self.taken[name].clear()
            while (found := self._take(name, None)) is not None:
                self._done_with(name, found)
        for _ in range(3):
            self.flush()  # deletions go with the next commit
        views = self.model.views.values()
        if all(view.gone or not view.numbers({OPEN}) for view in views) and not all(view.gone for view in views):
            state = self.store.state("c")
            assert (state.first, state.held_bytes) == (state.last + 1, 0)
            assert not self.writer.full
            assert self.called == self.waiting

    def _done_with(self, name: str, taken: Taken) -> None:
        if name == "answers":
            self._answer(taken)
        elif self.model.views[name].claims:
            self._was_read(name, taken, ends=True, handled=True)
        else:
            self._answered(name, taken, 0)

    # -- the end of a run

    @precondition(lambda self: self.steps >= STEPS)
    @rule(data=st.data())
    def killed(self, data: st.DataObject) -> None:
        """Its files are what they are; nobody closed them."""
        fresh = Path(tempfile.mkdtemp(prefix="connector-durable-"))
        for file in self.folder.iterdir():
            shutil.copy2(file, fresh / file.name)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder = fresh
        self._next_run(data)

    @precondition(lambda self: self.steps >= STEPS)
    @rule(data=st.data(), flushed=st.booleans())
    def closed(self, data: st.DataObject, *, flushed: bool) -> None:
        if flushed:
            self.flush()
        self.store.close()
        self._next_run(data)

    def _next_run(self, data: st.DataObject) -> None:
        """What is there is what was there at some moment; perhaps one reader more."""
        self.store = self._store()
        there = OnDisk.of(self.store)
        moment = next((moment for moment in reversed(self.moments) if there.is_that_of(moment)), None)
        assert moment is not None, f"{there} never was"
        model = copy.deepcopy(moment)
        model.written = int(self.store.get("notes", b"written c\0w") or b"0")
        assert any(model.written == each.written for each in self.moments)
        for name, view in model.views.items():
            view.left = view.gone
            if view.claims and not view.gone:
                claimed = numbers_of(there.cursors[name].claimed)
                assert view.numbers({TAKEN}) <= claimed <= view.numbers({TAKEN, OPEN})
                for number in claimed:
                    view.set(number, 1, TAKEN)
            if not view.gone:
                assert there.first <= min(view.numbers({OPEN, TAKEN}), default=there.last + 1)
        if len(model.views) < MOST_READERS and data.draw(st.booleans()):
            fates = [PAST] * (there.first - 1) + [OPEN] * (there.last - there.first + 1)
            late = View(data.draw(st.booleans()), data.draw(st.sampled_from(CODECS)), fates)
            model.views[f"late{len(model.views)}"] = late
        self.model = model
        self._join()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "readers"):
            return
        for name, view in self.model.views.items():
            reader, account = self.readers[name], self.readers[name].account
            in_flight = sum(len(got) for _, got in self.taken[name]) + len(view.numbers({READ}))
            outcomes = account.acknowledged + account.dead + account.indeterminate + account.unread
            assert account.carried + self.channel.written == outcomes + reader.queued_messages + in_flight, name
            assert reader.left == view.left
            if not view.left:
                assert reader.queued_messages == len(view.numbers({OPEN}))
        views = self.model.views.values()
        at_capacity = self.store.state("c").held_bytes >= CAPACITY_BYTES
        assert self.writer.full == (at_capacity and not all(view.left for view in views))
        stays = not at_capacity and not all(view.gone for view in views)
        assert self.writer.wanted == (stays or not all(view.left for view in views))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.loop.close()
            shutil.rmtree(self.folder)


TestDurable = DurableMachine.TestCase
TestDurable.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink],  # of long stories that takes longer than a test may
)
