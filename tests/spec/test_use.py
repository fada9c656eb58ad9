"""`use`: processor.toml, its params, and what it gives to the processors that use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from runner.errors import SpecError
from runner.spec.load import load_file
from runner.spec.model import Processor
from tests.spec.marked import ENV, Case, case, check_case, parametrized

PIPELINE = """name = "p"
[processors.a]
use = "src"
writes = "x"
{keys}
[processors.b]
command = ["cat"]
reads = "x"
"""


def used(folder: Path, template: str, keys: str = "") -> Processor:
    """The processor `a` that uses `template`."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src/processor.toml").write_text(template)
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(keys=keys))
    return load_file(file, env=ENV).pipeline.processors["a"]


def test_the_template_gives_the_defaults_and_the_pipeline_wins(tmp_path: Path) -> None:
    template = """
        name = "http-source"
        version = "1.0"
        description = "Reads an API."
        command = ["cat", "page.mjs"]
        image = "example/http-source:1"
        max_message = "1MiB"
        resume = "skip"
        env = { A = "template", B = "template" }
        stop = { grace = "9s", signal = "INT" }
        restart = { backoff = "1s", limit = "9 in 9s" }
        resources = { memory = "1MiB", pids = 9 }
    """
    keys = """
        max_message = "2MiB"
        env = { B = "pipeline", C = "pipeline" }
        stop = { grace = "1s" }
        restart = { limit = "1 in 1s" }
        resources = { pids = 1 }
    """
    processor = used(tmp_path, template, keys)
    assert processor.command == ("cat", "page.mjs")
    assert processor.directory == tmp_path / "src"
    assert processor.max_message_bytes == 2 << 20
    assert processor.resume == "skip"
    assert processor.env == {"A": "template", "B": "pipeline", "C": "pipeline"}
    assert (processor.stop.grace_s, processor.stop.signal_number) == (1.0, 2)
    assert (processor.restart.backoff.first_s, processor.restart.limit.count) == (1.0, 1)
    assert (processor.resources.memory_bytes, processor.resources.pids) == (1 << 20, 1)


def test_paths_start_from_the_file_they_are_written_in(tmp_path: Path) -> None:
    for name in ("src/run.sh", "src/sub/x", "top/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    template = """
        command = ["./run.sh", "{file}", "{own}"]
        ready = { file = "up" }
        [params.file]
        type = "path"
        [params.own]
        type = "path"
        default = "sub/x"
    """
    processor = used(tmp_path, template, "params = { file = 'top/x' }")
    assert processor.command == (str(tmp_path / "src/run.sh"), str(tmp_path / "top/x"), str(tmp_path / "src/sub/x"))
    assert processor.ready is not None
    assert processor.ready.value == str(tmp_path / "src/up")
    assert used(tmp_path, 'command = ["cat"]\ndirectory = "sub"').directory == tmp_path / "src/sub"
    assert used(tmp_path, 'command = ["cat"]\ndirectory = "sub"', 'directory = "top"').directory == tmp_path / "top"


@pytest.mark.parametrize(
    ("declaration", "given", "value", "word"),
    [
        ('type = "string"', "v", "v", "v"),
        ('type = "string"\nchoices = ["a", "b"]', "b", "b", "b"),
        ('type = "integer"\nminimum = 1\nmaximum = 5', 5, 5, "5"),
        ('type = "number"\nminimum = 0', 0.5, 0.5, "0.5"),
        ('type = "number"', 2, 2, "2"),
        ('type = "boolean"', True, True, "true"),
        ('type = "boolean"', False, False, "false"),
        ('type = "duration"\nmaximum = "5m"', "30s", 30, "30"),
        ('type = "duration"', "250ms", 0.25, "0.25"),
        ('type = "size"\nminimum = "1KiB"', "64KiB", 65536, "65536"),
        ('type = "size"', 5, 5, "5"),
        ('type = "list"\nminimum = 1\nchoices = ["a", "b"]', ["a", "b"], ["a", "b"], "a b"),
        ('type = "integer"', "${COUNT}", 3, "3"),
        ('type = "number"', "${COUNT}", 3.0, "3.0"),
        ('type = "string"', "${COUNT}", "3", "3"),
    ],
)
def test_params_by_type(tmp_path: Path, declaration: str, given: Any, value: object, word: str) -> None:
    template = f'command = ["cat", "{{p}}"]\n[params.p]\n{declaration}\n'
    processor = used(
        tmp_path, template, tomli_w.dumps({"params": {"p": given}}).replace("[params]\n", "params.").strip()
    )
    assert processor.params == {"p": value}
    assert type(processor.params["p"]) is type(value)
    assert processor.command == ("cat", *word.split(" "))


def test_defaults_and_params_that_are_left_out(tmp_path: Path) -> None:
    template = 'command = ["cat"]\n[params.a]\ntype = "integer"\ndefault = 7\n[params.b]\ntype = "string"\n'
    assert used(tmp_path, template).params == {"a": 7}


def test_only_declared_params_are_put_into_a_command(tmp_path: Path) -> None:
    template = """
        command = ["cat", "{print $1}", '{"url": "{url}", "n": {n}}', "{URL}{url}{url}", "{{url}}", "a{n"]
        [params.url]
        type = "string"
    """
    processor = used(tmp_path, template, 'params = { url = "{n}" }')
    assert processor.command[1:] == ("{print $1}", '{"url": "{n}", "n": {n}}', "{URL}{n}{n}", "{{n}}", "a{n")


def test_secret_params_are_told_apart_and_not_shown(tmp_path: Path) -> None:
    template = 'command = ["cat"]\n[params.token]\ntype = "string"\nsecret = true\n'
    processor = used(tmp_path, template, 'params = { token = "hunter2" }')
    assert processor.secret_params == {"token"}
    assert processor.params == {"token": "hunter2"}
    assert "hunter2" not in repr(processor)


def test_a_wrong_secret_param_is_not_shown(tmp_path: Path) -> None:
    template = 'command = ["cat"]\n[params.token]\ntype = "string"\nsecret = true\nchoices = ["a"]\n'
    with pytest.raises(SpecError) as caught:
        used(tmp_path, template, 'params = { token = "hunter2" }')
    assert "hunter2" not in str(caught.value)


def test_ports_and_codecs(tmp_path: Path) -> None:
    template = """
        command = ["cat"]
        codec = "null"
        [writes.stdout]
        codec = "length-prefixed"
        [writes.errors]
        [writes.more]
    """
    keys = 'writes = { stdout = "x", errors = "e", more = "m", stderr = "n" }\ncodec = { more = "lines" }'
    text = (
        PIPELINE.format(keys=keys).replace('writes = "x"\n', "").replace('reads = "x"', 'reads = ["x", "e", "m", "n"]')
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/processor.toml").write_text(template)
    (tmp_path / "pipeline.toml").write_text(text)
    processor = load_file(tmp_path / "pipeline.toml", env=ENV).pipeline.processors["a"]
    assert {port.name: port.codec for port in processor.writes} == {
        "stdout": "length-prefixed",
        "errors": "null",
        "more": "lines",
        "stderr": "null",
    }


def template_case(id: str, keys: str, template: str, *messages: str) -> Case:  # noqa: A002
    return case(id, PIPELINE.format(keys=keys), *messages, files={"src/processor.toml": template})


COMMAND = 'command = ["cat"]\n'
PARAM = COMMAND + '[params.p]\ntype = "integer"\nminimum = 2\nmaximum = 4\ndefault = 3\n'
ERRORS = [
    case("no folder", PIPELINE.format(keys="").replace('"src"', '¶"src"'), 'the folder "src" is not there'),
    case(
        "no file",
        PIPELINE.format(keys="").replace('"src"', '¶"src"'),
        'the folder "src" has no processor.toml',
        files={"src/x": ""},
    ),
    case("a file", PIPELINE.format(keys="").replace('"src"', '¶"src"'), "is no folder", files={"src": ""}),
    template_case("no toml", "", "command =¶", "no valid TOML"),
    template_case("no command", "", "¶name = 'a'\n", "the command is missing"),
    template_case("build file", "", COMMAND + "[build]\ndockerfile = ¶'gone'\n", "gone is not there"),
    template_case("build both", "", COMMAND + "[build]\ndockerfile = 'processor.toml'\n¶base = 'x'\n", "generated"),
    template_case("build context", "", COMMAND + "[build]\n¶context = '.'\n", "context goes with dockerfile"),
    template_case("reads string", "", COMMAND + 'reads = ¶"x"\n', "expected a table"),
    template_case("port schema", "", COMMAND + "[writes.stdout]\n¶schema = 'x'\n", "not supported yet"),
    template_case("port codec", "", COMMAND + "[writes.stdout]\ncodec = ¶'x'\n", 'there is no codec "x"'),
    template_case("runner", "", COMMAND + "¶runner = 'x'\n", 'unknown key "runner"'),
    template_case("unknown key", "", COMMAND + "¶enviroment = {}\n", 'write "env"'),
    template_case("bad value", "", COMMAND + "max_message = ¶'1MB'\n", '"1MiB"'),
    template_case("trust", "", COMMAND + "trust = ¶'none'\n", "expected"),
    template_case("no program", "", 'command = ¶["no-such"]\n', 'there is no program "no-such"'),
    template_case("regex", "", COMMAND + "guard = { match = ¶'(' }\n", "no regular expression"),
    template_case("restart", "", COMMAND + "¶restart = 'always'\n", "never restarted"),
    template_case("interpolation", "", COMMAND + "env = { A = ¶'${NOT_SET}' }\n", "NOT_SET is not set"),
    template_case("unknown param", "params = { ¶q = 1 }", PARAM, 'unknown param "q" / it declares p'),
    template_case("near param", "params = { ¶pp = 1 }", PARAM, 'did you mean "p"?'),
    template_case("param type", "params = { p = ¶'x' }", PARAM, 'expected a whole number, found "x"'),
    template_case("param true", "params = { p = ¶true }", PARAM, "expected a whole number, found true"),
    template_case("param minimum", "params = { p = ¶1 }", PARAM, "1: must be at least 2"),
    template_case("param maximum", "params = { p = ¶5 }", PARAM, "5: must be at most 4"),
    template_case("no type", "", COMMAND + "[params.¶p]\ndefault = 1\n", 'the key "type" is missing'),
    template_case("unknown type", "", COMMAND + "[params.p]\ntype = ¶'int'\n", 'did you mean "integer"?'),
    template_case(
        "default type", "", COMMAND + "[params.p]\ntype = 'integer'\ndefault = ¶'x'\n", "expected a whole number"
    ),
    template_case("default bound", "", PARAM.replace("= 3", "= ¶9"), "9: must be at most 4"),
    template_case(
        "required default",
        "",
        COMMAND + "[params.p]\ntype = 'size'\n¶default = 1\nrequired = true\n",
        "a required param needs no default",
        'the param "p" is missing',
    ),
    template_case(
        "bound of string", "", COMMAND + "[params.p]\ntype = 'string'\n¶minimum = 1\n", "a string has no minimum"
    ),
    template_case("bound type", "", COMMAND + "[params.p]\ntype = 'duration'\nmaximum = ¶5\n", "expected a duration"),
    template_case(
        "choice type", "", COMMAND + "[params.p]\ntype = 'integer'\nchoices = [1, ¶'x']\n", "expected a whole number"
    ),
    template_case(
        "choice",
        "params = { p = ¶'c' }",
        COMMAND + "[params.p]\ntype = 'string'\nchoices = ['a', 'b']\n",
        '"c" is none of its choices: "a" or "b"',
    ),
    template_case(
        "list choice",
        "params = { p = ¶['a', 'c'] }",
        COMMAND + "[params.p]\ntype = 'list'\nchoices = ['a', 'b']\n",
        '"c" is none of its choices',
    ),
    template_case(
        "list too short",
        "params = { p = ¶[] }",
        COMMAND + "[params.p]\ntype = 'list'\nminimum = 1\n",
        "0 elements: must be at least 1",
    ),
    template_case(
        "list of tables",
        "params = { p = ¶[{}] }",
        COMMAND + "[params.p]\ntype = 'list'\n",
        "expected a list of strings",
    ),
    template_case(
        "date", "params = { p = ¶1979-05-27 }", COMMAND + "[params.p]\ntype = 'string'\n", "expected a string, found"
    ),
    template_case(
        "secret in command",
        "",
        "command = ¶['cat', '{p}']\n[params.p]\ntype = 'string'\nsecret = true\n",
        "the param p is secret, and a command can be seen by everybody / read it from CONNECTOR_PARAM_P",
    ),
    template_case(
        "no value in command",
        "",
        "command = ¶['cat', '{p}']\n[params.p]\ntype = 'string'\n",
        "the param p has no value",
    ),
    template_case(
        "empty program",
        "params = { p = [] }",
        "command = ¶['{p}']\n[params.p]\ntype = 'list'\n",
        "the program's name is empty",
    ),
    template_case(
        "list in a word",
        "params = { p = [1] }",
        "command = ¶['cat', 'a{p}']\n[params.p]\ntype = 'list'\n",
        "the list p stands inside of a longer word",
    ),
    template_case(
        "same variable",
        "",
        COMMAND + "[params.a-b]\ntype = 'string'\n[params.¶a_b]\ntype = 'string'\n",
        "have the same variable CONNECTOR_PARAM_A_B",
    ),
    template_case(
        "long param", f'params = {{ p = ¶"{"x" * 131072}" }}', COMMAND + "[params.p]\ntype = 'string'\n", "128 KiB"
    ),
]
ERRORS = [
    each
    if each.id != "required default"
    else Case(each.id, each.text.replace('use = "src"', 'use = ¶"src"'), each.messages[::-1], each.files)
    for each in ERRORS
]


@parametrized(ERRORS)
def test_errors(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


@parametrized(
    [
        template_case(
            "required",
            "",
            COMMAND + "[params.p]\ntype = 'string'\nrequired = true\ndescription = 'the address'\n",
            'the param "p" is missing / give it in params: p = ... (the address)',
        ),
        template_case("port", "", COMMAND + "[writes.out]\n", 'declares no port "stdout" under writes / did you mean'),
    ]
)
def test_errors_in_the_pipeline(each: Case, tmp_path: Path) -> None:
    mark = 'use = ¶"src"' if each.id == "required" else '¶writes = "x"'
    check_case(
        Case(each.id, each.text.replace(mark.replace("¶", ""), mark), each.messages, each.files), tmp_path, "error"
    )


@parametrized(
    [
        case(
            "open port",
            PIPELINE.format(keys="").replace('writes = "x"', '¶writes = "x"'),
            'its port "log" is joined to no channel',
            files={"src/processor.toml": COMMAND + "[writes.stdout]\n[writes.log]\n"},
        ),
    ]
)
def test_warnings(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "warning")


def test_errors_of_a_template_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/processor.toml").write_text("command = ['cat']\nmax_message = 'x'\n")
    (tmp_path / "pipeline.toml").write_text(
        'name = "p"\n[processors.a]\nuse = "src"\nwrites = "x"\n[processors.c]\nuse = "./src"\nwrites = "x"\n'
        '[processors.b]\ncommand = ["cat"]\nreads = "x"\n'
    )
    with pytest.raises(SpecError) as caught:
        load_file(tmp_path / "pipeline.toml", env=ENV)
    assert len(caught.value.problems) == 1
