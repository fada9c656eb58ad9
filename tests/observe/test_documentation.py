"""docs/report.md says what is written, and its examples are of that form."""

import inspect
import json
import re
from pathlib import Path

import msgspec

from runner import events
from runner.observe.jsonlog import event_name
from runner.observe.summary import verdict
from runner.supervise import snapshot
from runner.supervise.snapshot import RunReport
from tests.observe.test_jsonlog import EVERY_EVENT, written

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
REPORT, LINE = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_a_report_with_every_field() -> None:
    decoded = msgspec.json.decode(REPORT, type=RunReport, strict=True)
    assert json.loads(REPORT) == msgspec.to_builtins(decoded)
    assert "nothing lost or doubled" in verdict(decoded)


def test_every_field_has_its_row() -> None:
    for _, struct in inspect.getmembers(snapshot, lambda one: inspect.isclass(one) and issubclass(one, msgspec.Struct)):
        for field in getattr(struct, "__struct_fields__", ()):
            assert re.search(rf"`{field}`", PAGE), f"{struct.__name__}.{field} is missing"


def test_every_event_has_its_row_with_its_fields() -> None:
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)}
    kinds = {event_name(kind) for kind in events.Event.__subclasses__()}
    assert kinds <= rows.keys()
    for entry in written(*EVERY_EVENT, balanced=True)[1]:
        for field in entry.keys() - {"time", "level", "event"}:
            assert f"`{field}`" in rows[entry["event"]], f"{entry['event']}.{field} is missing"


def test_the_example_line_is_what_is_written() -> None:
    example = json.loads(LINE)
    real = next(entry for entry in written(*EVERY_EVENT)[1] if entry["event"] == example["event"])
    assert list(real) == list(example)
    assert real["exit"].keys() == example["exit"].keys()
