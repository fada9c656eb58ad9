import pytest

from runner.events import RunStatus
from runner.observe.sanitize import cells
from runner.observe.summary import reader_balanced, summary_lines, verdict
from runner.supervise.snapshot import RunReport
from tests.observe.samples import channel, processor, reader, report


def test_the_whole_of_it() -> None:
    assert summary_lines(report()) == [
        "",
        "flights: completed in 12.5s",
        "",
        "processor  state   restarts     read  written  cause",
        "fetch      exited         0        0  336,776  the end of its input",
        "enrich     exited         1  336,776  336,776  the end of its input",
        "",
        "channel  written  reader  acknowledged  dead  dropped  indeterminate  unread  balanced",
        "raw      336,776  enrich       336,776     0        0              0       0       yes",
        "",
        "ledger balanced: every message acknowledged by every reader, nothing lost or doubled",
    ]


def with_reader(
    written: int | None = 10, *, balanced: bool = True, refused: int = 0, **counts: int | None
) -> RunReport:
    return report(channels={"raw": channel(written, {"store": reader(**counts)}, refused=refused)}, balanced=balanced)


@pytest.mark.parametrize("term", ["indeterminate", "dead", "dropped", "unread"])
def test_nothing_lost_is_not_said_when_something_is_open(term: str) -> None:
    sentence = verdict(report(channels={"raw": channel(10, {"store": reader(acknowledged=8, **{term: 2})})}))
    assert "nothing lost" not in sentence
    assert sentence.startswith("ledger balanced, every message is accounted for: 2 ")
    assert sentence.endswith(" at raw → store")


def test_refused_messages_are_said() -> None:
    assert verdict(with_reader(10, acknowledged=10, refused=3)).endswith("accounted for: 3 refused at raw")


@pytest.mark.parametrize(
    "wrong", [with_reader(10, acknowledged=11), with_reader(10, acknowledged=9), with_reader(10, balanced=False)]
)
def test_an_imbalance_is_called_a_bug(wrong: RunReport) -> None:
    assert verdict(wrong).startswith("ledger NOT balanced")
    assert "nothing lost" not in "\n".join(summary_lines(wrong))


def test_an_imbalance_names_its_place() -> None:
    wrong = with_reader(10, acknowledged=11)
    assert "at raw → store" in verdict(wrong)
    assert summary_lines(wrong)[-3].endswith("NO")


def test_the_equation() -> None:
    side = reader(carried=1, replayed=2, acknowledged=9, dead=1, dropped=1, indeterminate=1, unread=1)
    assert reader_balanced(channel(10, {}), side) is True
    assert reader_balanced(channel(11, {}), side) is False
    assert reader_balanced(channel(None, {}), side) is None


def test_uncounted_channels_are_named_and_not_vouched_for() -> None:
    uncounted = channel(None, {"store": reader(**dict.fromkeys(("carried", "acknowledged", "unread")))}, kind="pipe")
    both = report(channels={"fast": uncounted, "raw": channel(1, {"store": reader(acknowledged=1)})})
    assert verdict(both).endswith("; not counted: fast")
    assert "-" in summary_lines(both)[-4]
    assert verdict(report(channels={"fast": uncounted})) == "ledger: no channel whose messages are counted"
    assert verdict(report(channels={})) == "ledger: no channel whose messages are counted"


def test_columns_that_only_sometimes_matter() -> None:
    lines = summary_lines(
        report(
            processors={"fetch": processor(stray=3, log_lines_left_out=1200)},
            channels={"raw": channel(1, {"store": reader(carried=1, acknowledged=2)}, refused=5)},
        )
    )
    assert lines[3] == "processor  state   restarts  read  written  stray  log left out  cause"
    assert lines[6].startswith("channel  written  refused  reader  carried  acknowledged")


def test_causes_are_harmless() -> None:
    failed = report(
        status=RunStatus.FAILED, cause="said \x1b[2J", processors={"fetch": processor("failed", cause="\x1b]0;x\x07")}
    )
    assert all("\x1b" not in line and "\x07" not in line for line in summary_lines(failed))
    assert "flights: failed in 12.5s: said \\x1b[2J" in summary_lines(failed)


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 120])
def test_tables_keep_the_width(width: int) -> None:
    many = report(processors={"fetch": processor("failed", cause="it died because of 東京 " * 10)})
    tables = summary_lines(many, width)[2:-2]
    assert all(cells(line) <= width for line in tables)


def test_a_narrow_terminal_gets_entries() -> None:
    lines = summary_lines(report(), 40)
    assert "enrich: exited, 1 restart" in lines
    assert "  read 336,776, written 336,776" in lines
    at = lines.index("raw → enrich")
    assert lines[at + 1 : at + 4] == ["  written 336,776", "  acknowledged 336,776", "  balanced yes"]
