"""Ports, channels and keys that do not go together."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import HEAD, READER, Case, case, check_case, middle, parametrized, writer

PORTS = [
    case("messages in flight of a stream", middle("in_flight = { ¶messages = 5 }"), "acknowledges at the end"),
    case("empty list", middle("").replace('reads = "w"', "reads = ¶[]"), "is an empty list"),
    case(
        "wrong type",
        middle("").replace('reads = "w"', "reads = ¶5"),
        "expected a string, a list of strings or a table, found 5",
    ),
    case("bad channel name", middle("").replace('reads = "w"', 'reads = ¶"W"'), "small letter"),
    case(
        "reads on stdout",
        middle("").replace('reads = "w"', 'reads = { stdin = "w", ¶stdout = "x" }'),
        "nothing can be read on stdout",
    ),
    case(
        "writes on stdin",
        middle("").replace('writes = "x"', 'writes = { ¶stdin = "x", stdout = "x" }'),
        "nothing can be written on stdin",
    ),
    case("twice in a list", middle("").replace('reads = "w"', 'reads = ["w", ¶"w"]'), 'the channel "w" is named twice'),
    case(
        "on two ports",
        middle("").replace('reads = "w"', 'reads = { stdin = "w", other = ¶"w" }'),
        "is read by the port stdin already",
    ),
    case(
        "same variable",
        middle("").replace('reads = "w"', 'reads = { a-b = "w", ¶a_b = "q" }')
        + '[processors.q]\ncommand = ["cat"]\nwrites = "q"',
        "have the same variable CONNECTOR_READER_A_B",
    ),
    case(
        "key twice",
        HEAD + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\nwrites = "y"¶\n' + READER,
        "no valid TOML: cannot overwrite a value",
    ),
    case("codec", middle('codec = ¶"line"'), 'there is no codec "line" / did you mean "lines"?'),
    case(
        "codec of no port",
        middle('codec = { ¶lookup = "lines" }'),
        'there is no port "lookup" / it has stdin and stdout',
    ),
    case("codec by port", middle('codec = { stdin = ¶"jsonl" }'), "there is no codec"),
]


@parametrized(PORTS)
def test_ports(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


RULES = [
    case("nobody writes", HEAD + '[processors.b]\ncommand = ["cat"]\nreads = ¶"x"\n', 'nobody writes the channel "x"'),
    case("nobody reads", HEAD + '[processors.b]\ncommand = ["cat"]\nwrites = ¶"x"\n', 'nobody reads the channel "x"'),
    case(
        "misspelled channel",
        HEAD
        + '[processors.a]\ncommand = ["cat"]\nwrites = ¶"raww"\n'
        + '[processors.b]\ncommand = ["cat"]\nreads = [¶"raw"]\n',
        'nobody reads the channel "raww" / did you mean "raw"?',
        'nobody writes the channel "raw" / did you mean "raww"?',
    ),
    case("unused channel", writer("") + "[channels.¶y]\n", "no processor writes or reads this channel"),
    case(
        "cycle",
        f"""{HEAD}[processors.a]
command = ["cat"]
reads = "y"
writes = ¶"x"
[processors.b]
command = ["cat"]
reads = "x"
writes = "y"
""",
        'the channels "x" and "y" make a cycle, which would wait for itself: a -> "x" -> b -> "y" -> a',
    ),
    case(
        "reads itself", HEAD + '[processors.a]\ncommand = ["cat"]\nreads = "x"\nwrites = ¶"x"\n', 'the channel "x" make'
    ),
    case("resume of no source", middle('¶resume = "skip"'), "is for sources"),
    case(
        "restart without resume", writer('¶restart = "on-failure"'), 'a source with resume = "none" is never restarted'
    ),
    case("restart table", writer('¶restart = { backoff = "1s" }'), "never restarted"),
    case("order", middle('order = ¶"keep"'), "have an order to keep"),
    case(
        "one-to-one without stdin",
        HEAD + '[processors.a]\ncommand = ["cat"]\ncontract = ¶"one-to-one"\nwrites = "x"\n' + READER,
        "one-to-one answers what is read on stdin",
    ),
    case(
        "acknowledged stderr",
        HEAD
        + '[processors.a]\ncommand = ["cat"]\ncontract = "acknowledged"\nwrites = ¶{ stderr = "x" }\n'
        + READER.replace('"w"', '"x"'),
        "stderr is the log of an acknowledged program",
    ),
    case("acknowledged guard", middle('contract = "acknowledged"\n¶guard = "json"'), "nothing but frames on stdout"),
    case(
        "acknowledged nothing",
        HEAD + '[processors.a]\ncommand = ["cat"]\ncontract = ¶"acknowledged"\n',
        "neither reads nor writes a channel",
    ),
    case(
        "raw acknowledged",
        middle('codec = "raw"\ncontract = ¶"acknowledged"')
        .replace('writes = "w"', 'writes = "w"\ncodec = "raw"')
        .replace('reads = "x"', 'reads = "x"\ncodec = "raw"'),
        "no messages that could be acknowledged",
    ),
    case("live line", middle("live = { ¶line = 'x' }"), "a line tells that a program got ready"),
    case(
        "ready of nothing",
        middle("¶ready = { every = '1s' }"),
        "says not what to look at / write exactly one of line, file",
    ),
    case("ready of two", middle("¶ready = { file = 'x', tcp = 'a:1' }"), "has file and tcp"),
    case("ready regex", middle("ready = { line = ¶'[' }"), "no regular expression"),
    case("ready line every", middle("ready = { line = 'x', ¶every = '1s' }"), "a line is waited for"),
    case("ready program", middle("ready = { command = ¶['no-such'] }"), 'ready.command: there is no program "no-such"'),
    case("live tcp", middle("live = { tcp = ¶'8080' }"), "an address is HOST:PORT"),
    case("live port", middle("live = { tcp = ¶'a:70000' }"), "a port is a number from 1 to 65535"),
    case("live http", middle("live = { http = ¶'localhost' }"), "a URL begins with http"),
    case(
        "raw replicas",
        middle('codec = "raw"\nreplicas = ¶2')
        .replace('writes = "w"', 'writes = "w"\ncodec = "raw"')
        .replace('reads = "x"', 'reads = "x"\ncodec = "raw"'),
        "share out among replicas",
    ),
    case(
        "raw one-to-one",
        middle('codec = "raw"\ncontract = ¶"one-to-one"')
        .replace('writes = "w"', 'writes = "w"\ncodec = "raw"')
        .replace('reads = "x"', 'reads = "x"\ncodec = "raw"'),
        "answered one to one",
    ),
    case(
        "raw guard",
        HEAD
        + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\ncodec = "raw"\nguard = ¶"json"\n'
        + READER
        + 'codec = "raw"',
        "no messages to guard",
    ),
    case(
        "raw conversion",
        HEAD
        + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\ncodec = "raw"\n'
        + '[processors.b]\ncommand = ["cat"]\nreads = ¶"x"\n',
        '"x" is written as raw by a and read as lines',
    ),
    case(
        "raw merge of channels",
        HEAD
        + """[processors.a]
command = ["cat"]
writes = "x"
codec = "raw"
[processors.c]
command = ["cat"]
writes = "y"
codec = "raw"
[processors.b]
command = ["cat"]
¶reads = ["x", "y"]
codec = "raw"
""".replace('¶reads = ["x", "y"]', 'reads = ¶["x", "y"]'),
        "cannot be merged into stdin",
    ),
    case(
        "raw merge of writers",
        HEAD
        + """[processors.a]
command = ["cat"]
writes = "x"
codec = "raw"
[processors.c]
command = ["cat"]
writes = ¶"x"
codec = "raw"
[processors.b]
command = ["cat"]
reads = "x"
codec = "raw"
""",
        "a and c cannot be merged",
    ),
    case(
        "raw skip",
        HEAD
        + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\ncodec = "raw"\nresume = ¶"skip"\n'
        + READER
        + 'codec = "raw"',
        "no messages to count",
    ),
]


@parametrized(RULES)
def test_rules(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


WARNINGS = [
    case(
        "diamond",
        f"""{HEAD}[processors.a]
command = ["cat"]
¶writes = ["x", "y"]
[processors.b]
command = ["cat"]
reads = "x"
writes = "z"
[processors.c]
command = ["cat"]
reads = ["y", "z"]
""",
        "meet again in c",
    ),
    case(
        "diamond of a fan-out",
        f"""{HEAD}[processors.a]
command = ["cat"]
¶writes = "x"
[processors.b]
command = ["cat"]
reads = "x"
writes = "y"
[processors.c]
command = ["cat"]
reads = "x"
writes = "y"
[processors.d]
command = ["cat"]
reads = "y"
""",
        "meet again in d",
    ),
    case("alone", HEAD + '[processors.¶a]\ncommand = ["cat"]\n', "neither reads nor writes"),
    case(
        "guard of a log",
        HEAD + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\n' + READER + '¶guard = "json"',
        "nothing to guard",
    ),
    case("in_flight of a source", writer("¶in_flight = { bytes = 5 }"), "means nothing for a source"),
]


@parametrized(WARNINGS)
def test_warnings(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "warning")
