import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.observe.frame import render
from runner.observe.picture import Rates, compact, headline, picture_of
from runner.observe.sanitize import cells
from runner.observe.usage import TreeUsage
from tests.observe.samples import row, snapshot

ROWS = (
    row("fetch", written=1000, waiting="waiting for `store`, 8 MiB in flight"),
    row("enrich", state="backoff", queue_messages=1234, queue_bytes=8 << 20, restarts=3),
)
RATES = {"fetch": Rates(0, 123_456), "enrich": Rates(99.5, 0)}
USAGE = {"fetch": TreeUsage(99.6, 512 << 20)}


def lines(width: int, height: int = 20) -> list[str]:
    picture = picture_of(ROWS, RATES, USAGE, width=width, height=height)
    return render(picture, width=width, colour=False)


def test_a_wide_terminal_shows_everything() -> None:
    assert [line.split() for line in lines(120)] == [
        ["processor", "state", "in/s", "out/s", "queue", "restarts", "cpu", "memory", "waits", "for"],
        [
            "fetch",
            "running",
            "0",
            "123k",
            "-",
            "0",
            "100%",
            "512",
            "MiB",
            *["waiting", "for", "`store`,", "8", "MiB", "in", "flight"],
        ],
        ["enrich", "backoff", "100", "0", "1.2k", "8.0", "MiB", "3", "-", "-"],
    ]


def test_a_usual_terminal_shows_all_but_waits_which_are_below() -> None:
    shown = lines(80)
    assert shown[0].split() == ["processor", "state", "in/s", "out/s", "queue", "restarts", "cpu", "memory"]
    assert shown[-1] == "fetch: waiting for `store`, 8 MiB in flight"


def test_a_narrow_terminal_keeps_what_matters() -> None:
    assert lines(40)[0].split() == ["processor", "state", "in/s", "out/s"]
    assert lines(10)[0].split() == ["processor"]


@pytest.mark.parametrize("width", [1, 2, 9, 10, 25, 40, 60, 79, 80, 100, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 10])
def test_it_never_exceeds_the_terminal(width: int, height: int) -> None:
    shown = lines(width, height)
    assert len(shown) <= max(2, height)
    assert all(cells(line) <= width for line in shown)


def test_on_a_low_terminal_those_in_trouble_stay() -> None:
    rows = tuple(row(f"p{number}", state="failed" if number == 50 else "running") for number in range(100))
    picture = picture_of(rows, {}, {}, width=80, height=6)
    assert [cells_[0].text for cells_ in picture.rows] == ["p0", "p1", "p2", "p50"]
    assert [note.text for note in picture.notes] == ["… and 96 more"]


def test_texts_from_outside_are_harmless_and_no_markup() -> None:
    rows = (row("fetch", waiting="[red]\x1b[2J[/red]"),)
    shown = render(picture_of(rows, {}, {}, width=140, height=5), width=140, colour=True)
    assert "[red]\\x1b[2J[/red]" in shown[1]
    assert "\x1b[2J" not in shown[1]


def test_headline() -> None:
    assert headline(snapshot(elapsed_s=62.7), 80) == "flights: running for 1m2s"
    assert headline(snapshot(elapsed_s=2, stopping=True), 80) == "flights: stopping after 2s"
    assert headline(snapshot(), 8) == "flights…"


@given(st.floats(0, 1e15))
def test_compact_numbers_stay_short(number: float) -> None:
    assert len(compact(number)) <= 5


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.44, "0.4"),
        (9.97, "10"),
        (12.3, "12"),
        (999.6, "1.0k"),
        (1234, "1.2k"),
        (340_000, "340k"),
        (1.2e6, "1.2M"),
    ],
)
def test_compact_numbers(number: float, text: str) -> None:
    assert compact(number) == text
