"""`order = "keep"`: whoever answers first, the answers leave in the order of the messages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bridge.sequence import Sequencer
from runner.channel.memory import MemoryChannel
from runner.codec.base import Batch
from runner.codec.registry import codec_named
from runner.spec.model import Channel

LINES = codec_named("lines")


@given(pieces=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
@settings(deadline=None)
def test_any_interleaving_keeps_the_order_and_the_account(pieces: list[int], data: st.DataObject) -> None:
    reader = MemoryChannel(Channel("c")).open_reader("p", LINES)
    published: list[bytes] = []

    def publish(batch: Batch) -> None:
        published.extend(LINES.payload(framed) for framed in LINES.split(batch))

    sequencer = Sequencer(publish, most_bytes=10)
    owners = [object() for _ in range(3)]
    firsts = [sum(pieces[:index]) for index in range(len(pieces))]
    slots = [
        sequencer.open(reader, first + 1, count, data.draw(st.sampled_from(owners)))
        for first, count in zip(firsts, pieces, strict=True)
    ]
    open_answers = list(pieces)
    while any(open_answers):
        at = data.draw(st.sampled_from([index for index, count in enumerate(open_answers) if count]))
        count = data.draw(st.integers(1, open_answers[at]))
        done = pieces[at] - open_answers[at]
        numbers = range(firsts[at] + done, firsts[at] + done + count)
        sequencer.put(slots[at], LINES.batch_of([b"%d" % number for number in numbers]))
        open_answers[at] -= count
        assert published == [b"%d" % number for number in range(len(published))]
        assert reader.account.acknowledged == len(published)
        assert sequencer.held_messages(reader) == sum(pieces) - sum(open_answers) - len(published)
        head = next((index for index, count in enumerate(open_answers) if count), None)
        if head is not None:
            assert not sequencer.crowded(slots[head].owner)
    assert len(published) == sum(pieces)


@given(owners=st.permutations(["a", "b", "c"]))
def test_only_those_who_are_not_next_are_crowded_and_are_let_in_again(owners: list[str]) -> None:
    reader = MemoryChannel(Channel("c")).open_reader("p", LINES)
    sequencer = Sequencer(lambda batch: None, most_bytes=4)
    slots = [sequencer.open(reader, number, 1, owner) for number, owner in enumerate(owners, 1)]
    called: list[str] = []
    sequencer.put(slots[2], LINES.batch_of([b"answer"]))
    assert [sequencer.crowded(owner) for owner in owners] == [False, True, True]
    sequencer.when_room(lambda: called.append("room"))
    sequencer.own(slots[0], None)
    assert called == ["room"]
    sequencer.own(slots[0], owners[1])
    assert [sequencer.crowded(owner) for owner in owners] == [True, False, True]
    sequencer.put(slots[0], LINES.batch_of([b"x"]))
    sequencer.put(slots[1], LINES.batch_of([b"x"]))
    assert not any(sequencer.crowded(owner) for owner in owners)
    assert reader.account.acknowledged == 3
