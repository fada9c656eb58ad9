"""The search with messages in hand: none gets lost, none is answered twice, the answers keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bridge.inlet import Inlet, Piece
from runner.bridge.portion import Portion
from runner.bridge.sequence import Sequencer
from runner.channel.memory import MemoryChannel
from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.plan.poison import Blow
from runner.spec.model import Channel
from runner.supervise.inquiry import Evidence, Inquiry, Over

LINES = codec_named("lines")
AFTER = 3
MOST_RUNS = 400


def portion_of(step: object) -> Portion:
    """What the program is given."""
    assert isinstance(step, Mapping)
    portion = step["stdin"]
    assert isinstance(portion, Portion)
    return portion


class Bench:
    """A channel of numbered messages, some of which are suspect, and whoever plays the program."""

    def __init__(self, count: int, suspects: int, cuts: list[int]) -> None:
        self.count = count
        channel = MemoryChannel(Channel("c"))
        self.reader = channel.open_reader("p", LINES)
        writer = channel.open_writer("w", LINES)
        writer.publish(LINES.batch_of([b"%d" % number for number in range(1, count + 1)]))
        writer.end()
        self.inlet = Inlet("stdin", channel.readers, replicas=1)
        self.published: list[int] = []
        self.dead: list[int] = []
        self.sequencer = Sequencer(self.publish, most_bytes=1 << 20)
        pieces, left = [], suspects
        for cut in [*cuts, suspects]:
            if left:
                piece = self.inlet.take(most_messages=min(cut, left))
                assert piece is not None
                piece.deaths = piece.returns = AFTER - 1
                left -= piece.batch.count
                pieces.append(piece)
        self.inlet.blame(pieces, owner=1, answered=False, after=AFTER)
        self.inquiry = Inquiry(
            {self.inlet: self.inlet.parked.popleft()},
            self.sequencer,
            owner=1,
            ends=True,
            succeeded=True,
            dead=self.set_aside,
            elsewhere=lambda: False,
        )

    def publish(self, batch: Batch) -> None:
        self.published += [int(message) for message in LINES.split(batch)]

    def set_aside(self, piece: Piece, _evidence: Evidence) -> None:
        assert piece.batch.count == 1
        self.dead.append(int(piece.batch.joined()))
        piece.reader.die(piece.number)
        self.inlet.handed += 1

    def check(self, in_flight: int = 0) -> None:
        """Every message is somewhere, once."""
        account = self.reader.account
        waiting = self.reader.queued_messages + self.inlet.returned_messages(self.reader)
        held = self.sequencer.held_messages(self.reader)
        assert account.acknowledged + account.dead + account.unread + waiting + held + in_flight == self.count
        assert self.published == sorted(self.published)
        assert self.inlet.handed == account.acknowledged + account.dead + held + in_flight

    def run(self, supply: Inlet, program: Callable[[list[int]], tuple[int, int]]) -> tuple[int, int]:
        """Hand everything of `supply` to the program; how many it answered, and how many more it had read."""
        pieces: list[Piece] = []
        while (piece := supply.take()) is not None:
            pieces.append(piece)
        numbers = [int(message) for piece in pieces for message in LINES.split(piece.batch)]
        self.check(len(numbers))
        answered, read = program(numbers)
        left, todo = [], answered
        for piece in pieces:
            answers, rest = LINES.skip(piece.batch, min(todo, piece.batch.count))
            todo -= answers.count
            if answers.count and piece.slot is not None:
                piece.slot.home.put(piece.slot, answers)
            elif answers.count:
                self.publish(answers)
                piece.reader.acknowledge(piece.number, answers.count)
            supply.count_answers(answers.count)
            if rest.count:
                left.append(Piece(piece.reader, rest, piece.number + answers.count, piece.order, slot=piece.slot))
        supply.blame(left, owner=1, answered=answered > 0, after=AFTER)
        self.check()
        return answered, read - answered


@given(
    count=st.integers(1, 40),
    data=st.data(),
    cuts=st.lists(st.integers(1, 10), max_size=6),
    strays=st.lists(st.tuples(st.integers(0, 39), st.booleans()), max_size=12),
)
@settings(deadline=None)
def test_one_killer_is_set_aside_and_all_others_are_answered_in_order(
    count: int, data: st.DataObject, cuts: list[int], strays: list[tuple[int, bool]]
) -> None:
    async def scenario() -> None:
        suspects = data.draw(st.integers(1, count))
        bad = data.draw(st.none() | st.integers(1, suspects))
        bench = Bench(count, suspects, cuts)
        kills = iter(strays)

        def program(numbers: list[int]) -> tuple[int, int]:
            at, strikes = next(kills, (0, False))
            answered = numbers.index(bad) if bad in numbers else len(numbers)
            if strikes and len(numbers) > 1:  # a random kill, of a group
                answered = min(answered, at)
            return answered, len(numbers)

        for _ in range(MOST_RUNS):
            step = bench.inquiry.proceed()
            bench.check()
            if isinstance(step, Over):
                assert step.cause is None
                break
            portion = portion_of(step)
            sent = portion.queued_messages
            answered, _ = bench.run(portion, program)
            blow = Blow.OWN if answered < sent else None
            bench.inquiry.ended(answered=answered, blow=blow, evidence=Evidence(None, "", ()))
            bench.check()
        else:
            raise AssertionError("it does not end")
        assert bench.inlet.search is None
        assert set(bench.dead) <= {bad}
        if not strays:
            assert bench.dead == [bad] * (bad is not None)
        bench.run(bench.inlet, lambda numbers: (len(numbers), len(numbers)))
        assert bench.published == [number for number in range(1, count + 1) if number not in bench.dead]
        assert bench.inlet.ended

    asyncio.run(scenario())


def test_a_processor_that_wants_no_more_loses_nothing_in_the_account() -> None:
    async def scenario() -> None:
        bench = Bench(10, 6, [])
        portion = portion_of(bench.inquiry.proceed())
        taken = portion.take(most_messages=2)
        assert taken is not None
        bench.inlet.leave()
        assert bench.reader.account.unread == 8
        portion.give_back([taken])
        assert bench.reader.account.unread == 10
        bench.inquiry.ended(answered=0, blow=Blow.OWN, evidence=Evidence(None, "", ()))
        assert bench.inquiry.proceed() == Over()
        bench.check()

    asyncio.run(scenario())


def test_who_gives_up_leaves_everything_to_others() -> None:
    async def scenario() -> None:
        bench = Bench(10, 6, [4])
        portion_of(bench.inquiry.proceed())
        bench.inquiry.give_up()
        bench.check()
        assert bench.inlet.queued_messages == 10
        bench.run(bench.inlet, lambda numbers: (len(numbers), len(numbers)))
        assert bench.published == list(range(1, 11))

    asyncio.run(scenario())
