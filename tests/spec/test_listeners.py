"""Who listens, who goes there, and at which host: for every way in which runners can stand at a channel's ends."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from runner.plan.part import part
from runner.spec.listeners import Meeting, host_at, meeting_of, relays
from runner.spec.load import load_text
from runner.spec.model import Channel, Network, Pipeline, Runner
from tests.spec.marked import Case, case, check_case, parametrized

RUNNERS = {"a": Runner("a", "10.0.0.1"), "b": Runner("b", "10.0.0.2"), "c": Runner("c")}


def channel(writers: str, readers: str, binds: str = "reader") -> tuple[Channel, dict[str, str]]:
    """A channel with a writer at each of the runners `writers`, a reader at each of `readers`."""
    made = Channel(
        "x",
        "tcp",
        writers=tuple(f"w{each}" for each in writers),
        readers=tuple(f"r{each}" for each in readers),
        network=Network(port=1, binds="reader" if binds == "reader" else "writer"),
    )
    return made, {name: name[1] for name in (*made.writers, *made.readers)}


@pytest.mark.parametrize(
    ("writers", "readers", "binds", "listening", "connecting"),
    [
        ("a", "b", "reader", "b", "a"),
        ("a", "b", "writer", "a", "b"),
        ("a", "ab", "reader", "b", "a"),  # the near reader is no end of the link
        ("a", "ab", "writer", "a", "b"),
        ("ab", "a", "reader", "a", "b"),
        ("ab", "a", "writer", "b", "a"),
        ("a", "bc", "writer", "a", "bc"),
        ("a", "abc", "writer", "a", "bc"),
        ("ab", "c", "reader", "c", "ab"),
        ("a", "bc", "reader", "bc", "a"),
        ("a", "", "writer", "a", ""),
        ("a", "", "reader", "", "a"),
        ("", "b", "reader", "b", ""),
    ],
)
def test_who_listens(writers: str, readers: str, binds: str, listening: str, connecting: str) -> None:
    assert meeting_of(*channel(writers, readers, binds)) == Meeting(tuple(listening), tuple(connecting))


def test_every_two_that_have_to_meet_do() -> None:
    """Each writer and each reader of different runners are on different sides, whoever binds."""
    groups = [set(each) for count in (1, 2, 3) for each in itertools.combinations("abc", count)]
    for writers, readers, binds in itertools.product(groups, groups, ("reader", "writer")):
        made, whose = channel("".join(sorted(writers)), "".join(sorted(readers)), binds)
        if relays(made, whose):
            assert len(writers) > 1 < len(readers)
            assert writers & readers
            continue
        meeting = meeting_of(made, whose)
        assert not set(meeting.listening) & set(meeting.connecting)
        for writer, reader in itertools.product(writers, readers):
            if writer != reader:
                listens, goes = (reader, writer) if binds == "reader" else (writer, reader)
                assert listens in meeting.listening
                assert goes in meeting.connecting


@pytest.mark.parametrize(
    ("host", "here", "expected"),
    [
        (None, "b", "10.0.0.2"),
        (None, "a", "10.0.0.2"),
        ("192.0.2.1", "a", "192.0.2.1"),
        ("0.0.0.0", "b", "0.0.0.0"),
        ("0.0.0.0", "a", "10.0.0.2"),
        ("::", "a", "10.0.0.2"),
    ],
)
def test_at_which_host(host: str | None, here: str, expected: str) -> None:
    made, whose = channel("a", "ab")
    assert host_at(Network(host=host, port=1), meeting_of(made, whose), here, RUNNERS) == expected


def test_a_runner_without_a_host_is_on_this_machine() -> None:
    made, whose = channel("a", "c")
    assert {host_at(Network(port=1), meeting_of(made, whose), here, RUNNERS) for here in "ac"} == {"127.0.0.1"}


def spread(*processors: str, hosts: bool = True) -> str:
    """A pipeline of `processors`, each "RUNNER CHANNEL…": a channel that it reads, or writes (with a "+")."""
    runners = dict.fromkeys(each[0] for each in processors)
    text = 'name = "p"\n'
    for name in runners:
        text += f"[runners.{name}]\n" + (f'host = "10.0.0.{"abc".index(name) + 1}"\n' if hosts else "")
    for number, each in enumerate(processors):
        runner, *ends = each.split()
        reads, writes = [end for end in ends if "+" not in end], [end.strip("+") for end in ends if "+" in end]
        text += f'[processors.p{number}]\ncommand = ["cat"]\nrunner = "{runner}"\n'
        text += "".join(f"{key} = {names}\n" for key, names in (("reads", reads), ("writes", writes)) if names)
    return text.replace("'", '"')


def table(name: str = "x", more: str = "insecure = true\n", address: str = ":7400") -> str:
    mark, plain = ("¶", address[1:]) if address.startswith("¶") else ("", address)
    return f'[channels.{name}]\nkind = "tcp"\naddress = {mark}"{plain}"\n{more}'


def loaded(text: str, folder: Path, runner: str | None = None) -> Pipeline:
    return load_text(text, folder=folder, runner=runner).pipeline


@pytest.mark.parametrize("readers", [("a x", "b x"), ("b x", "a x")])
def test_who_connects_goes_to_the_far_reader_where_one_is_near(readers: tuple[str, str], tmp_path: Path) -> None:
    whole = loaded(spread(*readers, "a +x") + table(), tmp_path)
    found = {name: part(whole, name).channels["x"] for name in "ab"}
    assert [each.network.host for each in found.values() if each.network] == ["10.0.0.2", "10.0.0.2"]
    here, there = found["a"], found["b"]
    assert (len(here.readers), here.far_readers, here.far_writers) == (1, ("b",), ())
    assert (there.far_writers, there.far_readers) == (("a",), ())


WRONG = [
    case(
        "two would listen",
        spread("a +x", "b x", "c x") + table("¶x"),
        'the runners b and c would listen at the same address / write listen = "writer"',
    ),
    case(
        "two would listen, as is written",
        spread("a +x", "b +x", "c x") + table(more='¶listen = "writer"\ninsecure = true\n'),
        'the runners a and b would listen at the same address / write listen = "reader"',
    ),
    case(
        "two writers, and others write to one of the readers",
        spread("a +x", "b +x", "a x", "b x") + table("¶x"),
        "others are at both its ends with the runner a, which would send on to them what it gets"
        " / give what a writes a channel of its own",
    ),
    case(
        "a relay over a broker",
        spread("a +x", "b +x", "b x", "c x") + '[channels.¶x]\nkind = "nats"\nurl = "nats://h:1"\n',
        "with the runner b, which would send on",
    ),
    case(
        "a plain peer of two runners",
        spread("a x", "b x") + table("¶x", 'peer = "plain"\ninsecure = true\n'),
        "the runners a and b would listen at the same address / give each a channel of its own",
    ),
    case(
        "everywhere and here",
        spread("a +x +y", "b x y", hosts=False) + table() + table("y", address="¶0.0.0.0:7400"),
        'the channel "x" is listened for there already / give each a port of its own',
    ),
    case(
        "two runners of one machine",
        spread("a +x +y", "b x", "c y", hosts=False) + table() + table("y", address="¶127.0.0.1:7400"),
        'the channel "x" is listened for there already / give each a port of its own',
    ),
    case("a host with a port", spread("a +x", "b x").replace('"10.0.0.1', '¶"10.0.0.1:1') + table(), "is no host"),
    case("a host as a URL", spread("a +x", "b x").replace('"10.0.0.1', '¶"tcp://a') + table(), "is no host"),
]


@parametrized(WRONG)
def test_what_cannot_meet_is_said(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


def test_one_port_on_two_machines_is_no_clash(tmp_path: Path) -> None:
    whole = loaded(spread("a +x +y", "b x", "c y") + table() + table("y"), tmp_path)
    hosts = [channel.network.host for channel in part(whole, "a").channels.values() if channel.network]
    assert hosts == ["10.0.0.2", "10.0.0.3"]


def test_an_address_of_one_machine_is_warned_of_where_there_are_two(tmp_path: Path) -> None:
    text = spread("a +x", "b x") + table(address="¶127.0.0.1:7400")
    says = "127.0.0.1 is reached on one machine only, and a is at 10.0.0.1, b at 10.0.0.2"
    check_case(case("far", text, says), tmp_path, "warning")
