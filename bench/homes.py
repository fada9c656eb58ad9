"""What a wall costs: the same programs in containers and sandboxes against bare processes, and against `docker run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.measure import HERE, Ratio, Run, Taken, folder, interleave, program, taken
from bench.ratios import Row, Size, ages, checked, row
from runner.launch.base import LaunchContext, LaunchRequest
from runner.launch.registry import launcher_kind
from runner.spec.model import Home, Processor

IMAGE = "connector-bench:1"
SANDBOXED = {"network": "none"}
"""A trusted command without a network runs in a sandbox."""


def available() -> dict[str, str]:
    """Why a home cannot be measured here, by its name; empty when all can."""
    missing = {}
    if shutil.which("bwrap") is None:
        missing["sandbox"] = "there is no bwrap"
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        missing["container"] = "no Docker engine answers"
    return missing


@contextlib.contextmanager
def image() -> Iterator[str]:
    """An image of nothing but the benchmark's middle program, statically linked."""
    with folder() as at:
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        source = HERE / "src" / "echo.c"
        subprocess.run([compiler, "-O2", "-static", "-D_GNU_SOURCE", "-o", str(at / "echo"), str(source)], check=True)
        (at / "Dockerfile").write_text('FROM scratch\nCOPY echo /echo\nCMD ["/echo"]\n')
        subprocess.run(["docker", "build", "-q", "-t", IMAGE, str(at)], check=True, stdout=subprocess.DEVNULL)
    try:
        yield IMAGE
    finally:
        subprocess.run(["docker", "rmi", "-f", IMAGE], check=False, stdout=subprocess.DEVNULL)


def _middle(home: str) -> dict[str, Any]:
    if home == "container":
        return {"image": IMAGE, "pull": "never", "network": "none"}
    return {"command": program("echo"), **(SANDBOXED if home == "sandbox" else {})}


def _through(home: str, lines: int, width: int, **more: Any) -> Taken:
    """Lines from a bare source through one program in `home` to a bare sink."""
    with folder() as at:
        out = at / "taken"
        processors = {
            "source": {"command": program("source", lines, width), "writes": "c1"},
            "middle": {**_middle(home), "reads": "c1", "writes": "c2", **more},
            "sink": {"command": program("sink", out), "reads": "c2"},
        }
        with Run(at, processors) as run:
            run.finish()
        return checked(taken(out), lines, width)


def throughput(size: Size) -> list[Row]:
    """Bytes and messages a second through each home against a bare process."""
    rows = []
    for home, least in (("container", 0.9), ("sandbox", 0.95)):
        for what, lines, width, scale, unit in (
            ("100-byte lines, messages/s", size.small_lines // 2, 100, 1e6, "M/s"),
            ("10 KiB lines, bytes/s", size.large_lines // 2, 10_240, 1e9, "GB/s"),
        ):

            def rate(home: str, lines: int = lines, width: int = width) -> float:
                found = _through(home, lines, width)
                return (found.lines if width == 100 else found.bytes) / found.seconds

            ratio = interleave(lambda home=home: rate(home), lambda: rate("process"), size.rounds)  # type: ignore[misc]
            rows.append(row("homes", f"{home}: {what}", "bare process", ratio, least, unit, scale))
    return rows


def _restarts(home: str, kills: int, **more: Any) -> list[float]:
    """Milliseconds from the SIGKILL of the program to the first answer to a line written after it."""
    with folder() as at:
        out = at / "ages"
        pause_s = 1.2 if more else 0.3
        restarting = {"backoff": "0s", "limit": "1000 in 60s"}
        middle = {**_middle(home), "contract": "one-to-one", "restart": restarting, **more}
        processors = {
            "source": {"command": program("age_source", 1000, kills * pause_s + 4), "writes": "c1"},
            "middle": {**middle, "reads": "c1", "writes": "c2"},
            "sink": {"command": program("age_sink", out), "reads": "c2"},
        }
        command = ["/echo"] if home == "container" else program("echo")
        killed = []
        with Run(at, processors) as run:
            _running(command)
            time.sleep(1.5)
            for _ in range(kills):
                victim = _running(command)
                killed.append(time.monotonic_ns())
                victim.kill()
                time.sleep(pause_s)
            run.finish()
        pairs = ages(out)
        return [(min(arrived for sent, arrived in pairs if sent > moment) - moment) / 1e6 for moment in killed]


def _running(command: list[str]) -> psutil.Process:
    """The youngest process of this machine that runs `command`."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if each.cmdline() == command and each.status() != psutil.STATUS_ZOMBIE:
                    found.append((each.create_time(), each.pid))
        if found:
            return psutil.Process(max(found)[1])
        time.sleep(0.002)
    raise SystemExit(f"{command} does not run")


def _row(what: str, peer: str, ratio: Ratio, most: float, unit: str) -> Row:
    mine, other = statistics.median(ratio.ours), statistics.median(ratio.peer)
    return Row(
        name="homes",
        what=what,
        peer=peer,
        shown=ratio.text(),
        target=f"<= {most:g}",
        good=ratio.median <= most,
        value=ratio.median,
        detail=f"{mine:.1f} against {other:.1f} {unit}",
        samples={"ours": ratio.ours, "peer": ratio.peer, "unit": unit},
    )


def restarts(size: Size) -> list[Row]:
    """Restarts in place against bare ones; restarts in a new container against `docker run`."""
    rows = []
    kills = max(3, size.kills // 4)
    for home in ("container", "sandbox"):
        ratio = interleave(
            lambda home=home: statistics.median(_restarts(home, kills)),  # type: ignore[misc]
            lambda: statistics.median(_restarts("process", kills)),
            size.rounds,
        )
        rows.append(_row(f"{home}: dead to answering again, in place", "bare process", ratio, 2.0, "ms"))
    ratio = interleave(
        lambda: statistics.median(_restarts("container", 3, trust="untrusted")), _docker_run, size.rounds
    )
    rows.append(
        _row("container: dead to answering again, a new one", "`docker run` to its first byte", ratio, 1.5, "ms")
    )
    return rows


def _docker_run() -> float:
    """Milliseconds from `docker run` to the first byte that comes back."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    began = time.monotonic()
    command = ["docker", "run", "--rm", "-i", "--network", "none", "--name", name, IMAGE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.write(process.stdin.fileno(), b"x\n")
        os.read(process.stdout.fileno(), 1)
        took_ms = (time.monotonic() - began) * 1000
        process.stdin.close()
    return took_ms


def start_of_a_sandbox(size: Size) -> list[Row]:
    """Milliseconds that a sandboxed program takes longer from its start to its end than a bare one."""
    bare, walled = asyncio.run(_starts(20 * size.rounds))
    more = [one - other for one, other in zip(walled, bare, strict=True)]
    middle = statistics.median(more)
    shown = f"{middle:.1f} ms [{min(more):.1f}-{max(more):.1f}]"
    values = f"{statistics.median(walled):.1f} against {statistics.median(bare):.1f} ms"
    what = "sandbox: more from the start of a program to its end"
    return [Row("homes", what, "bare process", shown, "<= 30 ms", middle <= 30, middle, values, {"ms": more})]


async def _starts(count: int) -> tuple[list[float], list[float]]:
    """How long `true` takes as a bare process and in a sandbox, in turn."""
    context = LaunchContext("bench", "bench", exclusive=True, notify=lambda _event: None)
    took: dict[Home, list[float]] = {Home.PROCESS: [], Home.SANDBOX: []}
    for _ in range(count):
        for home, times in took.items():
            spec = Processor("p", ("/bin/true",), Path("/"), home=home, network="none")
            launcher = launcher_kind(home)(context)
            await launcher.prepare([spec])
            handle = await launcher.open(spec, 1)
            began = time.monotonic()
            await handle.start(LaunchRequest(("/bin/true",), "/", {}, {}))
            exited = await handle.exited()
            times.append((time.monotonic() - began) * 1e3)
            await handle.close()
            await launcher.close()
            if not exited.ok:
                raise SystemExit(f"true did not end well in a {home}: {exited}")
    return took[Home.PROCESS], took[Home.SANDBOX]


def starts(size: Size) -> list[Row]:
    """From the start of the command to the first byte at the end of a chain."""
    rows = start_of_a_sandbox(size)
    for home, plural, count, most_s in (("container", "containers", 20, 20.0), ("sandbox", "sandboxes", 100, 10.0)):
        times = [_chain(home, count) for _ in range(min(size.runs, 3))]
        middle = statistics.median(times)
        shown = f"{middle:.1f} s [{min(times):.1f}-{max(times):.1f}]"
        what = f"{count} {plural} in a chain, to the last one's first byte"
        rows.append(Row("homes", what, "", shown, f"<= {most_s:g} s", middle <= most_s, middle, "", {"s": times}))
    return rows


def _chain(home: str, count: int) -> float:
    with folder() as at:
        out = at / "taken"
        processors: dict[str, Any] = {"source": {"command": program("source", 1, 100), "writes": "c0"}}
        for number in range(count):
            joined = {"reads": f"c{number}", "writes": f"c{number + 1}"}
            processors[f"p{number}"] = {**_middle(home), **joined}
        processors["sink"] = {"command": program("sink", out), "reads": f"c{count}"}
        with Run(at, processors) as run:
            run.finish()
            return (taken(out).first_ns - run.began_ns) / 1e9


def memory(size: Size) -> list[Row]:
    """Memory of this machine for each processor of a home, its shims and helpers included."""
    del size
    rows = []
    for home, most in (("process", 2.0), ("sandbox", 4.0), ("container", 24.0)):
        used = _memory_of(home)
        shown = f"{used:.2f} MiB"
        what = f"memory for each processor, {home} (proportional, without the program's own code)"
        rows.append(Row("homes", what, "", shown, f"<= {most:g} MiB", used <= most, used))
    return rows


def _memory_of(home: str, count: int = 10) -> float:
    """Proportional set size (proc(5), smaps_rollup) of all that came with `count` processors, for each, in MiB."""
    with folder() as at:
        before = {each.pid for each in psutil.process_iter()}
        processors: dict[str, Any] = {"source": {"command": program("source", 1, 100, "stay"), "writes": "c0"}}
        for number in range(count):
            processors[f"p{number}"] = {**_middle(home), "reads": f"c{number}", "writes": f"c{number + 1}"}
        out = at / "taken"
        processors["sink"] = {"command": program("sink", out), "reads": f"c{count}"}
        with Run(at, processors) as run:
            until = time.monotonic() + 60
            while not (out.exists() and out.stat().st_size) and time.monotonic() < until:
                time.sleep(0.05)
            new = [each for each in psutil.process_iter() if each.pid not in before and each.pid != run.process.pid]
            total = sum(_proportional_kib(each.pid) for each in new)
            run.stop()
    return total / 1024 / count


def _proportional_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def homes(size: Size) -> list[Row]:
    """All of it, where there is an engine and bubblewrap."""
    missing = available()
    if missing:
        raise SystemExit("; ".join(f"no {home} can be measured: {why}" for home, why in missing.items()))
    with image():
        return [*throughput(size), *restarts(size), *starts(size), *memory(size)]


HOMES: dict[str, Callable[[Size], list[Row]]] = {"homes": homes}
