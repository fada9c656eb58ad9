"""`connector doctor [FILE]`: what this machine can do, and how well it walls off what nobody has to trust."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runner.plan.facts import Facts
    from runner.plan.tiers import HomeVerdict
    from runner.spec.model import Pipeline

VERSION = 1
"""Of the JSON that is written; fields may be added to it, none changes its meaning."""

_GROUPS = {"machine": "this machine", "engine": "containers", "sandbox": "sandboxes", "bounds": "bounds of a run"}
_MARKS = {"good": ("✓", "ok", "green"), "note": ("!", "! ", "yellow"), "bad": ("✗", "no", "red")}


@click.command("doctor")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to say it."
)
@click.option(
    "--home",
    type=click.Choice(["process", "sandbox", "container"]),
    help="Judge FILE as `connector run --home` runs it.",
)
@click.option("--require", type=click.Choice(["A", "B", "C"]), help="Exit with 3 when no home reaches this tier.")
def command(file: Path | None, form: str, home: str | None, require: str | None) -> int:
    """Say what this machine can do, the tier of each home, and what to do about what is missing.

    With FILE, also whether the processors of that pipeline can run here. Exits with 0 whatever it finds, but with 3
    when the tier of `--require` is not reached or a processor of FILE cannot run.
    """
    from runner.errors import EXIT_COMPLETED, EXIT_MACHINE
    from runner.launch.machine import gather
    from runner.plan.tiers import Tier, best_for_untrusted

    pipeline = None
    if file is not None:
        from runner.spec.load import load_file
        from runner.spec.model import Home

        pipeline = load_file(file, home=Home(home) if home else None).pipeline
    facts = gather(surroundings=True)
    answer = _answer(facts, pipeline)
    click.echo(_as_json(answer) if form == "json" else _Text(facts).all(answer))
    best = best_for_untrusted(facts).tier
    short = require is not None and best.below(Tier(require))
    if short:
        click.echo(f"connector: tier {require} is required, tier {best} is the best here", err=True)
    runs = pipeline is None or answer["pipeline"]["runs"]
    return EXIT_COMPLETED if runs and not short else EXIT_MACHINE


def _answer(facts: Facts, pipeline: Pipeline | None) -> dict[str, Any]:
    """Everything that is said, as JSON has it."""
    from msgspec import to_builtins

    from runner.cli import version
    from runner.plan.checkup import findings
    from runner.plan.tiers import best_for_untrusted, judge, limits
    from runner.spec.model import OWN_HOMES, Home

    return {
        "version": VERSION,
        "runner": version(),
        "best_tier": best_for_untrusted(facts).tier.value,
        "homes": {home.value: _verdict(judge(facts, home)) for home in OWN_HOMES},
        "untrusted": {
            "command": _untrusted(judge(facts, Home.SANDBOX)),
            "image": _untrusted(judge(facts, Home.CONTAINER)),
        },
        "limits": {
            home.value: to_builtins(limits(facts, home, untrusted=home is not Home.PROCESS)) for home in OWN_HOMES
        },
        "findings": to_builtins(findings(facts)),
        "facts": to_builtins(facts),
        "pipeline": None if pipeline is None else _judged(facts, pipeline),
    }


def _verdict(found: HomeVerdict) -> dict[str, Any]:
    return {"works": found.works, "tier": found.tier.value, "cause": found.cause, "remedy": found.remedy}


def _untrusted(found: HomeVerdict) -> dict[str, Any]:
    runs = found.works and found.tier.enough
    return {"runs": runs, "home": found.home.value, "tier": found.tier.value, "means": found.tier.means}


def _judged(facts: Facts, pipeline: Pipeline) -> dict[str, Any]:
    """Whether each processor can run here, and which of its limits do not hold."""
    from runner.plan.tiers import judge, requirement, unenforced

    processors = {}
    for name, spec in pipeline.processors.items():
        refused = requirement(spec, facts)
        processors[name] = {
            "runs": refused is None,
            "home": spec.home.value,
            "trust": spec.trust.value,
            "tier": judge(facts, spec.home).tier.value,
            "cause": None if refused is None else refused.what,
            "remedy": None if refused is None else refused.remedy,
            "unenforced": [] if refused is not None else list(unenforced(spec, facts)),
        }
    return {
        "file": None if pipeline.file is None else str(pipeline.file),
        "name": pipeline.name,
        "runs": all(each["runs"] for each in processors.values()),
        "processors": processors,
    }


def _as_json(answer: dict[str, Any]) -> str:
    import json

    return json.dumps(answer, indent=2)


class _Text:
    """The answer for people: coloured on a terminal, in ASCII where the output cannot take more."""

    def __init__(self, facts: Facts) -> None:
        terminal = facts.surroundings is not None and facts.surroundings.terminal
        self._colour = terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        self._plain = not encoding.lower().startswith("utf")
        self._lines: list[str] = []

    def all(self, answer: dict[str, Any]) -> str:
        """Homes first, as that is what people come for; what they are judged by below."""
        self._homes(answer)
        self._limits(answer["limits"], {name for name, home in answer["homes"].items() if home["works"]})
        for group, title in _GROUPS.items():
            self._title(title)
            for each in answer["findings"]:
                if each["group"] == group:
                    self._line(each["mark"], each["name"], each["said"], each["remedy"])
        if answer["pipeline"] is not None:
            self._pipeline(answer["pipeline"])
        text = "\n".join(self._lines)
        return text.encode("ascii", "replace").decode() if self._plain else text

    def _homes(self, answer: dict[str, Any]) -> None:
        self._lines.append(self._style(f"connector runner {answer['runner']}", bold=True))
        self._title("homes")
        for name, home in answer["homes"].items():
            weak = home["tier"] in {"C", "D"} and name != "process"
            mark = "bad" if not home["works"] else "note" if weak else "good"
            tier = f"tier {home['tier']}: " if home["works"] else ""
            self._line(mark, name, f"{tier}{home['cause']}", home["remedy"])
        for what, found in answer["untrusted"].items():
            does = (
                f"runs in a {found['home']}, tier {found['tier']}: {found['means']}" if found["runs"] else "is refused"
            )
            self._line("good" if found["runs"] else "bad", f"an untrusted {what}", does)

    def _limits(self, limits: dict[str, dict[str, dict[str, str]]], works: set[str]) -> None:
        self._title("what holds the limits of an instance (of an untrusted one in a sandbox or a container)")
        self._lines.append(f"    {'':<12}" + "".join(f"{home:<11}" for home in limits).rstrip())
        notes: dict[str, int] = {}
        for resource in next(iter(limits.values())):
            row = ""
            for home, held in limits.items():
                hold, number = held[resource], 0
                if home in works:
                    number = notes.setdefault(hold["note"], len(notes) + 1)
                row += (f"{hold['by']} {number}" if number else "-").ljust(11)
            self._lines.append(f"    {resource:<12}{row}".rstrip())
        self._lines += [f"    {number} {note}" for note, number in notes.items()]

    def _pipeline(self, found: dict[str, Any]) -> None:
        self._title(f"pipeline {found['name']}")
        for name, each in found["processors"].items():
            trust = ", untrusted" if each["trust"] == "untrusted" else ""
            said = f"{each['home']}{trust}: {'runs here' if each['runs'] else each['cause']}"
            said += "".join(f"; {sentence}" for sentence in each["unenforced"])
            mark = "bad" if not each["runs"] else "note" if each["unenforced"] else "good"
            self._line(mark, name, said, each["remedy"])

    def _title(self, text: str) -> None:
        self._lines += ["", self._style(text, bold=True)]

    def _line(self, mark: str, name: str, said: str, remedy: str | None = None) -> None:
        from runner.cli.check import printable

        sign, plain, colour = _MARKS[mark]
        self._lines.append(f"  {self._style(plain if self._plain else sign, fg=colour)} {name:<12} {printable(said)}")
        if remedy is not None:
            self._lines.append(f"    {'':<12} {'->' if self._plain else '→'} {printable(remedy)}")

    def _style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colour else text
