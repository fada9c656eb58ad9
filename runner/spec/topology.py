"""Shapes in the graph of processors that matter for a pipeline: cycles and diamonds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct


class Edge(Struct, frozen=True):
    """`writer` writes `channel`, and `reader` reads it on `port`."""

    writer: str
    channel: str
    reader: str
    port: str = "stdin"


class Cycle(Struct, frozen=True):
    """Processors that feed themselves: `processors[i]` writes `channels[i]`, which the next one reads."""

    processors: tuple[str, ...]
    channels: tuple[str, ...]


class Diamond(Struct, frozen=True):
    """What `writer` writes takes ways that share no processor, and `reader` is where they meet again."""

    writer: str
    reader: str


Outgoing = Mapping[str, list[Edge]]


def outgoing(processors: Iterable[str], edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    """For each of `processors`, in order, the edges that leave it."""
    leaving: dict[str, list[Edge]] = {name: [] for name in processors}
    for edge in edges:
        leaving[edge.writer].append(edge)
    return leaving


def in_order(graph: Outgoing) -> list[str]:
    """The processors, writers before readers, otherwise in the order given.

    Those on cycles and behind them are left out.
    """
    waiting = dict.fromkeys(graph, 0)
    for edges in graph.values():
        for edge in edges:
            waiting[edge.reader] += 1
    ready = [name for name, count in waiting.items() if count == 0]
    order: list[str] = []
    while ready:
        name = ready.pop(0)
        order.append(name)
        for edge in graph[name]:
            waiting[edge.reader] -= 1
            if waiting[edge.reader] == 0:
                ready.append(edge.reader)
    return order


def cycles(graph: Outgoing) -> list[Cycle]:
    """Cycles such that cutting each of them once leaves none that shares no channel with them."""
    found: list[Cycle] = []
    left = {name: list(edges) for name, edges in graph.items()}
    while True:
        ordered = set(in_order(left))
        cycle = next((way for name in left if name not in ordered and (way := _shortest_way_back(left, name))), None)
        if cycle is None:
            return found
        found.append(Cycle(tuple(edge.writer for edge in cycle), tuple(edge.channel for edge in cycle)))
        cut = {edge.channel for edge in cycle}
        left = {name: [edge for edge in edges if edge.channel not in cut] for name, edges in left.items()}


def _shortest_way_back(graph: Outgoing, start: str) -> list[Edge] | None:
    """The edges of a shortest cycle through `start`; None where it is on none."""
    came_by: dict[str, Edge] = {}
    at = [start]
    while at:
        name = at.pop(0)
        for edge in graph[name]:
            if edge.reader == start:
                way = [edge]
                while way[0].writer != start:
                    way.insert(0, came_by[way[0].writer])
                return way
            if edge.reader not in came_by:
                came_by[edge.reader] = edge
                at.append(edge.reader)
    return None


def diamonds(graph: Outgoing) -> list[Diamond]:
    """All diamonds of a graph without cycles.

    Two ways that share no processor but their ends exist exactly where the writer is the reader's immediate dominator
    and more than one edge enters the reader (Menger). Two channels straight from one to the other count where the
    reader takes them on different ports, for then it can wait for one while the other is full.
    """
    order = in_order(graph)
    found = []
    for writer in order:
        if len(graph[writer]) < 2:
            continue
        for reader, entering in _dominated(graph, order, writer).items():
            ways = {(edge.writer, edge.port if edge.writer == writer else "") for edge in entering}
            if len(ways) > 1:
                found.append(Diamond(writer, reader))
    return found


def _dominated(graph: Outgoing, order: list[str], root: str) -> dict[str, list[Edge]]:
    """The processors whose immediate dominator is `root`, with the edges that enter them on ways from `root`.

    Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"; one pass is enough in topological order.
    """
    rank = {name: index for index, name in enumerate(order)}
    entering: dict[str, list[Edge]] = {}
    dominator = {root: root}
    for name in order[rank[root] :]:
        if name != root:
            if name not in entering:
                continue
            nearest = entering[name][0].writer
            for edge in entering[name][1:]:
                nearest = _common(nearest, edge.writer, dominator, rank)
            dominator[name] = nearest
        for edge in graph[name]:
            if edge.reader in rank:
                entering.setdefault(edge.reader, []).append(edge)
    return {name: entering[name] for name, nearest in dominator.items() if nearest == root and name != root}


def _common(one: str, other: str, dominator: Mapping[str, str], rank: Mapping[str, int]) -> str:
    while one != other:
        if rank[one] > rank[other]:
            one = dominator[one]
        else:
            other = dominator[other]
    return one
