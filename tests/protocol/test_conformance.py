"""The kit finds what is wrong with a client, and the page's own client, written from the page, has nothing wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from runner.protocol.conformance.__main__ import main
from runner.protocol.encoder import messages, opening
from runner.protocol.frames import Ack, End, Out
from runner.protocol.session import Session
from tests.docs.pages import PROJECT, blocks

PAGE = PROJECT / "docs" / "protocol.md"


def block(name: str) -> str:
    (found,) = [each.text for each in blocks(PAGE) if each.marked("file") == name]
    return found


CLIENT = block("shout.py")
QUICK = ["--limit", "1.5", "--payload", "abc"]


def kit(tmp_path: Path, client: str, *only: str) -> int:
    program = tmp_path / "client.py"
    program.write_text(client)
    words = [word for name in only for word in ("--only", name)]
    return main([*QUICK, *words, "--", sys.executable, str(program)])


def test_the_client_on_the_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "client.py"
    program.write_text(CLIENT)
    assert main(["--limit", "20", "--", sys.executable, str(program)]) == 0, capfd.readouterr().out


BROKEN = [
    ("answers", 'send(b"ready 0 1")', 'print("hello", flush=True); send(b"ready 0 1")', "unknown-kind"),
    ("answers", 'send(b"ready 0 1")', 'send(b"ready 0 2")', "wrong-version"),
    ("answers", 'send(b"ready 0 1")', "", "did not send `ready`"),
    ("answers", 'send(b"ack 0 " + words[2])', 'send(b"ack 0 " + words[3] + b"0")', "not-in-flight"),
    ("answers", 'send(b"ack 0 " + words[2])', "pass", "did not answer all messages"),
    ("answers", 'send(b"ack 0 " + words[2])', 'send(b"ack 0 " + words[2]); send(b"ack 0 " + words[2])', "not-in-flight"),  # noqa: E501
    ("answers", "len(output), words[2]", "len(output) + 1, words[2]", "bad-header|unknown-kind|did not answer"),
    ("answers", "output = payload.upper()", "sys.exit(3)", "ended with exit status 3"),
    ("answers", ' stdout"', ' nowhere"', "unknown-port"),
    ("opens_and_ends", 'send(b"end 0")', "", "did not send `end`"),
    ("opens_and_ends", 'send(b"end 0")', 'send(b"end 0"); sys.exit(4)', "exit status 4"),
    ("opens_and_ends", 'send(b"end 0")', 'send(b"end 0"); send(b"end 0")', "after-end"),
    ("opens_and_ends", 'send(b"end 0")', 'send(b"end 0"); write.write(b"out 5"); write.flush()', "cut-short"),
    ("pings", 'send(b"pong 0 " + words[2])', 'send(b"pong 0 9" + words[2])', "wrong-pong"),
    ("closed_input", 'sys.exit("the runner has gone")', "break", "takes the end of its stdin"),
    ("unknown_fields", "words = read.readline().split()", "words = read.readline().split(); assert len(words) < 8", "exit"),  # noqa: E501
    ("again", "output = payload.upper()", "assert int(words[4]) < 2; output = payload", "exit status 1"),
    ("terminated", "import sys", "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "exit after SIGTERM"),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(("check", "right", "wrong", "said"), BROKEN)
def test_what_is_wrong_is_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], check: str, right: str, wrong: str, said: str
) -> None:
    assert right in CLIENT
    assert kit(tmp_path, CLIENT.replace(right, wrong), check) == 1
    printed = capfd.readouterr().out
    assert re.search(rf"WRONG {check}: .*({said})", printed), printed


def test_a_program_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "/nowhere/at-all"]) == 2
    assert "No such file" in capfd.readouterr().err


def test_the_session_on_the_page_is_what_is_said() -> None:
    lines = block("session.txt").splitlines()
    session = Session(reads=["stdin"], writes=["stdout"], max_payload_bytes=16 << 20)
    read = "".join(_wire(line[2:]) for line in lines if line.startswith("< ")).encode()
    first, rest = read.split(b"\n", 1)
    session.receive(first + b"\n")
    session.deliver([b"hello", b"world"], number=41, attempt=1, port="stdin", channel="raw@7c1e")
    got = session.receive(rest)
    assert got == [Out(1, "stdout", b"HELLO"), Out(2, "stdout", b"WORLD"), Ack(1, 2), End()]
    said = "".join(_wire(line[2:]) for line in lines if line.startswith("> ")).encode()
    expected = opening(max_payload_bytes=16 << 20, state=None)
    expected += messages([b"hello", b"world"], delivery=1, number=41, attempt=1, port="stdin", channel="raw@7c1e")
    assert said == b"".join(expected) + b"end 0 stdin\nend 0\n"


def _wire(line: str) -> str:
    """A payload of the page stands in a line of its own, which it is not on the wire."""
    return line if line.lower() in {"hello", "world"} else line + "\n"


# -- over ZeroMQ

(SOCKET_CLIENT,) = [each.text for each in blocks(PROJECT / "docs" / "zeromq.md") if each.marked("file") == "client.py"]
BROKEN_SOCKETS = [
    ('runner.send(b"ready 0 1")', "pass", "did not send `ready`"),
    ('runner.send(b"ready 0 1")', 'runner.send(b"ready 0 1\\n")', "bad-header"),
    ('runner.send(b"ready 0 1")', 'runner.send_multipart([b"ready 0 1", b"", b""])', "bad-header"),
    ("zmq.DEALER", "zmq.ROUTER", "its socket is of type 'ROUTER', and DEALER is due here"),
    ("len(output), words[2]", "len(output) + 1, words[2]", "bad-field"),
    ('runner.send(b"ack 0 " + words[2])', "pass", "did not answer all messages"),
]


def over_zeromq(tmp_path: Path, client: str, *only: str) -> int:
    program = tmp_path / "client.py"
    program.write_text(client)
    words = [word for name in only for word in ("--only", name)]
    limit = ["--limit", "1.5"] if only else ["--limit", "20"]
    return main([*limit, *words, "--zeromq", "--payload", "abc", "--", sys.executable, str(program)])


def test_the_client_on_the_page_of_zeromq(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert over_zeromq(tmp_path, SOCKET_CLIENT) == 0, capfd.readouterr().out


@pytest.mark.parametrize(("right", "wrong", "said"), BROKEN_SOCKETS)
def test_what_is_wrong_over_zeromq_is_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], right: str, wrong: str, said: str
) -> None:
    assert right in SOCKET_CLIENT
    assert over_zeromq(tmp_path, SOCKET_CLIENT.replace(right, wrong), "answers") == 1
    printed = capfd.readouterr().out
    assert re.search(rf"WRONG answers: .*({said})", printed), printed
