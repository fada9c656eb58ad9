"""Keys and values that a pipeline file may not have: what is said about them, and where."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import HEAD, READER, Case, case, channel, check_case, middle, parametrized, writer

GRAMMAR = [
    case("no name", "¶" + writer("", head=""), 'the key "name" is missing'),
    case("bad name", writer("", head='name = ¶"Flights"\n'), "begins with a small letter"),
    case("long name", writer("", head=f'name = ¶"{"a" * 64}"\n'), "at most 63 characters, this one has 64"),
    case("name is no string", writer("", head="name = ¶5\n"), 'expected a string, found 5 / put it in quotes: "5"'),
    case("no processors", '¶name = "p"\n', 'the key "processors" is missing'),
    case("no processor", 'name = "p"\nprocessors = ¶{}\n', "processors: is empty"),
    case("bad processor name", HEAD + '[processors.¶A]\ncommand = ["cat"]\n', "begins with a small letter"),
    case("processor no table", 'name = "p"\n[processors]\na = ¶1\n', "expected a table, found 1"),
    case(
        "unknown top key", writer("", head=HEAD + "¶drian = 1\n"), 'drian: unknown key "drian" / did you mean "drain"?'
    ),
    case("services", HEAD + '[¶services.a]\ncommand = ["cat"]\n', 'unknown key "services" / write "processors"'),
    case("nothing near", writer("¶zzz = 1"), 'unknown key "zzz" / "connector schema" lists the keys'),
    case("drain", writer("", head=HEAD + 'drain = ¶"30"\n'), '"30" is not a duration'),
    case("drain type", writer("", head=HEAD + "drain = ¶30\n"), 'expected a string, found 30 / put it in quotes: "30"'),
    case("environment", writer("¶environment = { A = 'b' }"), 'write "env"'),
    case("volumes", writer("¶volumes = []"), 'write "mounts"'),
    case("working_dir", writer("¶working_dir = '.'"), 'write "directory"'),
    case("cwd", writer("¶cwd = '.'"), 'write "directory"'),
    case("healthcheck", writer("¶healthcheck = 1"), 'write "ready" or "live"'),
    case("depends_on", writer("¶depends_on = ['b']"), "the channels order the processors"),
    case("inputs", HEAD + '[processors.a]\ncommand = ["cat"]\n¶inputs = "x"\n', 'write "reads"'),
    case("outputs", HEAD + '[processors.a]\ncommand = ["cat"]\n¶outputs = "x"\n' + READER, 'write "writes"'),
    case(
        "read",
        HEAD + '[processors.a]\ncommand = ["cat"]\nwrites = "x"\n[processors.b]\ncommand = ["cat"]\n¶read = "x"',
        'write "reads"',
    ),
    case("near miss", writer("¶max_mesage = 1"), 'did you mean "max_message"?'),
    case("dashes", writer("¶continue-on-error = true"), 'did you mean "continue_on_error"?'),
    case("restart no", middle('restart = ¶"no"'), 'did you mean "never"?'),
    case("restart unless-stopped", middle('restart = ¶"unless-stopped"'), 'did you mean "always"?'),
    case("restart false", middle("restart = ¶false"), 'did you mean "never"?'),
    case("restart when", middle('restart = { when = ¶"no" }'), 'did you mean "never"?'),
    case("restart unknown key", middle('restart = { ¶backof = "1s" }'), 'did you mean "backoff"?'),
    case("backoff", middle('restart = { backoff = ¶"1" }'), "a backoff is one duration or a range"),
    case("backoff range", middle('restart = { backoff = ¶"1s-2s" }'), "a range such as"),
    case("backoff shrinks", middle('restart = { backoff = ¶"2s..1s" }'), "ends below its beginning"),
    case(
        "limit",
        middle('restart = { limit = ¶"5/60s" }'),
        'is not a rate; write how many in which time, such as "5 in 60s"',
    ),
    case("limit in no time", middle('restart = { limit = ¶"5 in 0s" }'), "is zero or too large"),
    case("reset_after zero", middle('restart = { reset_after = ¶"0s" }'), "is zero"),
    case(
        "contract",
        middle('contract = ¶"onetoone"'),
        'expected "acknowledged", "batch", "one-to-one" or "stream", found "onetoone" / did you mean',
    ),
    case("resume", writer('resume = ¶"skp"'), 'did you mean "skip"?'),
    case("in_flight", middle('in_flight = ¶"1MiB"'), 'expected a table, found "1MiB"'),
    case("in_flight bytes", middle('in_flight = { bytes = ¶"1MB" }'), 'is not a size; write "1MiB"'),
    case("in_flight zero", middle("in_flight = { bytes = ¶0 }"), "0 is too small; at least 1"),
    case("in_flight messages", middle("in_flight = { messages = ¶0 }"), "at least 1"),
    case("replicas zero", middle("replicas = ¶0"), "at least 1"),
    case("replicas text", middle('replicas = ¶"2"'), 'expected a whole number, found "2" / without quotes: 2'),
    case("replicas half", middle("replicas = ¶1.5"), "expected a whole number, found 1.5"),
    case("replicas true", middle("replicas = ¶true"), "expected a whole number, found true"),
    case("max_message", middle('max_message = ¶"16 MB"'), 'write "16MiB"'),
    case("max_message zero", middle('max_message = ¶"0MiB"'), "is zero"),
    case("guard", middle('guard = ¶"jsn"'), 'did you mean "json"?'),
    case("guard without match", middle("¶guard = {}"), 'the key "match" is missing'),
    case(
        "guard regex",
        middle("guard = { match = ¶'(a' }"),
        "no regular expression: missing ), unterminated subpattern at character 1",
    ),
    case("stop", middle('stop = { grace = ¶"5" }'), "is not a duration"),
    case("signal", middle('stop = { signal = ¶"SIGINT" }'), 'did you mean "INT"?'),
    case("stall zero", middle('stall = ¶"0s"'), "is zero"),
    case("continue_on_error", middle('continue_on_error = ¶"yes"'), 'expected true or false, found "yes"'),
    case("cpus", middle("resources = { cpus = ¶0 }"), "more than 0"),
    case("cpus nan", middle("resources = { cpus = ¶nan }"), "no finite number"),
    case("env number", middle("env = { PORT = ¶8080 }"), 'expected a string, found 8080 / put it in quotes: "8080"'),
    case("env name", middle('env = { ¶"A=B" = "c" }'), 'holds no "="'),
    case(
        "secret",
        middle('secrets = { KEY = ¶"hunter2" }'),
        'processors.m.secrets.KEY: a secret is "file:PATH" or "env:NAME"',
    ),
    case("nul", writer('env = { A = ¶"\\u0000" }'), "NUL character"),
    case("channel key", channel("¶capactiy = 5"), 'did you mean "capacity"?'),
    case("capacity", channel('capacity = ¶"8mb"'), 'write "8MiB"'),
    case("on_full", channel('on_full = ¶"drop"'), 'expected "block", "drop-newest" or "drop-oldest"'),
    case("kind", channel('kind = ¶"memry"'), 'there is no kind of channel "memry" / did you mean "memory"?'),
    case(
        "several at once",
        """name = ¶"P"
[processors.a]
command = ["cat"]
writes = "x"
¶environment = {}
max_message = ¶"1MB"
[processors.b]
command = [¶"no-such-program"]
reads = "x"
replicas = ¶0
""".replace('[¶"no', '¶["no'),
        "small letter",
        "env",
        "1MiB",
        "no program",
        "at least 1",
    ),
]


@parametrized(GRAMMAR)
def test_grammar(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


SYNTAX = [
    case("value missing", "name = ¶\n", "no valid TOML: invalid value"),
    case("end of file", 'name = "p"\na = [1,¶', "no valid TOML: invalid value"),
    case("table twice", "[a]\n[a¶]\n", "no valid TOML: cannot declare"),
    case(
        "interpolation",
        writer('env = { A = ¶"${NOT_SET}" }'),
        "the environment variable NOT_SET is not set / set it, or write ${NOT_SET:-default}",
    ),
    case("interpolation open", writer('env = { A = ¶"a ${b" }'), 'write ${NAME} or ${NAME:-default}, or "$${"'),
    case("interpolated value", writer("", head=HEAD + 'drain = ¶"${SET}"\n'), '"value" is not a duration'),
    case("interpolated number", middle('replicas = ¶"${SET}"'), 'expected a whole number, found "value"'),
]


@parametrized(SYNTAX)
def test_syntax_and_interpolation(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")
