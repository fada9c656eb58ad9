"""What a sender may send between two looks at its stream, against a server that throws away what is too much."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.channel.nats.room import Room, full_at, stored_bytes

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def looked(room: Room, used_bytes: int, max_bytes: int | None, next_bytes: int = 0) -> Room:
    room.asked()
    room.seen(used_bytes, max_bytes, next_bytes)
    return room


@pytest.mark.parametrize(
    ("max_bytes", "mark"), [(100, 50), (64 * MIB, 32 * MIB), (128 * MIB, 96 * MIB), (1024 * MIB, 992 * MIB)]
)
def test_a_stream_is_full_before_its_limit(max_bytes: int, mark: int) -> None:
    assert full_at(max_bytes) == mark
    assert not looked(Room(), mark - 1, max_bytes, 1).full
    assert looked(Room(), mark, max_bytes, 1).full


def test_nothing_is_sent_before_the_first_look_nor_long_after_one() -> None:
    clock = Clock()
    room = Room(now_s=clock)
    assert not room.allows(1)
    looked(room, 0, 64 * MIB)
    assert (room.allows(1), room.low) == (True, False)
    clock.now_s = 0.75
    assert (room.allows(1), room.low) == (True, True)
    clock.now_s = 1.25
    assert not room.allows(1)
    assert looked(room, 0, 64 * MIB).allows(1)


def test_a_window_is_sent_between_two_looks_and_a_new_one_is_due_at_half_of_it() -> None:
    room = looked(Room(), 0, 64 * MIB)
    assert room.window_bytes == 2 * MIB
    lows = []
    for size_bytes in (MIB, 1):
        room.sent(size_bytes)
        lows.append(room.low)
    assert lows == [False, True]
    room.confirmed(MIB + 1)
    assert not room.allows(MIB)
    assert looked(room, MIB + 1, 64 * MIB).allows(2 * MIB)


def test_what_is_on_its_way_is_no_more_than_the_window() -> None:
    room = looked(Room(), 0, 64 * MIB)
    room.sent(2 * MIB)
    assert not looked(room, 0, 64 * MIB).allows(1)
    room.confirmed(1)
    assert room.allows(1)


def test_senders_of_one_runner_have_one_share() -> None:
    assert looked(Room(2), 0, 64 * MIB).window_bytes == MIB


def test_one_publication_that_is_larger_than_the_window_goes_alone_where_it_has_room() -> None:
    room = looked(Room(), 0, 64 * MIB, 10 * MIB)
    assert room.allows(10 * MIB)
    room.sent(1)
    assert not looked(room, 1, 64 * MIB, 10 * MIB).allows(10 * MIB)
    assert looked(Room(), 23 * MIB, 64 * MIB, 10 * MIB).full


def test_what_is_sent_while_the_server_is_asked_counts() -> None:
    room = looked(Room(), 0, 64 * MIB)
    room.asked()
    room.sent(MIB)
    room.seen(0, 64 * MIB, 0)
    assert room.allows(MIB)
    assert not room.allows(MIB + 1)


def test_what_failed_counts_until_the_next_look_after_it() -> None:
    mark = full_at(64 * MIB)
    room = looked(Room(), 0, 64 * MIB)
    room.asked()
    room.sent(MIB)
    room.failed(MIB)
    room.seen(mark - MIB, 64 * MIB, 1)
    assert not looked(room, mark - MIB, 64 * MIB).allows(1)
    assert looked(room, mark - MIB, 64 * MIB).allows(MIB)


def test_a_stream_without_a_limit_is_never_full_and_is_looked_at_all_the_same() -> None:
    room = looked(Room(), 1 << 40, None, 100 * MIB)
    assert not room.full
    assert room.most_bytes is None
    room.sent(100 * MIB)
    assert room.low


def test_more_is_reckoned_than_a_server_stores() -> None:
    assert stored_bytes("s.t", b"12345", None) >= 22 + 3 + 5 + 8
    headers = {"Key": "value"}
    written = len(b"NATS/1.0\r\nKey: value\r\n\r\n")
    assert stored_bytes("s.t", b"12345", headers) >= 22 + 3 + 4 + written + 5 + 8


class Writer:
    """What it has sent reaches the server later, and is confirmed later still; now and then nothing is known of it."""

    def __init__(self, max_bytes: int, senders: int, chance: random.Random) -> None:
        self.room = Room(senders, now_s=lambda: 0.5)
        self.max_bytes = max_bytes
        self.chance = chance
        self.next_bytes = 1
        self.on_way: deque[int] = deque()
        self.stored: deque[int] = deque()

    def act(self, used_bytes: int) -> int:
        """Do something; how many bytes more the server stores."""
        what = self.chance.choice(("look", "send", "send", "send", "reach", "reach", "confirm", "confirm", "fail"))
        if what == "look":
            self.room.asked()
            self.room.seen(used_bytes, self.max_bytes, self.next_bytes)
        elif what == "send" and self.room.allows(self.next_bytes):
            self.room.sent(self.next_bytes)
            self.on_way.append(self.next_bytes)
            self.next_bytes = self.chance.randint(1, max(1, self.room.window_bytes))
        elif what == "reach" and self.on_way:
            self.stored.append(self.on_way.popleft())
            return self.stored[-1]
        elif what == "confirm" and self.stored:
            self.room.confirmed(self.stored.popleft())
        elif what == "fail" and self.stored and self.chance.random() < 0.1:
            self.room.failed(self.stored.popleft())
        return 0


@given(st.integers(1, 8), st.integers(1, 3), st.sampled_from([20_000, 64 * MIB, 200 * MIB]), st.integers())
def test_eight_runners_at_once_stay_below_the_limit(runners: int, senders: int, max_bytes: int, seed: int) -> None:
    chance = random.Random(seed)
    writers = [Writer(max_bytes, senders, chance) for _ in range(runners * senders)]
    used = full_at(max_bytes) - chance.randint(0, max_bytes // 4)
    for writer in writers:
        writer.room.asked()
        writer.room.seen(used, max_bytes, 1)
    for _ in range(1000):
        used += chance.choice(writers).act(used)
        assert used < max_bytes
