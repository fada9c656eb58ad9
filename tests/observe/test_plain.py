import io
import re
import subprocess
import sys

from runner.events import (
    Event,
    Exited,
    InstanceState,
    LogLine,
    ProcessorFailed,
    RunEnded,
    RunStarted,
    RunStatus,
    StateChanged,
    Warned,
)
from runner.observe.plain import PlainLog
from runner.observe.sink import Sink
from tests.observe import samples

STARTED = RunStarted(pipeline="flights", run="r1", processors=("fetch", "enrich"))
LOGGED = LogLine(processor="enrich", replica=1, stream="stderr", text="\x1b[31mloaded\u202e")
STRAY = LogLine(processor="enrich", replica=1, stream="stray", text="debug print")
DIED = StateChanged(
    processor="enrich",
    replica=1,
    attempt=1,
    old=InstanceState.RUNNING,
    new=InstanceState.BACKOFF,
    cause="in 100ms",
    exited=Exited(None, 9),
)
FAILED = ProcessorFailed(processor="fetch", replica=0, cause="no such program", exited=None, last_log=("bye",))
ENDED = RunEnded(status=RunStatus.FAILED, cause="fetch failed", duration_s=2)


def written(*events: Event, quiet: bool = False, colour: bool = False, finish: bool = False) -> list[str]:
    stream = io.StringIO()
    log = PlainLog(Sink(stream), quiet=quiet, colour=colour)
    for event in events:
        log.handle(event)
    if finish:
        log.finish(samples.report())
    log.sink.close(5)
    return stream.getvalue().splitlines()


def test_lines_carry_time_processor_and_instance() -> None:
    lines = written(STARTED, LOGGED, STRAY, DIED, FAILED, ENDED)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", line) for line in lines)
    assert [line[24:] for line in lines] == [
        "run        pipeline flights started with 2 processors (fetch, enrich), run r1",
        "enrich[1] | \\x1b[31mloaded\\u202e",
        "enrich[1] stray | debug print",
        "enrich[1]  will be restarted: in 100ms (killed by SIGKILL)",
        "fetch[0]   failed for good: no such program",
        "fetch[0]   its last log lines:",
        "fetch[0]  | bye",
        "run        failed after 2s: fetch failed",
    ]


def test_quiet_shows_errors_only() -> None:
    lines = written(STARTED, LOGGED, STRAY, DIED, Warned(message="odd"), FAILED, ENDED, quiet=True, finish=True)
    assert len(lines) == 4
    assert "failed for good" in lines[0]
    assert "failed after 2s" in lines[3]


def test_colours_only_where_asked_and_never_from_a_program() -> None:
    assert not any("\x1b" in line for line in written(STARTED, LOGGED, FAILED))
    coloured = written(STARTED, LOGGED, FAILED, colour=True)
    assert "\x1b[1;31mfailed for good: no such program\x1b[0m" in coloured[2]
    assert "\\x1b[31mloaded" in coloured[1]
    assert "\x1b[31m" not in coloured[1]


def test_the_final_table_and_the_ledger_are_left_behind() -> None:
    text = "\n".join(written(STARTED, finish=True))
    assert "processor  state" in text
    assert "ledger balanced: every message acknowledged by every reader, nothing lost or doubled" in text


def test_it_is_light_to_import() -> None:
    program = "import sys, runner.observe.plain; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert {"rich", "asyncio", "psutil"}.isdisjoint(done.stdout.split())
