"""What a session was given, until it is answered: against a model, in any order."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.bridge.handed import Handed
from runner.bridge.heartbeat import Beat, Heartbeat
from runner.bridge.inlet import Inlet, Piece
from runner.channel.memory import MemoryChannel
from runner.codec.lines import LINES
from runner.protocol.encoder import messages
from runner.spec.model import Channel


def inlet() -> Inlet:
    return Inlet("stdin", [MemoryChannel(Channel("c")).open_reader("p", LINES)], replicas=1)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_answers_in_any_order_find_their_messages(sizes: list[int], data: st.DataObject) -> None:
    home, handed, first = inlet(), Handed(), 1
    for size in sizes:
        payloads = [b"%d" % number for number in range(first, first + size)]
        handed.add(first, home, Piece(home.readers[0], LINES.batch_of(payloads), first), payloads)
        first += size
    left = list(range(1, first))
    while left:
        start = data.draw(st.sampled_from(left))
        longest = start
        while longest + 1 in left:
            longest += 1
        last = data.draw(st.integers(start, longest))
        found: list[int] = []
        for span in handed.answer(start, last):
            again = span.again()
            assert again.attempt == 2
            assert LINES.payloads(again.batch) == [b"%d" % n for n in range(again.number, again.number + span.count)]
            found += range(again.number, again.number + span.count)
        assert found == list(range(start, last + 1))
        left = [number for number in left if not start <= number <= last]


@given(
    payloads=st.lists(st.binary(max_size=12), min_size=1, max_size=12),
    delivery=st.sampled_from([1, 8, 98]),
    number=st.sampled_from([1, 7, 99_995]),
    position=st.integers(0, 50),
)
def test_what_was_begun_is_known_to_the_byte(payloads: list[bytes], delivery: int, number: int, position: int) -> None:
    """As many messages as there are frames that begin before the place up to which the program has read."""
    home, handed = inlet(), Handed()
    parts = messages(payloads, delivery=delivery, number=number, attempt=2, port="stdin", channel="c@1")
    piece = Piece(home.readers[0], LINES.batch_of([b"x"] * len(payloads)), number)
    handed.add(delivery, home, piece, payloads, position=position, beside_bytes=list(map(len, parts[::2])))
    (span,) = handed.find(delivery, delivery + len(payloads) - 1)
    frames = [bytes(header) + bytes(payload) for header, payload in zip(parts[::2], parts[1::2], strict=True)]
    starts = [position + sum(map(len, frames[:index])) for index in range(len(frames))]
    for read in range(position + sum(map(len, frames)) + 2):
        due = sum(start < read for start in starts)
        begun, rest = span.parted(read)
        assert (begun.count if begun else 0, rest.count if rest else 0) == (due, len(payloads) - due)


def test_heartbeat() -> None:
    """Silence brings a ping, and no answer to that the verdict; a sign of life, or an excuse, puts it off."""

    async def beat() -> tuple[int, list[str], float]:
        pings, said, excuses = 0, [], iter([True, True])
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        began = loop.time()

        def ping() -> bool:
            nonlocal pings
            pings += 1
            return pings > 1

        def silent(why: str) -> None:
            said.append(why)
            over.set()

        Heartbeat(Beat(0.02, 0.05), ping, lambda: next(excuses, False), silent).begin()
        async with asyncio.timeout(10):
            await over.wait()
        return pings, said, loop.time() - began

    pings, said, took_s = asyncio.run(beat())
    assert pings == 2, "the first could not be sent, so that nobody was silent"
    assert said == ["silent: no answer to a ping for 50ms"]
    assert took_s >= 0.02 * 4 + 0.05
