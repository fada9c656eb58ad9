"""The graph of a pipeline: order, shapes; and its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from runner.plan.graph import to_dot, to_mermaid
from runner.spec import topology
from runner.spec.model import Channel, Contract, OnFull, Pipeline, Port, Processor, Runner
from runner.spec.topology import Cycle, Diamond, Edge, Outgoing


def pipeline(*ways: tuple[str, str, str], **changes: Processor) -> Pipeline:
    """A pipeline of (writer, channel, reader)."""
    names = dict.fromkeys(name for writer, _, reader in ways for name in (writer, reader))
    channels = dict.fromkeys(channel for _, channel, _ in ways)

    def joined(name: str, end: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(way[1] for way in ways if way[end] == name))

    processors = {
        name: changes.get(name)
        or Processor(
            name,
            ("cat",),
            Path("/"),
            reads=(Port("stdin", joined(name, 2), "lines"),) if joined(name, 2) else (),
            writes=(Port("stdout", joined(name, 0), "lines"),) if joined(name, 0) else (),
        )
        for name in names
    }
    return Pipeline(
        "p",
        processors,
        {
            channel: Channel(
                channel,
                writers=tuple(dict.fromkeys(writer for writer, each, _ in ways if each == channel)),
                readers=tuple(dict.fromkeys(reader for _, each, reader in ways if each == channel)),
            )
            for channel in channels
        },
        Path("/"),
    )


def graph(*ways: tuple[str, str, str]) -> Outgoing:
    """The same as a graph."""
    names = dict.fromkeys(name for writer, _, reader in ways for name in (writer, reader))
    return topology.outgoing(names, [Edge(*way) for way in ways])


def test_a_line() -> None:
    line = graph(("b", "x", "c"), ("a", "y", "b"))
    assert topology.in_order(line) == ["a", "b", "c"]
    assert topology.cycles(line) == []
    assert topology.diamonds(line) == []


@pytest.mark.parametrize(
    ("ways", "found"),
    [
        ([("a", "x", "a")], [Cycle(("a",), ("x",))]),
        ([("s", "w", "a"), ("a", "x", "b"), ("b", "y", "a"), ("b", "z", "c")], [Cycle(("a", "b"), ("x", "y"))]),
        (
            [("a", "x", "b"), ("b", "y", "a"), ("c", "u", "d"), ("d", "v", "c")],
            [Cycle(("a", "b"), ("x", "y")), Cycle(("c", "d"), ("u", "v"))],
        ),
    ],
)
def test_cycles(ways: list[tuple[str, str, str]], found: list[Cycle]) -> None:
    assert topology.cycles(graph(*ways)) == found


@pytest.mark.parametrize(
    ("ways", "found"),
    [
        ([("a", "x", "b"), ("a", "x", "c")], []),
        ([("a", "x", "c"), ("b", "y", "c")], []),
        ([("a", "x", "b"), ("a", "x", "c"), ("b", "y", "d"), ("c", "y", "d")], [Diamond("a", "d")]),
        ([("a", "x", "b"), ("a", "y", "c"), ("b", "z", "c")], [Diamond("a", "c")]),
        (
            [("s", "r", "a"), ("a", "x", "b"), ("a", "x", "c"), ("b", "y", "d"), ("c", "z", "d"), ("d", "e", "f")],
            [Diamond("a", "d")],
        ),
        (
            [("a", "x", "b"), ("a", "y", "c"), ("b", "z", "e"), ("c", "u", "d"), ("d", "v", "e")],
            [Diamond("a", "e")],
        ),
        ([("a", "x", "b"), ("a", "y", "b")], []),
    ],
)
def test_diamonds(ways: list[tuple[str, str, str]], found: list[Diamond]) -> None:
    assert topology.diamonds(graph(*ways)) == found


def test_two_channels_into_two_ports_of_one_reader_are_a_diamond() -> None:
    joined = topology.outgoing(["a", "b"], [Edge("a", "x", "b"), Edge("a", "y", "b", "lookup")])
    assert topology.diamonds(joined) == [Diamond("a", "b")]


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14, unique=True)


@given(PAIRS)
@settings(deadline=None)
def test_cycles_are_found_exactly_where_there_is_no_order(pairs: list[tuple[int, int]]) -> None:
    names = [str(number) for number in range(7)]
    joined = topology.outgoing(names, [Edge(str(a), f"{a}-{b}", str(b)) for a, b in pairs])
    found = topology.cycles(joined)
    assert (found == []) == (len(topology.in_order(joined)) == 7)
    for cycle in found:
        following = (*cycle.processors[1:], cycle.processors[0])
        assert cycle.channels == tuple(f"{a}-{b}" for a, b in zip(cycle.processors, following, strict=True))
    cut = {channel for cycle in found for channel in cycle.channels}
    left = {name: [edge for edge in leaving if edge.channel not in cut] for name, leaving in joined.items()}
    assert len(topology.in_order(left)) == 7


@given(PAIRS)
@settings(deadline=None)
def test_diamonds_are_pairs_of_ways_without_a_common_processor(pairs: list[tuple[int, int]]) -> None:
    acyclic = [(a, b) for a, b in pairs if a < b]
    joined = topology.outgoing(
        [str(number) for number in range(7)], [Edge(str(a), f"{a}-{b}", str(b)) for a, b in acyclic]
    )

    def ways(start: int, end: int) -> list[frozenset[int]]:
        """What lies between `start` and `end` on each way."""
        if start == end:
            return [frozenset()]
        return [way | {start} for a, b in acyclic if a == start for way in ways(b, end)]

    expected = set()
    for start in range(7):
        for end in range(start + 1, 7):
            between = [way - {start} for way in ways(start, end)]
            if any(not (one & other) for i, one in enumerate(between) for other in between[i + 1 :]):
                expected.add(Diamond(str(start), str(end)))
    assert set(topology.diamonds(joined)) == expected


def test_pictures() -> None:
    delay = Processor(
        "de-lay",
        ("cat",),
        Path("/"),
        reads=(Port("stdin", ("raw",), "lines"),),
        writes=(Port("stdout", ("clean",), "null"), Port("errors", ("bad",), "lines")),
        contract=Contract.ONE_TO_ONE,
        replicas=2,
    )
    shown = pipeline(
        ("end", "raw", "de-lay"),
        ("de-lay", "clean", "store"),
        ("de-lay", "bad", "store"),
        ("end", "bad", "store"),
        **{"de-lay": delay},
    )
    shown.channels["clean"] = Channel("clean", "pipe", 256 << 20, OnFull.DROP_OLDEST, ("de-lay",), ("store",))
    assert to_mermaid(shown) == (
        "flowchart LR\n"
        '    p_end[/"end"/]\n'
        '    p_de_0lay["de-lay<br/>one-to-one × 2"]\n'  # noqa: RUF001
        '    p_store[("store")]\n'
        '    p_end -->|"raw"| p_de_0lay\n'
        '    p_de_0lay -->|"clean<br/>pipe, null to lines, 256 MiB, drop-oldest"| p_store\n'
        '    c_bad(["bad<br/>de-lay: errors"])\n'
        "    p_de_0lay --> c_bad\n"
        "    p_end --> c_bad\n"
        "    c_bad --> p_store\n"
    )
    assert to_dot(shown) == (
        'digraph "p" {\n'
        "    rankdir=LR;\n"
        "    node [shape=box, style=rounded];\n"
        '    "p end" [label="end", shape=cds];\n'
        '    "p de-lay" [label="de-lay\\none-to-one × 2"];\n'  # noqa: RUF001
        '    "p store" [label="store", shape=cylinder];\n'
        '    "p end" -> "p de-lay" [label="raw"];\n'
        '    "p de-lay" -> "p store" [label="clean\\npipe, null to lines, 256 MiB, drop-oldest"];\n'
        '    "c bad" [label="bad\\nde-lay: errors", shape=oval];\n'
        '    "p de-lay" -> "c bad";\n'
        '    "p end" -> "c bad";\n'
        '    "c bad" -> "p store";\n'
        "}\n"
    )


def test_runners_are_boxes_around_their_processors() -> None:
    shown = pipeline(("a", "x", "b"), ("a", "x", "c"))
    for name, runner in (("a", "here"), ("b", "far-away"), ("c", "here")):
        shown.processors[name] = structs.replace(shown.processors[name], runner=runner)
    shown = structs.replace(shown, runners={name: Runner(name) for name in ("here", "far-away")})
    assert to_mermaid(shown) == (
        "flowchart LR\n"
        '    subgraph r_here["here"]\n'
        '        p_a[/"a"/]\n'
        '        p_c[("c")]\n'
        "    end\n"
        '    subgraph r_far_0away["far-away"]\n'
        '        p_b[("b")]\n'
        "    end\n"
        '    c_x(["x"])\n'
        "    p_a --> c_x\n"
        "    c_x --> p_b\n"
        "    c_x --> p_c\n"
    )
    dot = to_dot(shown)
    box = '        label="far-away";\n        "p b" [label="b", shape=cylinder];\n'
    assert f'    subgraph "cluster far-away" {{\n{box}    }}\n' in dot
    assert dot.index('"p c" [') < dot.index("cluster far-away")
    assert dot.count("{") == dot.count("}")
