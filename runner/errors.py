"""Errors that are meant for people: what went wrong, where, and what to do about it.

A processor's death is not an error but a value (`runner.events.Exited`). Only `runner.cli` turns an error into an
exit code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

EXIT_COMPLETED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MACHINE = 3
EXIT_BUG = 70
EXIT_SIGNAL_BASE = 128


class RunnerError(Exception):
    """The root of all errors meant for people.

    `what` says what is wrong in one sentence, `where` names the file, processor or channel (None: the whole run), and
    `remedy` says what to do (None: nothing to add).
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.remedy})" if self.remedy else text


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a pipeline file. `line` and `column` count from 1; None where no text was read."""

    severity: Literal["error", "warning"]
    message: str
    key: str
    remedy: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        head = f"{place}: {self.severity}: " if place else f"{self.severity}: "
        key = f"{self.key}: " if self.key else ""
        tail = f"\n    {self.remedy}" if self.remedy else ""
        return f"{head}{key}{self.message}{tail}"


class SpecError(RunnerError):
    """A pipeline that cannot be used; carries every problem found (errors and warnings), in file order."""

    exit_code = EXIT_USAGE

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class MachineError(RunnerError):
    """This machine cannot do or enforce what is asked."""

    exit_code = EXIT_MACHINE


class LaunchError(RunnerError):
    """A program could not be started (it is not there, not executable, its folder is missing)."""


class CodecError(RunnerError):
    """Bytes that are no message, or a message that a codec cannot carry.

    `index` is the number of whole good messages that came before the bad one in the same call.
    """

    def __init__(self, what: str, *, index: int = 0, where: str | None = None, remedy: str | None = None) -> None:
        self.index = index
        super().__init__(what, where=where, remedy=remedy)


class ContractError(RunnerError):
    """A program did not do what its contract says; never retried."""


class BugError(RunnerError):
    """An invariant of the runner itself does not hold (exit 70)."""

    exit_code = EXIT_BUG
