"""What a store costs that lives long: a start with much in it, and memory over many messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bench.acknowledged import ANSWER
from bench.durable import PROCESS
from bench.figures import figure, steady, watched
from bench.measure import Run, chain, folder, program, wait_until
from bench.ratios import CAT, Row, Size

_LIMIT_S = 1800.0


def start(size: Size) -> list[Row]:
    """From the start of the command to the first carried message at the sink, with much in the store and cold files.

    The first run is killed with its reader stopped; the second one reads the same state.
    """
    times = []
    with folder() as at:
        state, out = at / ".connector" / "bench" / "data.mdb", at / "taken"
        channels = {"c1": {**PROCESS, "capacity": size.stored_bytes}}
        stalled = _chain(program("source", 10**12, 100), ["sleep", "1000000"])
        with Run(at, stalled, channels) as run:
            wait_until(lambda: state.exists() and state.stat().st_size > size.stored_bytes, "a store", _LIMIT_S)
            run.process.kill()
        stored = state.stat().st_size
        for _ in range(size.runs):
            out.unlink(missing_ok=True)
            _forget(state)
            with Run(at, _chain(program("source", 0, 100), program("sink", out)), channels) as run:
                wait_until(lambda: out.exists() and out.stat().st_size, "a first byte")
                run.process.kill()
                began = run.began_ns
            times.append((_first_ns(out) - began) / 1e9)
    what = f"from start to the first carried message, {stored / 1e9:.1f} GB in the store"
    return [figure("durable-start", what, times, 1, "s")]


def _chain(source: list[str], sink: list[str]) -> dict[str, dict[str, object]]:
    """The source may be started again: whatever it writes then is new."""
    processors = chain(source, sink)
    processors["p0"]["resume"] = "live"
    return processors


def _forget(file: Path) -> None:
    """Nothing of `file` is in the kernel's memory any more."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _first_ns(out: Path) -> int:
    """When the sink got its first byte: it says so at once."""
    return int(out.read_text().split()[1])


def memory(size: Size) -> list[Row]:
    """Resident memory of the runner over a long chain of durable channels, and over many acknowledged messages."""
    rows = []
    for name, command, contract, moved, width in (
        ("durable chain", CAT, "stream", size.moved_bytes // 4, 100),
        ("acknowledged over durable channels", ANSWER, "acknowledged", size.moved_bytes // 80, 100),
    ):
        lines = moved // width
        with folder() as at:
            commands = (program("source", lines, width), command, program("sink", at / "taken"))
            run = Run(at, chain(*commands, contract=contract), {"c1": PROCESS, "c2": PROCESS})
            seen, seconds = watched(run, at / "taken")
        what = f"resident memory, {name}, {moved / 1e9:.2g} GB of {width}-byte lines: farthest from its median"
        rows.append(steady("durable-memory", what, seen, f", in {seconds:.1f} s"))
    return rows


STORED: dict[str, Callable[[Size], list[Row]]] = {"durable-start": start, "durable-memory": memory}
