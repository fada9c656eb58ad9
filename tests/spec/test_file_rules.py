"""What a file channel asks of its pipeline."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runner.spec.load import load_text
from runner.spec.model import Durability, FileEnd, Rotation
from tests.spec.marked import ENV, HEAD, Case, case, channel, check_case, parametrized


def written(keys: str, *, codec: str = "lines", more: str = "") -> str:
    """A pipeline that ends in a file."""
    a = f'[processors.a]\ncommand = ["cat"]\nwrites = "x"\ncodec = "{codec}"\n'
    return f"{HEAD}{a}{more}[channels.x]\n{keys}\n"


def read(keys: str, *, more: str = "") -> str:
    """A pipeline that begins in a file."""
    return f'{HEAD}[processors.b]\ncommand = ["cat"]\nreads = "x"\n{more}[channels.x]\n{keys}\n'


FILE = 'kind = "file"\npath = "out"\n'
PREFIXED = '[processors.c]\ncommand = ["cat"]\n{} = "x"\ncodec = "length-prefixed"\n'

ERRORS = [
    case("no path", written('kind = ¶"file"'), 'a file channel needs a file / write path = "FILE"'),
    case("folder", written('kind = "file"\npath = ¶"."'), '"." is a folder'),
    case("no folder", written('kind = "file"\npath = ¶"no/out"'), "no is not there"),
    case("device", written('kind = "file"\npath = ¶"/dev/null"'), '"/dev/null" is a device'),
    case("both ends", channel('kind = ¶"file"\npath = "out"'), "a and b are at its two ends"),
    case("memory", channel('¶path = "out"'), "is for a file channel"),
    case("rotate, memory", channel('¶rotate = { size = "1MiB" }'), "is for a file channel"),
    case("drops", written(FILE + 'on_full = ¶"drop-oldest"'), "a file channel drops nothing"),
    case("outlives nothing", written(FILE + 'durability = ¶"memory"'), "a file channel outlives something"),
    case("follow", written(FILE + "¶follow = true"), "is for a file that is read"),
    case("max_message", written(FILE + '¶max_message = "1MiB"'), "is for a file that is read"),
    case("rotate", read(FILE + '¶rotate = { size = "1MiB" }'), "is for a file that is written"),
    case(
        "schema", read(FILE + '¶schema = "s.json"'), "checks nothing of a file that is read yet", files={"s.json": "{}"}
    ),
    case("rotate when", written(FILE + "¶rotate = { keep = 3 }"), "says not when a file is full"),
    case("no codec", written(FILE + 'codec = ¶"lined"'), 'there is no codec "lined"'),
    case("two codecs", written(FILE.replace('"f', '¶"f'), more=PREFIXED.format("writes")), "nothing says how"),
    case("raw", written(FILE + 'codec = ¶"raw"'), "raw is not converted"),
    case("rotation", written(FILE + 'rotate = { size = "1MiB", ¶kep = 3 }'), 'did you mean "keep"?'),
    case(
        "same file",
        written(FILE, more='[processors.c]\ncommand = ["cat"]\nreads = "y"\n')
        + '[channels.y]\nkind = "file"\npath = ¶"./out"\n',
        'the channel "x" has this file already',
    ),
]


@parametrized(ERRORS)
def test_errors(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a named pipe"), (os.mkdir, "a folder")])
def test_what_is_there_is_no_file(tmp_path: Path, make: object, what: str) -> None:
    make(tmp_path / "out")  # type: ignore[operator]
    check_case(case(what, written('kind = "file"\npath = ¶"out"'), f'"out" is {what}'), tmp_path, "error")


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "out"))
        check_case(case("socket", written('kind = "file"\npath = ¶"out"'), '"out" is a socket'), tmp_path, "error")


def end(text: str, folder: Path) -> FileEnd:
    found = load_text(text, folder=folder, env=ENV)
    assert found.warnings == ()
    file = found.pipeline.channels["x"].file
    assert file is not None
    return file


def test_defaults(tmp_path: Path) -> None:
    assert end(written(FILE), tmp_path) == FileEnd(tmp_path / "out", "lines")
    assert end(read(FILE), tmp_path) == FileEnd(tmp_path / "out", "lines")
    text = written(FILE)
    assert load_text(text, folder=tmp_path, env=ENV).pipeline.channels["x"].durability is Durability.DISK


def test_all_keys(tmp_path: Path) -> None:
    rotate = 'rotate = { size = "1MiB", every = "1h", keep = 5 }\ncodec = "null"'
    assert end(written(FILE + rotate), tmp_path) == FileEnd(tmp_path / "out", "null", Rotation(1 << 20, 3600.0, 5))
    follows = 'follow = true\nmax_message = "1KiB"\ndurability = "process"'
    assert end(read(FILE + follows), tmp_path) == FileEnd(
        tmp_path / "out", "lines", follow=True, max_message_bytes=1024
    )


def test_the_codec_is_that_of_the_processors(tmp_path: Path) -> None:
    assert end(written(FILE, codec="length-prefixed"), tmp_path).codec == "length-prefixed"
    assert end(written(FILE, codec="raw"), tmp_path).codec == "raw"
    both = written(FILE + 'codec = "null"', more=PREFIXED.format("writes"))
    assert end(both, tmp_path).codec == "null"


def test_two_may_read_one_file(tmp_path: Path) -> None:
    other = '[processors.c]\ncommand = ["cat"]\nreads = "y"\n'
    text = read(FILE, more=other) + '[channels.y]\nkind = "file"\npath = "out"\n'
    assert set(load_text(text, folder=tmp_path, env=ENV).pipeline.channels) == {"x", "y"}
