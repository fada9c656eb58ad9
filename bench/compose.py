"""What a Compose project costs: `compose/ingest` beside its two programs and a pipe, by hand, in one container."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.measure import HERE, RUNNER, folder, interleave
from bench.ratios import Row, Size, row

INGEST = HERE.parent / "compose" / "ingest"
_BOTH = """\
ARG FETCH STORE
FROM ${STORE} AS store
FROM ${FETCH}
USER 0
RUN apt-get update && apt-get install -y --no-install-recommends default-jre-headless libpostgresql-jdbc-java
COPY --from=store /processor /store
USER 65532:65532
"""
_BY_HAND = """\
services:
  both:
    image: {image}
    networks: [api, database]
    secrets: [store-pgpassword]
    command:
      - sh
      - -c
      - >-
        export PGPASSWORD="$$(cat /run/secrets/store-pgpassword)";
        node /processor/fetch.mjs http://api:8080/readings |
        java -cp /store/store.jar:/usr/share/java/postgresql.jar Store
        'jdbc:postgresql://database/postgres?user=postgres' > /dev/null
networks: {{api: {{}}, database: {{}}}}
secrets: {{store-pgpassword: {{file: ./password.txt}}}}
"""
_BEGUN = "the first page is asked for"
_LIMIT_S = 600.0


class _Project:
    """A copy of the project in `at`, with these Compose files (none: those that Compose finds)."""

    def __init__(self, at: Path, rows: int, files: tuple[str, ...] = ()) -> None:
        self._at = at
        self._files = [word for file in files for word in ("--file", file)]
        self.name = f"connector-bench-{uuid.uuid4().hex[:8]}"
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": self.name, "ROWS": str(rows)}

    def compose(self, *words: str) -> str:
        """What `docker compose` prints."""
        command = ["docker", "compose", "--progress", "quiet", *self._files, *words]
        return _output(command, cwd=self._at, env=self._environment)

    def ready(self) -> None:
        """API and database are up, and answer."""
        self.compose("up", "--detach", "api", "database")
        ask = 'PGPASSWORD="$(cat /run/secrets/store-pgpassword)" psql -h 127.0.0.1 -U postgres -c "SELECT 1"'
        _until(lambda: _well(lambda: self.compose("exec", "-T", "database", "sh", "-c", ask)))

    def begun_s(self) -> float | None:
        """When the first page was asked for."""
        for line in _output(["docker", "logs", "--timestamps", f"{self.name}-api-1"]).splitlines():
            if _BEGUN in line:
                return _seconds(line.split()[0])
        return None

    def ended_s(self, service: str) -> float | None:
        """When a container ended well; None: it has not yet."""
        text = _output(["docker", "inspect", "--format", "{{json .State}}", f"{self.name}-{service}-1"])
        state = json.loads(text)
        if state["Status"] != "exited":
            return None
        assert state["ExitCode"] == 0, self.compose("logs")
        return _seconds(state["FinishedAt"])

    def rows(self) -> int:
        """How many rows are stored."""
        ask = (
            'PGPASSWORD="$(cat /run/secrets/store-pgpassword)" psql -h 127.0.0.1 -U postgres -At '
            '-c "SELECT count(*) FROM readings"'
        )
        return int(self.compose("exec", "-T", "database", "sh", "-c", ask))


@contextmanager
def _project(rows: int, *, by_hand: str | None = None) -> Iterator[_Project]:
    with folder() as at:
        copy = at / "ingest"
        shutil.copytree(INGEST, copy)
        files: tuple[str, ...] = ()
        if by_hand is not None:
            (copy / "by-hand.yaml").write_text(_BY_HAND.format(image=by_hand))
            files = ("compose.override.yaml", "by-hand.yaml")
        project = _Project(copy, rows, files)
        try:
            yield project
        finally:
            project.compose("down", "--volumes", "--timeout", "1")


def _rate(rows: int, service: str, *, by_hand: str | None = None) -> float:
    """Rows a second, from the first page that is asked for to the end of the sink."""
    with _project(rows, by_hand=by_hand) as project:
        project.ready()
        project.compose("up", "--detach")
        ended_s = _found(lambda: project.ended_s(service))
        begun_s = project.begun_s()
        assert begun_s is not None
        assert project.rows() == rows
        return rows / (ended_s - begun_s)


def _start(fetch: str | None = None) -> float:
    """Seconds from the command to the first page that is asked for; `fetch`: by a plain container of that image."""
    with _project(500) as project:
        project.ready()
        began = time.time()
        if fetch is None:
            project.compose("up", "--detach")
        else:
            network = ["--network", f"{project.name}_api"]
            program = ["node", "fetch.mjs", "http://api:8080/readings"]
            _output(["docker", "run", "--rm", *network, fetch, *program])
        return _found(project.begun_s) - began


def compose(size: Size) -> list[Row]:
    """Rows a second, and the start, where there are an engine and the images."""
    try:
        fetch, store = _images()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"compose is left out: {error}", file=sys.stderr)
        return []
    both = "connector-bench-both:latest"
    arguments = ["--build-arg", f"FETCH={fetch}", "--build-arg", f"STORE={store}"]
    subprocess.run(["docker", "build", "--quiet", "--tag", both, *arguments, "-"], input=_BOTH.encode(), check=True)
    rows = 400_000 if size.rounds > 3 else 200_000
    ratio = interleave(lambda: _rate(rows, "store"), lambda: _rate(rows, "both", by_hand=both), size.rounds)
    what = "ingest: rows a second from the API into PostgreSQL"
    found = [row("compose", what, "the same programs and a pipe in one container", ratio, 0.7, "k/s", 1e3)]
    starts = interleave(_start, lambda: _start(fetch), size.rounds)
    mine, plain = statistics.median(starts.ours), statistics.median(starts.peer)
    found.append(
        Row(
            name="compose",
            what="ingest: from `docker compose up` to the source's first request",
            peer="`docker run` of the source alone",
            shown=f"{mine:.1f} s [{min(starts.ours):.1f}-{max(starts.ours):.1f}]",
            target="-",
            good=True,
            value=mine,
            detail=f"{mine:.1f} against {plain:.1f} s",
            samples={"ours": starts.ours, "peer": starts.peer, "unit": "s", "scale": 1},
        )
    )
    return found


def _images() -> tuple[str, str]:
    """The images of the two processors; the runner's and the others are there too."""
    built = json.loads(_output([*RUNNER, "build", "--quiet", "--format", "json", str(INGEST / "pipeline.toml")]))
    by_processor = {name: each["image"] for each in built for name in each["processors"]}
    for line in (INGEST / "compose.yaml").read_text().splitlines():
        if line.startswith("  image: connector-runner:"):
            _output(["docker", "image", "inspect", line.split(": ")[1]])
    _output(["docker", "image", "inspect", "postgres:17"])
    return by_processor["fetch"], by_processor["store"]


def _output(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S, **more)
    if done.returncode != 0:
        raise subprocess.SubprocessError(f"{' '.join(command[:4])}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _well(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except subprocess.SubprocessError:
        return False
    return True


def _found(ask: Callable[[], float | None]) -> float:
    found: list[float] = []

    def asked() -> bool:
        value = ask()
        found.extend([] if value is None else [value])
        return bool(found)

    _until(asked)
    return found[0]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise subprocess.SubprocessError("it took too long")
        time.sleep(0.2)


def _seconds(moment: str) -> float:
    """Of a time as the engine writes it, with nanoseconds."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


COMPOSE = {"compose": compose}
