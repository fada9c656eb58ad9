"""Commands, folders, environments and secrets that cannot work."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import HEAD, READER, Case, case, check_case, parametrized, writer

COMMANDS = [
    case(
        "nothing to run",
        HEAD + '[processors.¶a]\nwrites = "x"\n' + READER,
        "says not what to run / write exactly one of command, image or use",
    ),
    case(
        "two ways",
        HEAD + '[processors.¶a]\ncommand = ["cat"]\nuse = "f"\nwrites = "x"\n' + READER,
        "has command and use",
        files={"f/processor.toml": 'command = ["cat"]'},
    ),
    case("empty list", HEAD + '[processors.a]\ncommand = ¶[]\nwrites = "x"\n' + READER, "is an empty list"),
    case("empty string", HEAD + '[processors.a]\ncommand = ¶""\nwrites = "x"\n' + READER, "is empty"),
    case("blank string", HEAD + '[processors.a]\ncommand = ¶" "\nwrites = "x"\n' + READER, "is empty"),
    case(
        "empty program",
        HEAD + '[processors.a]\ncommand = [¶"", "a"]\nwrites = "x"\n' + READER,
        "the program's name is empty",
    ),
    case(
        "number in list",
        HEAD + '[processors.a]\ncommand = ["cat", ¶5]\nwrites = "x"\n' + READER,
        'put it in quotes: "5"',
    ),
    *[
        case(
            f"shell {name}",
            HEAD + f"[processors.a]\ncommand = ¶'''{text}'''\nwrites = \"x\"\n" + READER,
            f'"{operator}" has no meaning here',
        )
        for name, text, operator in (
            ("pipe", "cat | sort", "|"),
            ("to", "cat > f", ">"),
            ("from", "cat < f", "<"),
            ("and", "cat && cat", "&"),
            ("semicolon", "cat; cat", ";"),
            ("substitution", 'cat "$(date)"', "$("),
            ("backtick", "cat `date`", "`"),
        )
    ],
    case(
        "shows sh",
        HEAD + '[processors.a]\ncommand = ¶"cat | sort"\nwrites = "x"\n' + READER,
        'write ["sh", "-c", "cat | sort"]',
    ),
    case("open quote", HEAD + '[processors.a]\ncommand = ¶"cat \'a"\nwrites = "x"\n' + READER, "no closing quotation"),
    case(
        "no program",
        HEAD + '[processors.a]\ncommand = ¶["no-such-program"]\nwrites = "x"\n' + READER,
        'there is no program "no-such-program" / install it, or write its path; PATH is',
    ),
    case("variable first", HEAD + '[processors.a]\ncommand = ¶"A=b cat"\nwrites = "x"\n' + READER, "put A in env"),
    case(
        "file beside",
        HEAD + '[processors.a]\ncommand = ¶["here.sh"]\nwrites = "x"\n' + READER,
        'write "./here.sh"',
        files={"here.sh": "#!/bin/sh\n"},
    ),
    case(
        "no such path", HEAD + '[processors.a]\ncommand = ¶["./gone"]\nwrites = "x"\n' + READER, '"./gone" is not there'
    ),
    case(
        "not executable",
        HEAD + '[processors.a]\ncommand = ¶["./data"]\nwrites = "x"\n' + READER,
        "is not executable",
        files={"data": "x"},
    ),
    case(
        "a folder",
        HEAD + '[processors.a]\ncommand = ¶["./f"]\nwrites = "x"\n' + READER,
        "is a folder",
        files={"f/x": "x"},
    ),
    case(
        "no interpreter",
        HEAD + '[processors.a]\ncommand = ¶["./s"]\nwrites = "x"\n' + READER,
        'the interpreter "/no/such/sh", which is not there',
        files={"s": "#!/no/such/sh\n"},
    ),
    case(
        "own PATH",
        HEAD + '[processors.a]\ncommand = ¶["cat"]\nenv = { PATH = "/nowhere" }\nwrites = "x"\n' + READER,
        'PATH is "/nowhere"',
    ),
    case("name too long", writer(f'directory = ¶"{"x" * 300}"'), "is not there"),
    case("program too long", writer("").replace('["cat"]', f'¶["./{"x" * 300}"]', 1), "is not there"),
    case("word too long", writer("").replace('["cat"]', f'¶["{"x" * 300}"]', 1), "there is no program"),
    case("secret too long", writer(f'secrets = {{ A = ¶"file:{"x" * 300}" }}'), "cannot be read: file name too long"),
    case("use too long", writer("").replace('command = ["cat"]', f'use = ¶"{"x" * 300}"', 1), "is not there"),
    case("no folder", writer('directory = ¶"gone"'), "gone is not there"),
    case("folder is a file", writer('directory = ¶"f"'), "f is no folder", files={"f": "x"}),
    case("params without use", writer("¶params = { a = 1 }"), "params go with use"),
    case(
        "long argument",
        HEAD + f'[processors.a]\ncommand = ¶["cat", "{"x" * 131072}"]\nwrites = "x"\n' + READER,
        "128 KiB",
    ),
    case("long variable", writer(f'env = {{ A = ¶"{"x" * 131072}" }}'), "env.A: is longer than 128 KiB"),
    case("our variable", writer('env = { ¶CONNECTOR_RUN = "1" }'), "are set by the runner"),
    case("env secret", writer('secrets = { KEY = ¶"env:NOT_SET" }'), "the environment variable NOT_SET is not set"),
    case("file secret", writer('secrets = { KEY = ¶"file:gone" }'), 'the file "gone" cannot be read: no such file'),
    case("twice", writer('env = { KEY = "a" }\nsecrets = { ¶KEY = "env:SET" }'), "KEY stands in env as well"),
]


@parametrized(COMMANDS)
def test_commands(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")
