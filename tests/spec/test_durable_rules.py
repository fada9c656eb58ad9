"""What a durable channel asks of its file."""

from __future__ import annotations

from pathlib import Path

from runner.spec.load import load_text
from runner.spec.model import Durability
from tests.spec.marked import ENV, Case, case, channel, check_case, middle, parametrized

ERRORS = [
    case("memory", channel('kind = "durable"\ndurability = ¶"memory"'), "a durable channel outlives something"),
    case("no kind", channel('durability = ¶"disk"'), "a memory channel outlives nothing"),
    case("pipe", channel('kind = "memory"\ndurability = ¶"process"'), "a memory channel outlives nothing"),
    case("drops", channel('kind = "durable"\non_full = ¶"drop-oldest"'), "a durable channel drops nothing"),
]


@parametrized(ERRORS)
def test_errors(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


ANSWERS = middle('contract = "one-to-one"').replace('writes = "x"', '¶writes = "x"')
DURABLE = '[channels.w]\nkind = "durable"\n'


@parametrized(
    [
        case("memory", ANSWERS + DURABLE, 'what m reads from "w" outlives more than what it writes to "x"'),
        case(
            "process", ANSWERS + DURABLE + '[channels.x]\nkind = "durable"\ndurability = "process"\n', "outlives more"
        ),
    ]
)
def test_a_weaker_channel_behind_a_stronger_one(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "warning")


def test_no_warning_where_nothing_is_weaker(tmp_path: Path) -> None:
    both = DURABLE + '[channels.x]\nkind = "durable"\n'
    assert load_text(ANSWERS.replace("¶", "") + both, folder=tmp_path, env=ENV).warnings == ()
    stream = middle("") + DURABLE
    assert load_text(stream, folder=tmp_path, env=ENV).warnings == ()


def test_durability(tmp_path: Path) -> None:
    for text, durability in (
        ('kind = "durable"', Durability.DISK),
        ('kind = "durable"\ndurability = "process"', Durability.PROCESS),
        ("", Durability.MEMORY),
    ):
        pipeline = load_text(channel(text), folder=tmp_path, env=ENV).pipeline
        assert pipeline.channels["x"].durability is durability
