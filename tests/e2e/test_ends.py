"""Shapes of pipelines, and how each comes to its end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.children.build import misbehave, script, sink, source
from tests.children.messages import CODECS, frame, message, number_of, unframe
from tests.e2e.connector import Connector, chain, until


def numbers(file: Path, codec: str = "lines") -> list[int]:
    """The numbers of the messages in a sink's file; nothing may be left over."""
    whole, rest = unframe(file.read_bytes(), codec)
    assert rest == b""
    return [number_of(each) for each in whole]


def test_a_reader_that_leaves_early_ends_its_writers(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=source(None), head=["head", "-n", "10"], sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 11))
    assert "readers left" in result.processor("source")["cause"]
    assert result.processor("source")["restarts"] == 0
    assert result.account("c2", "sink") == {"written": 10, "acknowledged": 10}


def test_leaving_goes_up_the_whole_chain(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=source(None), one=["cat"], two=["cat"], head=["head", "-n", "1"]))
    result.completed()
    for name in ("source", "one", "two"):
        assert "readers left" in result.processor(name)["cause"], name


def test_one_reader_leaves_the_other_goes_on(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(200_000), sink=sink(tmp_path / "out"))
    pipeline["processors"]["head"] = {"command": ["head", "-n", "1"], "reads": "c1"}
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 200_001))
    assert result.account("c1", "sink") == {"written": 200_000, "acknowledged": 200_000}
    head = result.account("c1", "head")
    assert head["acknowledged"] + head["unread"] == 200_000


def test_fan_out_gives_every_reader_everything(connector: Connector, tmp_path: Path) -> None:
    pipeline: dict[str, Any] = {"processors": {"source": {"command": source(50_000), "writes": "raw"}}}
    for number in range(4):
        pipeline["processors"][f"sink{number}"] = {"command": sink(tmp_path / str(number)), "reads": "raw"}
    result = connector.run(pipeline)
    result.completed()
    for number in range(4):
        assert numbers(tmp_path / str(number)) == list(range(1, 50_001))
        assert result.account("raw", f"sink{number}") == {"written": 50_000, "acknowledged": 50_000}


def test_a_writer_of_several_channels(connector: Connector, tmp_path: Path) -> None:
    pipeline: dict[str, Any] = {"processors": {"source": {"command": source(5000), "writes": ["a", "b"]}}}
    for name in ("a", "b"):
        pipeline["processors"][f"sink-{name}"] = {"command": sink(tmp_path / name), "reads": name}
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b") == list(range(1, 5001))


def test_a_reader_of_several_channels(connector: Connector, tmp_path: Path) -> None:
    pipeline = {
        "processors": {
            "low": {"command": source(3000), "writes": "a"},
            "high": {"command": source(7000, "--start", 5001), "writes": "b"},
            "middle": {"command": ["cat"], "reads": ["a", "b"], "writes": "c", "contract": "one-to-one"},
            "sink": {"command": sink(tmp_path / "out"), "reads": "c"},
        }
    }
    result = connector.run(pipeline)
    result.completed()
    got = numbers(tmp_path / "out")
    assert sorted(got) == [*range(1, 3001), *range(5001, 7001)]
    assert result.account("a", "middle") == {"written": 3000, "acknowledged": 3000}
    assert result.account("b", "middle") == {"written": 2000, "acknowledged": 2000}


@pytest.mark.parametrize("codec", CODECS)
def test_merge_keeps_messages_whole_and_each_writer_in_order(connector: Connector, tmp_path: Path, codec: str) -> None:
    pipeline: dict[str, Any] = {
        "processors": {"sink": {"command": sink(tmp_path / "out"), "reads": "c", "codec": codec}}
    }
    for index, size in enumerate((20, 300, 70_000)):
        first = index * 100_000 + 1
        count = 200 if size > 1000 else 5000
        command = source(first + count - 1, "--start", first, "--codec", codec, size=size)
        pipeline["processors"][f"writer{index}"] = {"command": command, "writes": "c", "codec": codec}
    result = connector.run(pipeline)
    result.completed()
    got, rest = unframe((tmp_path / "out").read_bytes(), codec)
    assert rest == b""
    for index, size in enumerate((20, 300, 70_000)):
        first = index * 100_000 + 1
        count = 200 if size > 1000 else 5000
        mine = [each for each in got if first <= number_of(each) < first + 100_000]
        assert mine == [message(number, size, codec) for number in range(first, first + count)]
    assert result.account("c", "sink") == {"written": 10_200, "acknowledged": 10_200}


def test_replicas_compete(connector: Connector, tmp_path: Path) -> None:
    command = ["sh", "-c", f'cat > "{tmp_path}/out.$CONNECTOR_INSTANCE"']
    pipeline = chain(source=source(100_000), sink={"command": command, "replicas": 3})
    result = connector.run(pipeline)
    result.completed()
    parts = [numbers(file) for file in tmp_path.glob("out.*")]
    assert len(parts) == 3
    assert sorted(number for part in parts for number in part) == list(range(1, 100_001))
    assert all(part == sorted(part) for part in parts)
    assert result.account("c1", "sink") == {"written": 100_000, "acknowledged": 100_000}
    assert len(result.processor("sink")["instances"]) == 3


@pytest.mark.parametrize("replicas", [2, 5])
def test_order_is_kept_over_replicas_of_different_speed(connector: Connector, tmp_path: Path, replicas: int) -> None:
    slow_ones = ["sh", "-c", 'exec "$0" "$@" "$CONNECTOR_INSTANCE"', *misbehave("uneven")]
    pipeline = chain(
        source=source(3000),
        middle={"command": slow_ones, "contract": "one-to-one", "replicas": replicas, "in_flight": {"messages": 20}},
        sink=sink(tmp_path / "out"),
    )
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 3001))
    assert result.account("c1", "middle") == {"written": 3000, "acknowledged": 3000}


def test_order_any_loses_nothing(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        source=source(3000),
        middle={"command": misbehave("uneven", 1), "contract": "one-to-one", "replicas": 3, "order": "any"},
        sink=sink(tmp_path / "out"),
    )
    result = connector.run(pipeline)
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == list(range(1, 3001))


def test_conversion_from_codec_to_codec(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(
            source=source(5000),
            prefixed={"command": script("echo", "length-prefixed"), "codec": "length-prefixed"},
            null={"command": script("echo", "null"), "codec": "null", "contract": "one-to-one"},
            sink=sink(tmp_path / "out"),
        )
    )
    result.completed()
    assert (tmp_path / "out").read_bytes() == b"".join(frame(message(each, 100), "lines") for each in range(1, 5001))
    for channel, reader in (("c1", "prefixed"), ("c2", "null"), ("c3", "sink")):
        assert result.account(channel, reader) == {"written": 5000, "acknowledged": 5000}


def test_a_codec_by_port(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": ["tr", r"\n", r"\000"], "codec": {"stdin": "lines", "stdout": "null"}}
    connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out"))).completed()
    assert numbers(tmp_path / "out") == list(range(1, 101))


def test_what_a_codec_cannot_carry_is_named(connector: Connector, tmp_path: Path) -> None:
    writes_newlines = {"command": ["printf", r"good\0two\nlines\0"], "codec": "null"}
    result = connector.run(chain(source=writes_newlines, sink=sink(tmp_path / "out")))
    result.failed()
    assert "message 2" in result.stderr
    result.expect_no_traceback()


@pytest.mark.parametrize("kind", ["source", "processor"])
def test_a_message_over_the_limit_is_named(connector: Connector, tmp_path: Path, kind: str) -> None:
    long = {"command": misbehave("long-line", 300_000), "max_message": "100KiB"}
    if kind == "source":
        result = connector.run(chain(source=long, sink=sink(tmp_path / "out")))
    else:
        result = connector.run(chain(first=source(1), source=long, sink=sink(tmp_path / "out")))
    report = result.failed()
    assert report["processors"]["source"]["state"] == "failed"
    assert "message 2" in result.stderr
    assert "max_message" in result.stderr
    assert (tmp_path / "out").read_bytes() == b"good\n"


def test_a_message_at_the_limit_passes(connector: Connector, tmp_path: Path) -> None:
    big = {"command": source(3, size=100 * 1024), "max_message": "100KiB"}
    connector.run(chain(source=big, sink=sink(tmp_path / "out"))).completed()
    assert numbers(tmp_path / "out") == [1, 2, 3]


def test_messages_larger_than_pipes_windows_and_channels(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": {"capacity": "64KiB"}, "c2": {"capacity": "64KiB"}},
        source=source(10, size=5_000_000),
        middle={"command": ["cat"], "contract": "one-to-one", "in_flight": {"bytes": "64KiB"}},
        sink=sink(tmp_path / "out"),
    )
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 11))
    assert result.account("c1", "middle") == {"written": 10, "acknowledged": 10}


def test_raw_chunks_pass_untouched(connector: Connector, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "in").write_bytes(data)
    pipeline = chain(
        source={"command": ["cat", str(tmp_path / "in")], "codec": "raw"},
        middle={"command": ["cat"], "codec": "raw"},
        sink={"command": sink(tmp_path / "out"), "codec": "raw"},
    )
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("contract", ["stream", "one-to-one"])
def test_a_processor_that_closes_its_stdout_and_reads_on(connector: Connector, tmp_path: Path, contract: str) -> None:
    middle = {"command": misbehave("closes-stdout"), "contract": contract, "stop": {"grace": "300ms"}}
    result = connector.run(chain(source=source(100), middle=middle, sink=sink(tmp_path / "out")))
    if contract == "stream":
        result.completed()
        assert result.account("c2", "sink") == {"written": 1, "acknowledged": 1}
        assert result.account("c1", "middle") == {"written": 100, "acknowledged": 100}
    else:
        result.failed()
        assert "message" in result.processor("middle")["cause"]
    assert numbers(tmp_path / "out") == [1]


def test_a_source_that_closes_its_stdout_and_lives_on(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=misbehave("closes-stdout-and-stays"), sink=sink(tmp_path / "out"))
    with connector.start(pipeline) as running:
        until(lambda: "closed its `stdout` and runs on" in running.output(), "it to be told why nothing goes on")
        assert running.process.poll() is None
        running.signal(signal.SIGTERM)
        result = running.finish(15)
    result.expect(143, "stopped")
    assert (tmp_path / "out").read_bytes() == b"only\n"
    assert result.account("c1", "sink") == {"written": 1, "acknowledged": 1}


def test_a_grandchild_that_keeps_stdout_open(connector: Connector, tmp_path: Path) -> None:
    holding = {"command": misbehave("holds-stdout", tmp_path / "pid"), "stop": {"grace": "500ms"}}
    result = connector.run(chain(source=source(1000), middle=holding, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))
    assert result.took_s < 10


def diamond(tmp_path: Path, lines: int, count: int) -> dict[str, Any]:
    """A source read by two processors that meet again in one, which wants so many lines of each in turn."""
    return {
        "processors": {
            "source": {"command": source(count), "writes": "raw"},
            "left": {"command": ["cat"], "reads": "raw", "writes": "l"},
            "right": {"command": ["cat"], "reads": "raw", "writes": "r"},
            "join": {
                "command": script("join", "l", "r", lines),
                "reads": {"l": "l", "r": "r"},
                "writes": "joined",
            },
            "sink": {"command": sink(tmp_path / "out"), "reads": "joined"},
        },
        "channels": {name: {"capacity": "64KiB"} for name in ("raw", "l", "r")},
    }


def test_a_diamond_works_and_is_warned_of(connector: Connector, tmp_path: Path) -> None:
    pipeline = diamond(tmp_path, 1, 20_000)
    warned = connector.command("check", str(connector.write(pipeline)))
    assert warned.code == 0, str(warned)
    assert "join" in warned.output
    result = connector.run(pipeline)
    result.completed()
    assert sorted(numbers(tmp_path / "out")) == sorted([*range(1, 20_001)] * 2)


def test_a_ring_of_waits_fails_by_itself_and_is_named(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(diamond(tmp_path, 1_000_000, 200_000), limit_s=60)
    result.failed()
    for name in ("join", "right", "source"):
        assert name in result.stderr, str(result)


def test_a_cycle_is_refused(connector: Connector) -> None:
    pipeline = {
        "processors": {
            "a": {"command": ["cat"], "reads": "two", "writes": "one"},
            "b": {"command": ["cat"], "reads": "one", "writes": "two"},
        }
    }
    result = connector.run(pipeline)
    assert result.code == 2, str(result)
    assert "one" in result.stderr
    assert "two" in result.stderr


def test_a_pipe_channel_hands_the_pipe_over(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": {"kind": "pipe"}},
        source={"command": source(100_000), "restart": "never"},
        sink={"command": sink(tmp_path / "out"), "restart": "never"},
    )
    result = connector.run(pipeline)
    report = result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 100_001))
    assert report["channels"]["c1"]["written"] is None


def test_a_pipe_channel_is_refused_where_messages_must_be_seen(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": {"kind": "pipe"}},
        source={"command": source(10), "restart": "never"},
        sink={"command": ["cat"], "restart": "never", "contract": "one-to-one"},
    )
    assert connector.run(pipeline).code == 2


def test_early_leaving_over_a_pipe_channel(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(
        {"c1": {"kind": "pipe"}},
        source={"command": ["yes"], "restart": "never"},
        head={"command": ["head", "-n", "5"], "restart": "never"},
        sink=sink(tmp_path / "out"),
    )
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_text() == "y\n" * 5


def test_named_ports_and_stderr_as_a_port(connector: Connector, tmp_path: Path) -> None:
    pipeline = {
        "processors": {
            "source": {"command": source(1000), "writes": "raw"},
            "table": {"command": source(300), "writes": "table"},
            "middle": {
                "command": ["sh", "-c", 'echo problem >&2; exec "$@"', "sh", *script("lookup", tmp_path / "seen")],
                "reads": {"stdin": "raw", "lookup": "table"},
                "writes": {"stdout": "clean", "errors": "bad", "stderr": "noise"},
            },
            "sink": {"command": sink(tmp_path / "clean"), "reads": "clean"},
            "bad": {"command": sink(tmp_path / "bad"), "reads": "bad"},
            "noise": {"command": sink(tmp_path / "noise"), "reads": "noise"},
        }
    }
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "clean") == list(range(1, 1001))
    assert numbers(tmp_path / "seen") == list(range(1, 301))
    assert numbers(tmp_path / "bad") == list(range(2, 1001, 2))
    assert (tmp_path / "noise").read_text() == "problem\n"
    assert result.account("table", "middle") == {"written": 300, "acknowledged": 300}
    assert result.account("bad", "bad") == {"written": 500, "acknowledged": 500}
    assert result.account("noise", "noise") == {"written": 1, "acknowledged": 1}
    assert result.processor("middle")["read"] == 1300
    assert "problem" not in result.output


def test_sources_and_sinks_by_named_ports_only(connector: Connector, tmp_path: Path) -> None:
    pipeline = {
        "processors": {
            "source": {"command": source(1000, "--port", "data"), "writes": {"data": "raw"}},
            "sink": {"command": sink(tmp_path / "out", "--port", "table"), "reads": {"table": "raw"}},
        }
    }
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 1001))


def test_guard_json_keeps_noise_out(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": misbehave("noise"), "contract": "one-to-one", "guard": "json"}
    result = connector.run(chain(source=source(200, "--form", "json"), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 201))
    assert result.processor("middle")["stray"] == 200
    assert "loading model" in result.output


def test_guard_match_keeps_noise_out(connector: Connector, tmp_path: Path) -> None:
    middle = {"command": misbehave("noise"), "guard": {"match": r"^\d{10} "}}
    result = connector.run(chain(source=source(200), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 201))
    assert result.processor("middle")["stray"] == 200
    assert result.account("c2", "sink") == {"written": 200, "acknowledged": 200}
