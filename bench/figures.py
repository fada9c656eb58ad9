"""Figures that stand for themselves: starts, restarts, memory, idleness."""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.measure import PROJECT, RUNNER, Run, chain, environment, folder, program, taken, wait_until
from bench.ratios import CAT, Row, Size, ages

MIB = 1 << 20


def figure(name: str, what: str, values: list[float], most: float, unit: str, detail: str = "") -> Row:
    """A row whose median is due to be at most `most`."""
    middle = statistics.median(values)
    shown = f"{middle:.1f} {unit}" if len(values) == 1 else f"{middle:.1f} {unit} [{min(values):.1f}-{max(values):.1f}]"
    return Row(name, what, "", shown, f"<= {most:g} {unit}", middle <= most, middle, detail, {"values": values})


def check(size: Size) -> list[Row]:
    """`connector check` of a small file, from start to exit."""
    times = []
    with folder() as at:
        file = at / "pipeline.toml"
        file.write_text(
            'name = "small"\n[processors.a]\ncommand = ["seq", "10"]\nwrites = "c"\n'
            '[processors.b]\ncommand = ["cat"]\nreads = "c"\n'
        )
        for _ in range(size.runs + 1):
            began = time.monotonic()
            subprocess.run(
                [*RUNNER, "check", str(file)], check=True, capture_output=True, cwd=PROJECT, env=environment()
            )
            times.append((time.monotonic() - began) * 1000)
    return [figure("check", "`connector check` of a small file", times[1:], 150, "ms")]


def first_message(size: Size) -> list[Row]:
    """From the start of the command to the first byte at the sink of a two-processor pipeline."""
    times = []
    for _ in range(size.runs):
        with folder() as at, Run(at, chain(program("source", 1, 100), program("sink", at / "taken"))) as run:
            run.finish()
            times.append((taken(at / "taken").first_ns - run.began_ns) / 1e6)
    return [figure("first", "first message of a two-processor pipeline", times, 300, "ms")]


def restart(size: Size) -> list[Row]:
    """From the SIGKILL of `cat` to the first answer to a line that was written after it."""
    times = []
    with folder() as at:
        out = at / "ages"
        lasting = size.kills * 0.3 + 3
        restarting = {"backoff": "0s", "limit": "1000 in 60s"}
        commands = (program("age_source", 1000, lasting), CAT, program("age_sink", out))
        killed: list[int] = []
        with Run(at, chain(*commands, contract="one-to-one", restart=restarting)) as run:
            run.running(CAT)
            time.sleep(1)
            for _ in range(size.kills):
                victim = run.running(CAT)
                killed.append(time.monotonic_ns())
                victim.kill()
                time.sleep(0.3)
            run.finish()
        pairs = ages(out)
        for moment in killed:
            answered = [arrived for sent, arrived in pairs if sent > moment]
            times.append((min(answered) - moment) / 1e6)
    return [figure("restart", "dead to answering again (cat, backoff 0)", times, 50, "ms")]


def memory(size: Size) -> list[Row]:
    """Resident memory with 10 processors, over many bytes, and with a reader that is stopped."""
    return [_ten_processors(), _flat(size), _stopped_reader(size)]


def _ten_processors() -> Row:
    with folder() as at:
        out = at / "ages"
        commands = [program("age_source", 1000, 3), *[CAT] * 8, program("age_sink", out)]
        with Run(at, chain(*commands)) as run:
            wait_until(out.exists, "the sink to start")
            time.sleep(2)
            resident = run.resident_bytes() / MIB
            run.finish()
    return figure("memory", "runner's resident memory, 10 processors", [resident], 45, "MiB")


def _flat(size: Size) -> Row:
    lines = size.moved_bytes // 10_240
    with folder() as at:
        run = Run(at, chain(program("source", lines, 10_240), CAT, program("sink", at / "taken")))
        seen, seconds = watched(run, at / "taken")
    what = f"resident memory over {size.moved_bytes / 1e9:.0f} GB: farthest from its median"
    return steady("memory", what, seen, f", {size.moved_bytes / 1e9:.0f} GB in {seconds:.1f} s")


def watched(started: Run, out: Path) -> tuple[list[float], float]:
    """MiB of the runner over a run to its end, without its beginning; and the seconds that its sink saw."""
    seen = []
    with started as run:
        wait_until(lambda: out.exists() and out.stat().st_size, "a first byte")
        time.sleep(0.5)
        while run.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.append(run.resident_bytes() / MIB)
            time.sleep(0.05)
        run.finish()
    return seen[len(seen) // 10 :], taken(out).seconds


def steady(name: str, what: str, seen: list[float], more: str) -> Row:
    """A row for memory that is due to stay within 5 MiB of its median."""
    middle = statistics.median(seen)
    farthest = max(abs(each - middle) for each in seen)
    growth = statistics.median(seen[-len(seen) // 4 :]) - statistics.median(seen[: len(seen) // 4 + 1])
    detail = f"median {middle:.1f}, {min(seen):.1f}-{max(seen):.1f} MiB, last quarter - first: {growth:+.1f} MiB{more}"
    return figure(name, what, [farthest], 5, "MiB", detail)


def _stopped_reader(size: Size) -> Row:
    with folder() as at:
        sink = program("sink", at / "taken")
        with Run(at, chain(program("source", 10**12, 100), CAT, sink)) as run:
            wait_until(lambda: (at / "taken").exists() and (at / "taken").stat().st_size, "a first byte")
            time.sleep(1)
            before = run.resident_bytes() / MIB
            reader = run.running(sink)
            reader.send_signal(signal.SIGSTOP)
            time.sleep(1)
            seen = []
            until = time.monotonic() + size.watch_s / 2
            while time.monotonic() < until:
                seen.append(run.resident_bytes() / MIB)
                time.sleep(0.05)
            reader.send_signal(signal.SIGCONT)
            run.stop()
    what = "resident memory with a reader that is stopped: farthest from its median"
    return steady("memory", what, seen, f"; {before:.1f} MiB before; two channels hold 8 MiB each")


def many(size: Size) -> list[Row]:
    """From the start of the command to the first byte at the end of a chain of 100 processors."""
    times = []
    for _ in range(min(size.runs, 3)):
        with folder() as at:
            commands = [program("source", 1, 100), *[CAT] * 98, program("sink", at / "taken")]
            with Run(at, chain(*commands)) as run:
                run.finish()
                times.append((taken(at / "taken").first_ns - run.began_ns) / 1e9)
    return [figure("many", "100 processors in a chain, to the last one's first byte", times, 4, "s")]


def idle(size: Size) -> list[Row]:
    """CPU of the runner while nothing flows."""
    with folder() as at, Run(at, chain(program("source", 1, 100, "stay"), CAT, program("sink", at / "taken"))) as run:
        wait_until(lambda: (at / "taken").exists() and (at / "taken").stat().st_size, "a first byte")
        time.sleep(1)
        before = run.runner.cpu_times()
        time.sleep(size.watch_s)
        after = run.runner.cpu_times()
        run.stop()
    used = (after.user + after.system - before.user - before.system) / size.watch_s * 100
    return [figure("idle", "CPU of the runner when idle", [used], 0.5, "% of a core")]


FIGURES: dict[str, Callable[[Size], list[Row]]] = {
    "check": check,
    "first": first_message,
    "restart": restart,
    "memory": memory,
    "many": many,
    "idle": idle,
}
