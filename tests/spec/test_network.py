"""Channels that leave their runner, and who has what: every mistake is found, and says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.plan.part import part
from runner.spec.load import load_text
from runner.spec.model import Durability, Pipeline
from tests.spec.marked import Case, case, check_case, parametrized

TWO = """
[runners.edge]
host = "10.0.0.7"
[runners.store]
"""


def joined(table: str, *, runners: str = TWO, left: str = 'runner = "edge"', right: str = 'runner = "store"') -> str:
    """A writer at one runner, a reader at the other, and the channel between them."""
    return f"""
name = "p"
{runners}
[processors.left]
command = ["true"]
writes = "x"
{left}
[processors.right]
command = ["cat"]
reads = "x"
{right}
{table}
"""


def alone(table: str, reads: str = "reads") -> str:
    """One processor, whose channel goes to any other program."""
    return f"""
name = "p"
[processors.here]
command = ["cat"]
{reads} = "x"
{table}
"""


def tcp(more: str = "", address: str = '"127.0.0.1:7400"') -> str:
    return f'[channels.x]\nkind = "tcp"\naddress = {address}\n{more}'


WRONG = [
    case("no such runner", joined(tcp(), left='runner = ¶"egde"'), 'there is no runner "egde" / did you mean "edge"?'),
    case("whose?", joined(tcp(), left="").replace("[processors.left]", "[processors.¶left]"), "whose this is"),
    case("nobody", joined(tcp(), runners=TWO + "[runners.¶third]\n"), "no processor is this runner's"),
    case(
        "memory between runners",
        joined('[channels.¶x]\ncapacity = "1MiB"\n'),
        'joins the runners edge and store, and a memory channel does not leave its runner / write kind = "tcp"',
    ),
    case("durable between runners", joined('[channels.x]\nkind = ¶"durable"\n'), "does not leave its runner"),
    case(
        "both here",
        joined(tcp().replace('"tcp"', '¶"tcp"'), right='runner = "edge"', runners=TWO.replace("[runners.store]", "")),
        'both its ends are in the same runner / write kind = "memory"',
    ),
    case("no address", joined('[channels.x]\nkind = ¶"tcp"\n'), 'write address = "HOST:PORT" or ":PORT"'),
    case("bad address", joined(tcp(address='¶"7400"')), "an address is HOST:PORT or :PORT"),
    case("bad port", joined(tcp(address='¶":70000"')), "70000 is no port"),
    case(
        "no meeting at 0", joined(tcp(address='¶":0"')), "0 is no port at which two runners can meet / write one from 1"
    ),
    case("no way to 0", alone(tcp('peer = "plain"\nlisten = false\n', address='¶":0"')), "0 is no port to connect to"),
    case(
        "no way to 0 by url", alone('[channels.x]\nkind = "http"\nurl = ¶"http://a:0/"\n'), "0 is no port to connect to"
    ),
    case("open to all at 0", alone(tcp('peer = "plain"\n', address='¶"0.0.0.0:0"')), "insecure = true"),
    case("two places", joined(tcp('¶url = "tcp://127.0.0.1:1"\n')), "address says it already"),
    case("wrong scheme", joined('[channels.x]\nkind = "websocket"\n¶url = "tcp://127.0.0.1:1"\n'), "ws://HOST:PORT"),
    case("no port", joined('[channels.x]\nkind = "tcp"\n¶url = "tcp://a"\n'), "has no port"),
    case("a path too many", joined('[channels.x]\nkind = "tcp"\n¶url = "tcp://a:1/x"\ninsecure=true\n'), "has no path"),
    case("nats has servers", joined('[channels.x]\nkind = "nats"\n¶url = "tcp://a:1"\n'), "nats://HOST:PORT"),
    case("open to all", joined(tcp(address='¶"0.0.0.0:7400"')), "insecure = true"),
    case("open by name", joined(tcp(address='¶"edge.example:7400"')), "nothing that is sent there is protected"),
    case(
        "open by its runner",
        joined(tcp('listen = "writer"\n', address='¶":7400"')),
        "others can come to 10.0.0.7, and nothing that is sent there is protected",
    ),
    case("listen says who", joined(tcp("listen = ¶true\n")), 'write "reader" or "writer"'),
    case("plain has no sides", alone(tcp('peer = "plain"\nlisten = ¶"reader"\n')), "write true or false"),
    case(
        "plain and two ends",
        joined(tcp('peer = "plain"\n').replace('"tcp"', '¶"tcp"')),
        "one of them is another program",
    ),
    case(
        "http is plain", alone('[channels.x]\nkind = "http"\naddress = ":1"\npeer = ¶"runner"\n'), "does not join two"
    ),
    case("end of a runner", joined(tcp('end = ¶"close"\n')), "another runner says itself"),
    case("end of a channel that is written", alone(tcp('peer = "plain"\n¶end = "close"\n'), "writes"), "leave it out"),
    case("end of a post", alone('[channels.x]\nkind = "http"\naddress = ":1"\nend = ¶"close"\n'), 'write "never"'),
    case(
        "end over zeromq",
        alone(tcp('peer = "plain"\nend = ¶"close"\n').replace('"tcp"', '"zeromq"')),
        "nobody is told over zeromq",
    ),
    case("subject of tcp", joined(tcp('¶subject = "s"\n')), 'is for channels of kind "nats"'),
    case("keys of tcp", joined(tcp('¶keys = "k"\n')), 'is for channels of kind "zeromq"'),
    case("token of tcp", joined(tcp('¶token = "env:PATH"\n')), 'is for channels of kind "websocket", "http" or "nats"'),
    case(
        "token that is not there",
        alone(tcp('peer = "plain"\ntoken = ¶"env:NOPE"\n').replace("tcp", "http")),
        "NOPE is not set",
    ),
    case(
        "no such keys", joined(tcp('keys = ¶"k"\n').replace('"tcp"', '"zeromq"')), '"k" is no folder / connector keys'
    ),
    case("listens without one", joined(tcp("¶tls = {}\n")), "who listens shows a certificate"),
    case("no such file", joined(tcp('tls = { cert = ¶"c", key = ¶"k" }\n')), "is not there", "is not there"),
    case("outlives", joined(tcp('durability = "disk"\non_full = ¶"drop-oldest"\n')), "drops nothing"),
    case(
        "one address twice",
        joined(tcp() + '[channels.y]\nkind = "tcp"\naddress = ¶"127.0.0.1:7400"\n', left='runner = "edge"')
        .replace('writes = "x"', 'writes = ["x", "y"]')
        .replace('reads = "x"', 'reads = ["x", "y"]'),
        'the channel "x" is listened for there already',
    ),
    case(
        "two would listen",
        joined(tcp()).replace("[channels.x]", "[channels.¶x]")
        + '[runners.third]\n[processors.more]\ncommand = ["cat"]\nreads = "x"\nrunner = "third"\n',
        'the runners store and third would listen at the same address / write listen = "writer"',
    ),
    case("follow is for files", joined(tcp("¶follow = true\n")), "is for a file channel"),
]


@parametrized(WRONG)
def test_what_is_wrong_is_said(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


def loaded(text: str, folder: Path) -> Pipeline:
    return load_text(text, folder=folder).pipeline


def test_each_runner_has_its_part(tmp_path: Path) -> None:
    whole = loaded(joined(tcp('durability = "process"\n', address='":7400"')), tmp_path)
    left, right = part(whole, "edge"), part(whole, "store")
    assert (list(left.processors), list(right.processors)) == (["left"], ["right"])
    here, there = left.channels["x"], right.channels["x"]
    assert (here.writers, here.readers, here.far_readers, here.far_writers) == (("left",), (), ("store",), ())
    assert (there.writers, there.readers, there.far_readers, there.far_writers) == ((), ("right",), (), ("edge",))
    assert here.network is not None
    assert (here.network.host, here.network.port, here.network.binds) == ("127.0.0.1", 7400, "reader")
    assert here.durability is Durability.PROCESS


def test_an_address_has_the_host_of_who_listens(tmp_path: Path) -> None:
    whole = loaded(joined(tcp('listen = "writer"\ninsecure = true\n', address='":7400"')), tmp_path)
    for runner in ("edge", "store"):
        network = part(whole, runner).channels["x"].network
        assert network is not None
        assert network.host == "10.0.0.7"


def test_who_connects_goes_to_one_address_of_who_listens_at_all(tmp_path: Path) -> None:
    more = 'listen = "writer"\ninsecure = true\n'
    whole = loaded(joined(tcp(more, address='"0.0.0.0:7400"')), tmp_path)
    hosts = [part(whole, runner).channels["x"].network for runner in ("edge", "store")]
    assert [network.host for network in hosts if network is not None] == ["0.0.0.0", "10.0.0.7"]


def test_a_far_end_that_the_file_does_not_have(tmp_path: Path) -> None:
    channel = part(loaded(alone(tcp()), tmp_path), None).channels["x"]
    assert (channel.readers, channel.far_writers, channel.far_readers) == (("here",), ("",), ())


@pytest.mark.parametrize(("runner", "says"), [("nobody", "no runner `nobody`"), (None, "several runners")])
def test_a_part_that_is_not_there(runner: str | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=says):
        part(loaded(joined(tcp()), tmp_path), runner)


@pytest.mark.parametrize(
    ("table", "reads", "binds"),
    [
        (tcp('peer = "plain"\n'), "reads", "reader"),
        (tcp('peer = "plain"\n'), "writes", "writer"),
        (tcp('peer = "plain"\nlisten = false\n'), "reads", "writer"),
        ('[channels.x]\nkind = "http"\nurl = "http://a/b"\n', "writes", "reader"),
        (
            '[channels.x]\nkind = "websocket"\npeer = "plain"\nurl = "ws://a:1/b"\nlisten = true\ninsecure = true\n',
            "reads",
            "reader",
        ),
    ],
)
def test_who_listens_to_a_plain_peer(table: str, reads: str, binds: str, tmp_path: Path) -> None:
    network = loaded(alone(table, reads), tmp_path).channels["x"].network
    assert network is not None
    assert network.plain
    assert network.binds == binds


def test_a_url_is_taken_apart(tmp_path: Path) -> None:
    text = alone('[channels.x]\nkind = "websocket"\npeer = "plain"\nurl = "wss://[::1]/a/b"\n')
    network = loaded(text, tmp_path).channels["x"].network
    assert network is not None
    assert (network.host, network.port, network.path) == ("::1", 443, "/a/b")
    assert network.tls is not None
    assert "wss" not in repr(network)
