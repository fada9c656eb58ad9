"""What a pipe channel asks of its two ends."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import Case, case, check_case, parametrized, piped

PIPES = [
    case("good", piped()),
    case("capacity", piped(keys_x="¶capacity = 5"), "a pipe channel has none"),
    case("on_full", piped(keys_x='¶on_full = "block"'), "a pipe channel has none"),
    case("codec", piped(keys_a='codec = "null"').replace('reads = "x"', 'reads = ¶"x"'), "a pipe converts nothing"),
    case("restart", piped(keys_b='restart = ¶"always"'), 'write restart = "never"'),
    case("restart by default", piped(keys_b="").replace('reads = "x"', 'reads = ¶"x"'), 'write restart = "never"'),
    case(
        "restart of source",
        piped(keys_a='resume = "live"').replace('writes = "x"', 'writes = ¶"x"'),
        'write restart = "never"',
    ),
    case("contract", piped(keys_b='restart = "never"\n¶contract = "one-to-one"'), 'the contract is "stream"'),
    case("replicas", piped(keys_b='restart = "never"\n¶replicas = 2'), "there is one instance"),
    case("guard", piped(keys_a='¶guard = "json"'), "there is no guard"),
    case("in_flight", piped(keys_b='restart = "never"\n¶in_flight = { bytes = 5 }'), "nothing is counted in flight"),
    case("stall", piped(keys_b='restart = "never"\n¶stall = "5s"'), "no answer can be missed"),
    case("max_message", piped(keys_a="¶max_message = 5"), "messages are not looked at"),
    case(
        "two readers",
        piped() + '[processors.c]\ncommand = ["cat"]\nreads = ¶"x"\nrestart = "never"\n',
        "has one reader, and b is it already",
    ),
    case(
        "two writers",
        piped() + '[processors.c]\ncommand = ["cat"]\nwrites = ¶"x"\n',
        "has one writer, and a is it already",
    ),
    case(
        "beside another",
        piped().replace('reads = "x"', 'reads = [¶"x", "y"]') + '[processors.c]\ncommand = ["cat"]\nwrites = "y"\n',
        "takes all of stdin",
    ),
]


@parametrized(PIPES)
def test_pipe_channels(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")
