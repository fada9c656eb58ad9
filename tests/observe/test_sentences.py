import pytest

from runner.events import (
    Event,
    Exited,
    InstanceState,
    LogLeftOut,
    LogLine,
    ProcessorFailed,
    Progress,
    RunEnded,
    RunStarted,
    RunStatus,
    RunStopping,
    StateChanged,
    WaitChanged,
    Warned,
)
from runner.observe.sentences import Level, Sentence, describe_exit, sentences

KILLED = Exited(None, 9)


def changed(
    old: InstanceState, new: InstanceState, cause: str, *, attempt: int = 1, exited: Exited | None = None
) -> StateChanged:
    return StateChanged(processor="enrich", replica=1, attempt=attempt, old=old, new=new, cause=cause, exited=exited)


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            RunStarted(pipeline="flights", run="r1", processors=("fetch", "enrich")),
            Sentence(Level.INFO, "run", "pipeline flights started with 2 processors (fetch, enrich), run r1"),
        ),
        (
            RunStarted(pipeline="flights", run="r1", processors=tuple(map(str, range(100)))),
            Sentence(Level.INFO, "run", "pipeline flights started with 100 processors, run r1"),
        ),
        (RunStopping(cause="SIGINT came"), Sentence(Level.INFO, "run", "stopping: SIGINT came")),
        (
            RunEnded(status=RunStatus.COMPLETED, cause=None, duration_s=3.2),
            Sentence(Level.INFO, "run", "completed in 3.2s"),
        ),
        (
            RunEnded(status=RunStatus.FAILED, cause="store failed", duration_s=62),
            Sentence(Level.ERROR, "run", "failed after 1m2s: store failed"),
        ),
        (
            RunEnded(status=RunStatus.STOPPED, cause="SIGTERM came", duration_s=1),
            Sentence(Level.INFO, "run", "stopped after 1s: SIGTERM came"),
        ),
        (
            changed(InstanceState.STARTING, InstanceState.RUNNING, "its program runs"),
            Sentence(Level.INFO, "enrich[1]", "started: its program runs"),
        ),
        (
            changed(InstanceState.STARTING, InstanceState.RUNNING, "ready", attempt=3),
            Sentence(Level.INFO, "enrich[1]", "started again (attempt 3): ready"),
        ),
        (
            changed(InstanceState.RUNNING, InstanceState.BACKOFF, "in 100ms, because it died", exited=KILLED),
            Sentence(Level.WARNING, "enrich[1]", "will be restarted: in 100ms, because it died (killed by SIGKILL)"),
        ),
        (
            changed(
                InstanceState.RUNNING, InstanceState.EXITED, "exit status 0 after its input", exited=Exited(0, None)
            ),
            Sentence(Level.INFO, "enrich[1]", "ended: exit status 0 after its input"),
        ),
        (
            LogLine(processor="enrich", replica=0, stream="stderr", text="hello\r", cut=True),
            Sentence(Level.INFO, "enrich[0]", "hello … (cut: longer than the limit)", log=True),
        ),
        (
            LogLine(processor="enrich", replica=0, stream="stray", text="print()"),
            Sentence(Level.WARNING, "enrich[0]", "print()", log=True, stray=True),
        ),
        (
            LogLeftOut(processor="enrich", replica=0, count=1234),
            Sentence(Level.WARNING, "enrich[0]", "… 1,234 log lines left out: more than the limit"),
        ),
        (Warned(message="cpus has no effect"), Sentence(Level.WARNING, "run", "warning: cpus has no effect")),
        (
            Progress(what="image x", doing="downloading", fraction=0.254),
            Sentence(Level.INFO, "run", "image x: downloading 25%"),
        ),
        (Progress(what="image x", doing="there", done=True), Sentence(Level.INFO, "run", "image x: there")),
        (Warned(message="odd", processor="enrich"), Sentence(Level.WARNING, "enrich", "warning: odd")),
    ],
)
def test_what_is_said(event: Event, sentence: Sentence) -> None:
    assert sentences(event) == (sentence,)


@pytest.mark.parametrize(
    "event",
    [
        changed(InstanceState.BACKOFF, InstanceState.STARTING, "the backoff is over"),
        changed(InstanceState.RUNNING, InstanceState.DRAINING, "the end of its input"),
        changed(InstanceState.RUNNING, InstanceState.FAILED, "told by ProcessorFailed"),
        WaitChanged(processor="enrich", replica=0, cause="waiting for store"),
    ],
)
def test_what_is_not_worth_a_line(event: Event) -> None:
    assert sentences(event) == ()


def test_a_failure_carries_cause_exit_and_last_log_lines() -> None:
    event = ProcessorFailed(
        processor="store", replica=0, cause="died 6 times", exited=Exited(1, None), last_log=("one", "two\r")
    )
    assert [(one.level, one.text, one.log) for one in sentences(event)] == [
        (Level.ERROR, "failed for good: died 6 times (exit status 1)", False),
        (Level.ERROR, "its last log lines:", False),
        (Level.ERROR, "one", True),
        (Level.ERROR, "two", True),
    ]


def test_a_failure_without_a_log_says_so() -> None:
    event = ProcessorFailed(processor="store", replica=0, cause="no such program", exited=None, last_log=())
    assert [one.text for one in sentences(event)] == ["failed for good: no such program", "it logged nothing"]


@pytest.mark.parametrize(
    ("exited", "words"),
    [
        (None, ""),
        (Exited(3, None), "exit status 3"),
        (Exited(None, 11), "killed by SIGSEGV"),
        (Exited(None, 40), "killed by signal 40"),
        (Exited(None, None), ""),
    ],
)
def test_how_it_ended(exited: Exited | None, words: str) -> None:
    assert describe_exit(exited) == words
