"""What is allowed when; which messages are answered, against a model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.protocol import encoder
from runner.protocol.deliveries import Deliveries
from runner.protocol.errors import REMEDIES, ProtocolError
from runner.protocol.frames import MOST_INLINE_STATE_BYTES, Ack, Out
from runner.protocol.session import Phase, Session
from tests.docs.pages import PROJECT


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 8), st.tuples(st.integers(0, 40), st.integers(0, 6))), max_size=40))
def test_deliveries_against_a_set(steps: list[int | tuple[int, int]]) -> None:
    deliveries = Deliveries()
    open_: set[int] = set()
    for step in steps:
        if isinstance(step, int):
            first = deliveries.add(step)
            open_ |= set(range(first, first + step))
        else:
            first, last = step[0], step[0] + step[1]
            named = set(range(first, last + 1))
            assert deliveries.answer(first, last) == (named <= open_)
            if named <= open_:
                open_ -= named
        assert deliveries.in_flight == len(open_)
        assert [each for first, last in deliveries.unanswered() for each in range(first, last + 1)] == sorted(open_)
        assert [each for each in range(400) if deliveries.is_open(each)] == sorted(open_)
        assert len(deliveries._starts) <= len(open_) + 1


def opened(*, stateful: bool = False, messages: int = 3) -> Session:
    session = Session(reads=["stdin"], writes=["stdout"], max_payload_bytes=1000)
    session.receive(b"log 2 info\nhi" + (b"ready 0 1 stateful=yes\n" if stateful else b"ready 0 1\n"))
    session.deliver([b"m"] * messages, number=7, attempt=1, port="stdin", channel="c@1")
    return session


REFUSED = [
    (b"ready 0 1\n", "twice-ready"),
    (b"out 0 4 stdout\n", "not-in-flight"),
    (b"ack 0 1\nout 0 1 stdout\n", "not-in-flight"),
    (b"ack 0 1\nack 0 1\n", "not-in-flight"),
    (b"ack 0 2\nack 0 1 3\n", "not-in-flight"),
    (b"ack 0 0\n", "not-in-flight"),
    (b"ack 0 1 4\n", "not-in-flight"),
    (b"nack 0 9\n", "not-in-flight"),
    (b"state 0 1\n", "not-stateful"),
    (b"pong 0 1\n", "wrong-pong"),
    (b"end 0\nlog 0 info\n", "after-end"),
    (b"end 0\nout 0 0 stdout\n", "after-end"),
    (b"end 0\nready 0 1\n", "after-end"),
]


@pytest.mark.parametrize(("bad", "code"), REFUSED)
def test_what_an_open_session_refuses(bad: bytes, code: str) -> None:
    session = opened()
    with pytest.raises(ProtocolError) as found:
        session.receive(bad)
    assert found.value.code == code
    assert found.value.frame == 2 + bad.count(b"\n")
    assert len(session.rescued()) == bad.count(b"\n") - 1


@pytest.mark.parametrize(
    ("bad", "code"),
    [(b"ack 0 2\n", "out-of-order"), (b"nack 0 3\n", "out-of-order"), (b"state 0 2\n", "wrong-state-number")],
)
def test_what_a_stateful_session_refuses(bad: bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as found:
        opened(stateful=True).receive(bad)
    assert found.value.code == code


@pytest.mark.parametrize("first", [b"out 0 0 stdout\n", b"ack 0 1\n", b"state 0 1\n", b"end 0\n", b"pong 0 1\n"])
def test_nothing_before_ready(first: bytes) -> None:
    session = Session(reads=["stdin"], writes=["stdout"], max_payload_bytes=1000)
    with pytest.raises(ProtocolError) as found:
        session.receive(first)
    assert found.value.code == "not-ready"


def test_versions_and_states_that_are_refused() -> None:
    session = Session(reads=[], writes=["stdout"], max_payload_bytes=1000, no_states="it has replicas")
    with pytest.raises(ProtocolError, match="it has replicas"):
        session.receive(b"ready 0 1 stateful=yes\n")
    with pytest.raises(ProtocolError, match="version 2"):
        Session(reads=[], writes=[], max_payload_bytes=1000).receive(b"ready 0 2\n")


def test_answers_in_any_order_and_ranges() -> None:
    session = opened(messages=6)
    assert session.receive(b"ack 0 5 6\nout 1 2 stdout\nxack 0 2\nack 0 1\nnack 0 3 delay=5\nack 0 4\n")[1] == Out(
        2, "stdout", b"x"
    )
    assert session.deliveries.in_flight == 0
    assert b"".join(session.end_of("stdin")) == b"end 0 stdin\n"
    assert b"".join(session.end()) == b"end 0\n"
    session.receive(b"out 1 0 stdout\nxend 0\n")
    assert session.phase is Phase.ENDED


def test_what_came_before_garbage_is_still_checked_and_rescued() -> None:
    session = opened()
    with pytest.raises(ProtocolError) as found:
        session.receive(b"ack 0 1\nack 0 9\nrubbish\n")
    assert found.value.code == "not-in-flight"
    session = opened()
    with pytest.raises(ProtocolError) as found:
        session.receive(b"ack 0 1\nrubbish\n")
    assert found.value.code == "unknown-kind"
    assert session.rescued() == [Ack(1, 1)]


def test_pings_and_states_are_confirmed() -> None:
    session = opened(stateful=True)
    assert b"".join(session.ping()) == b"ping 0 1\n"
    session.receive(b"pong 0 1\nack 0 1 2\nstate 2 1\nabstate 2 2\ncd")
    assert b"".join(session.committed(2)) == b"ack-state 0 2\n"
    with pytest.raises(ProtocolError):
        session.receive(b"pong 0 1\n")


def test_payloads_are_not_copied() -> None:
    payload = memoryview(b"x" * 10)
    _, parts = opened().deliver([payload, b""], number=1, attempt=2, port="stdin", channel="c@1")
    assert parts[1] is payload
    assert (parts[0], parts[2]) == (b"msg 10 4 1 2 stdin c@1\n", b"msg 0 5 2 2 stdin c@1\n")


def test_the_opening() -> None:
    assert b"".join(encoder.opening(max_payload_bytes=9, state=None)) == b"ack-state 0 0 state=none max=9\n"
    assert b"".join(encoder.opening(max_payload_bytes=9, state=b"")) == b"ack-state 0 0 state=here max=9\n"
    got = b"".join(encoder.opening(max_payload_bytes=9, state=None, state_file="/a b"))
    assert got == b"ack-state 4 0 state=file max=9\n/a b"
    with pytest.raises(AssertionError):
        encoder.opening(max_payload_bytes=9, state=b"x" * (MOST_INLINE_STATE_BYTES + 1))


def test_the_page_names_every_error() -> None:
    page = (PROJECT / "docs" / "protocol.md").read_text()
    named = {line.split("`")[1] for line in page.partition("## Errors")[2].splitlines() if line.startswith("| `")}
    assert named == set(REMEDIES)
