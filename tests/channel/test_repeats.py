"""What happens again and again fills no log, and is not forgotten either."""

from __future__ import annotations

from runner.channel.repeats import LONGEST_AGAIN_S, MOST_KINDS, Absence, Repeats, kind_of
from runner.codec.unfinished import too_long
from runner.errors import CodecError


class Told:
    """What was told, and when; the clock stands where it is put."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: list[tuple[float, str]] = []

    def clock(self) -> float:
        return self.now_s

    def tell(self, text: str) -> None:
        self.said.append((self.now_s, text))


def test_the_same_is_told_more_and_more_seldom_with_a_count() -> None:
    told = Told()
    repeats = Repeats(told.tell, told.clock)
    for second in range(7200):
        told.now_s = float(second)
        repeats.say(f"{second} is refused", "refused")
    seconds = [int(at_s) for at_s, _ in told.said]
    assert seconds == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030, 3630, 4230, 4830, 5430, 6030, 6630]
    assert told.said[2][1] == "30 is refused (and 19 times more like it)"


def test_what_strangers_put_into_a_message_makes_no_kind_of_its_own() -> None:
    kinds = {kind_of(too_long(1000, index=0, beginning=b"%d" % n + b"'\"", size_bytes=2000 + n)) for n in range(9)}
    assert len(kinds) == 1
    assert kinds != {kind_of(CodecError("it has 2 parts"))}


def test_what_was_not_for_long_is_new() -> None:
    told = Told()
    repeats = Repeats(told.tell, told.clock)
    for told.now_s in (0.0, 1.0, LONGEST_AGAIN_S + 2):
        repeats.say("x")
    assert told.said == [(0.0, "x"), (LONGEST_AGAIN_S + 2, "x")]


def test_however_many_kinds_strangers_think_of() -> None:
    told = Told()
    repeats = Repeats(told.tell, told.clock)
    for number in range(10_000):
        told.now_s = number / 100
        repeats.say(f"kind {number}")
    assert MOST_KINDS < len(told.said) <= MOST_KINDS + 4
    told.now_s += LONGEST_AGAIN_S + 1
    assert repeats.say("another"), "those before are forgotten"


def test_absence_is_told_with_each_cause_and_how_often_it_was_tried() -> None:
    told = Told()
    absence = Absence(told.tell, told.clock)
    for second in range(100):
        told.now_s = float(second)
        absence.look("refused" if second < 50 else "no answer", "there", second + 1)
    absence.look(None, "there")
    assert [text for _, text in told.said] == [
        "refused",
        "refused; tried 11 times",
        "refused; tried 31 times",
        "no answer",
        "no answer; tried 61 times",
        "no answer; tried 81 times",
        "there",
    ]


def test_who_comes_and_goes_is_told_more_and_more_seldom() -> None:
    told = Told()
    absence = Absence(told.tell, told.clock)
    for second in range(3600):
        told.now_s = float(second)
        absence.look("refused" if second % 2 else None, "there", 1)
    assert 10 < len(told.said) < 30


def test_who_is_waited_for_and_never_tried_is_told_once() -> None:
    told = Told()
    absence = Absence(told.tell, told.clock)
    for second in range(3600):
        told.now_s = float(second)
        absence.look("nobody has come yet", "there")
    assert len(told.said) == 1
