"""What `bridge = "zeromq"` asks of the other keys, and what becomes of its ports."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import Case, case, check_case, load_case, middle, parametrized, piped, writer

PLAIN = 'bridge = "zeromq"\n'
SESSION = PLAIN + 'contract = "acknowledged"\n'

WRONG = [
    case("one-to-one", middle(PLAIN + 'contract = ¶"one-to-one"'), 'does not go with contract = "one-to-one"'),
    case("batch", middle(PLAIN + 'contract = ¶"batch"'), 'does not go with contract = "batch"'),
    case("end by stdio", middle('¶end = "empty"'), 'goes with bridge = "zeromq"'),
    case("end of a session", middle(SESSION + '¶end = "signal"'), "has an end of its own"),
    case("end of a source", writer(PLAIN + '¶end = "signal"'), "reads nothing that could end"),
    case("another end", middle(PLAIN + 'end = ¶"eof"'), '"eof"'),
    case("codec", middle(PLAIN + '¶codec = "lines"'), "needs no codec"),
    case("guard", middle(PLAIN + '¶guard = "json"'), "nothing else is on its sockets"),
    case(
        "stderr",
        middle(PLAIN).replace('writes = "x"', 'writes = ¶{ stdout = "x", stderr = "y" }')
        + '[processors.c]\ncommand = ["cat"]\nreads = "y"\n',
        "stderr is the log",
    ),
    case("pipe", piped(keys_b='restart = "never"\n¶bridge = "zeromq"'), "a socket of ZeroMQ is none of its ends"),
    case("messages in flight", middle(PLAIN + "in_flight = { ¶messages = 5 }"), "cannot be counted out"),
    case("codec by name", middle('codec = ¶"zeromq"'), 'there is no codec "zeromq"'),
]  # fmt: skip
FINE = [
    case("plain", middle(PLAIN + 'end = "empty"\nreplicas = 3\nin_flight = { bytes = 100 }\nstall = "5s"')),
    case("session", middle(SESSION + 'codec = "null"\nreplicas = 3\nin_flight = { messages = 5 }')),
    case("source", writer(PLAIN + 'resume = "skip"')),
    case("another word", middle('bridge = ¶"zmq"'), '"zeromq"'),
]


@parametrized(WRONG)
def test_what_does_not_go_together(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


@parametrized(FINE)
def test_what_does(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


def test_the_ports_of_a_socket_carry_messages(tmp_path: Path) -> None:
    codecs = {}
    for end in ("", 'end = "empty"\n', 'end = "signal"\n'):
        found = load_case(middle(PLAIN + end), tmp_path).pipeline.processors["m"]
        codecs[end] = (found.end, found.reads[0].codec, found.writes[0].codec, found.told_by_signal)
    assert list(codecs.values()) == [
        ("signal", "zeromq", "zeromq", True),
        ("empty", "zeromq-no-empty", "zeromq", False),
        ("signal", "zeromq", "zeromq", True),
    ]
    session = load_case(middle(SESSION + 'codec = "null"'), tmp_path).pipeline.processors["m"]
    assert (session.reads[0].codec, session.told_by_signal) == ("null", False)
