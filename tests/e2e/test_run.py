"""What `connector run` does on good and bad days: exit codes, report, log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.children.build import misbehave, script, sink, source
from tests.children.messages import frame, message
from tests.e2e.connector import Connector, chain


def sent(count: int, size: int = 100, codec: str = "lines") -> bytes:
    """What a source of `count` messages writes."""
    return b"".join(frame(message(number, size, codec), codec) for number in range(1, count + 1))


def test_a_source_and_a_sink(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=source(1000), sink=sink(tmp_path / "out")))
    report = result.completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)
    assert result.account("c1", "sink") == {"written": 1000, "acknowledged": 1000}
    assert result.channel("c1")["refused"] == 0
    assert report["duration_s"] > 0
    assert report["supervisor"]["peak_rss_bytes"] > 5_000_000
    assert report["supervisor"]["cpu_s"] > 0
    for name, read, written in (("source", 0, 1000), ("sink", 1000, 0)):
        processor = result.processor(name)
        assert (processor["read"], processor["written"]) == (read, written)
        assert (processor["state"], processor["restarts"], processor["stray"]) == ("exited", 0, 0)
        (instance,) = processor["instances"]
        assert instance["exit"] == {"code": 0, "signal": None}
        assert instance["peak_rss_bytes"] > 1_000_000
        assert instance["cpu_s"] >= 0


@pytest.mark.parametrize("contract", ["stream", "one-to-one"])
def test_a_processor_between_them(connector: Connector, tmp_path: Path, contract: str) -> None:
    result = connector.run(
        chain(source=source(5000), middle={"command": ["cat"], "contract": contract}, sink=sink(tmp_path / "out"))
    )
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(5000)
    assert result.account("c1", "middle") == {"written": 5000, "acknowledged": 5000}
    assert result.account("c2", "sink") == {"written": 5000, "acknowledged": 5000}


def test_nothing_at_all(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(source=["true"], middle={"command": ["cat"], "contract": "one-to-one"}, sink=sink(tmp_path / "out"))
    )
    result.completed()
    assert result.account("c2", "sink") == {"written": 0}


def test_empty_messages_count(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(
        chain(
            source=["printf", r"\n\na\n\n"],
            middle={"command": ["cat"], "contract": "one-to-one"},
            sink=sink(tmp_path / "out"),
        )
    )
    result.completed()
    assert (tmp_path / "out").read_bytes() == b"\n\na\n\n"
    assert result.account("c1", "middle") == {"written": 4, "acknowledged": 4}


def test_a_last_line_without_newline_counts_at_exit_0(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=["printf", r"one\ntwo"], sink=sink(tmp_path / "out")))
    result.completed()
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"
    assert result.account("c1", "sink") == {"written": 2, "acknowledged": 2}


def test_bytes_that_are_no_text_pass(connector: Connector, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40 + b"\n"
    (tmp_path / "in").write_bytes(data)
    result = connector.run(
        chain(
            source=["cat", str(tmp_path / "in")],
            middle={"command": ["cat"], "contract": "one-to-one"},
            sink=sink(tmp_path / "out"),
        )
    )
    result.completed()
    assert (tmp_path / "out").read_bytes() == data


def test_a_file_that_is_not_there_is_usage(connector: Connector, tmp_path: Path) -> None:
    result = connector.command("run", str(tmp_path / "nowhere.toml"))
    assert result.code == 2, str(result)
    assert "nowhere.toml" in result.stderr
    result.expect_no_traceback()


def test_a_wrong_file_names_every_error_with_its_place(connector: Connector) -> None:
    text = (
        'name = "x"\n'
        "[processors.a]\n"
        'comand = ["true"]\n'
        'writes = "c"\n'
        "[processors.b]\n"
        'command = ["cat"]\n'
        'reads = "c"\n'
        'in_flight = { bytes = "lots" }\n'
    )
    file = connector.write(text)
    result = connector.command("run", str(file))
    assert result.code == 2, str(result)
    result.expect_no_traceback()
    assert f"{file.name}:3:1" in result.stderr
    assert f"{file.name}:8:" in result.stderr
    assert "command" in result.stderr


def test_an_unknown_option_is_usage(connector: Connector) -> None:
    result = connector.command("run", "--frobnicate")
    assert result.code == 2, str(result)
    result.expect_no_traceback()


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_a_machine_without_descriptors_is_named(connector: Connector, tmp_path: Path) -> None:
    processors = {f"p{number}": sink(tmp_path / str(number)) for number in range(20)}
    pipeline = chain(source=source(10))
    pipeline["processors"]["source"]["writes"] = "c"
    for name, command in processors.items():
        pipeline["processors"][name] = {"command": command, "reads": "c"}
    result = connector.run(pipeline, wrapper=("prlimit", "--nofile=24"))
    assert result.code == 3, str(result)
    result.expect_no_traceback()
    assert "files" in result.stderr or "descriptors" in result.stderr


def test_a_failed_pipeline_says_why_and_reports(connector: Connector, tmp_path: Path) -> None:
    failing = misbehave("says-and-exits", 9, "cannot reach the database")
    result = connector.run(
        chain(
            source=source(100),
            middle={"command": failing, "restart": {"limit": "2 in 60s", "backoff": "0s"}},
            sink=sink(tmp_path / "out"),
        )
    )
    report = result.failed()
    assert report["processors"]["middle"]["state"] == "failed"
    assert report["processors"]["middle"]["restarts"] == 2
    assert [each["exit"]["code"] for each in report["processors"]["middle"]["instances"]] == [9, 9, 9]
    assert "middle" in result.stderr
    assert "9" in report["processors"]["middle"]["cause"]
    assert "cannot reach the database" in result.output
    assert "middle" in report["cause"]


def test_a_program_that_is_not_there(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=["no-such-program-anywhere"], sink=sink(tmp_path / "out")))
    assert result.code in (1, 2), str(result)
    assert "no-such-program-anywhere" in result.stderr
    result.expect_no_traceback()


def test_quiet_is_quiet(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(10), middle=["sh", "-c", "echo hello >&2; cat"], sink=sink(tmp_path / "out"))
    loud = connector.run(pipeline)
    loud.completed()
    assert "hello" in loud.output
    quiet = connector.run(pipeline, "--quiet")
    quiet.completed()
    assert quiet.output == ""


def test_quiet_still_shows_errors(connector: Connector, tmp_path: Path) -> None:
    failing = {"command": misbehave("says-and-exits", 4, "no luck"), "restart": "never"}
    result = connector.run(chain(source=source(10), sink=failing), "--quiet")
    result.failed()
    assert "sink" in result.stderr
    assert "no luck" in result.stderr


def test_json_log(connector: Connector, tmp_path: Path) -> None:
    noisy = ["sh", "-c", 'echo "quote \\" and tab\there" >&2; cat']
    pipeline = chain(source=source(10), middle=noisy, sink=sink(tmp_path / "out"))
    result = connector.run(pipeline, "--log-format", "json")
    result.completed()
    events = [json.loads(line) for line in result.output.splitlines()]
    said = [event for event in events if "quote" in json.dumps(event)]
    assert len(said) == 1, str(result)
    assert said[0]["processor"] == "middle"
    assert any("quote" in str(value) and '"' in str(value) for value in said[0].values())


def test_log_lines_carry_processor_and_escapes_are_harmless(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=source(10), middle=misbehave("escapes"), sink=sink(tmp_path / "out")))
    result.completed()
    (line,) = [line for line in result.output.splitlines() if "cleared" in line]
    assert "middle" in line
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


def test_the_log_of_a_processor_without_writes_is_its_stdout(connector: Connector) -> None:
    result = connector.run(chain(source=source(3), sink=["sh", "-c", "wc -l | sed 's/^/lines counted: /'"]))
    result.completed()
    assert "lines counted: 3" in result.output


def test_a_full_disk_under_the_log_stops_nothing(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(1000), middle=["sh", "-c", "echo hello >&2; cat"], sink=sink(tmp_path / "out"))
    to_full = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
    for options in ((), ("--log-format", "json")):
        (tmp_path / "out").unlink(missing_ok=True)
        connector.run(pipeline, *options, wrapper=to_full).completed()
        assert (tmp_path / "out").read_bytes() == sent(1000)


def test_a_closed_terminal_stops_nothing(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(1000), middle=["sh", "-c", "echo hello >&2; cat"], sink=sink(tmp_path / "out"))
    closed = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    connector.run(pipeline, wrapper=closed).completed()
    assert (tmp_path / "out").read_bytes() == sent(1000)


def test_a_report_that_cannot_be_written_is_said(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(10), sink=sink(tmp_path / "out"))
    result = connector.run(pipeline, "--quiet", report=Path("/dev/full"))
    assert result.code not in (0, 70), str(result)
    result.expect_no_traceback()
    assert "/dev/full" in result.stderr
    assert (tmp_path / "out").read_bytes() == sent(10), "the run itself went on"


def _can(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_full_disk_under_the_report_is_said(connector: Connector, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    own_mounts = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    mount = f'mount -t tmpfs -o size=64k tmpfs "{full}" && cat /dev/zero >"{full}/fill" 2>/dev/null; '
    listing = f'code=$?; ls "{full}" >"{tmp_path}/listing"; exit $code'
    if shutil.which("unshare") is None or not _can(*own_mounts, "mount"):
        pytest.skip("mounts of its own cannot be made here")
    wrapper = (*own_mounts, "sh", "-c", f'{mount} "$@"; {listing}', "sh")
    pipeline = chain(source=source(10), sink=sink(tmp_path / "out"))
    result = connector.run(pipeline, "--quiet", report=full / "report.json", wrapper=wrapper)
    assert result.code not in (0, 70), str(result)
    result.expect_no_traceback()
    assert "report.json" in result.stderr
    assert (tmp_path / "listing").read_text() == "fill\n", "no half report is left"


def test_a_report_is_replaced_as_a_whole(connector: Connector, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("old")
    result = connector.run(chain(source=source(10), sink=["sh", "-c", "cat >/dev/null"]))
    result.completed()
    assert json.loads(report.read_text())["status"] == "completed"


def test_a_report_that_cannot_be_written_anywhere_is_said_at_once(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(10), sink=sink(tmp_path / "out"))
    result = connector.run(pipeline, report=tmp_path / "no" / "folder" / "report.json")
    assert result.code not in (0, 70), str(result)
    result.expect_no_traceback()
    assert "report" in result.stderr


def test_standard_input_of_a_source_is_empty(connector: Connector, tmp_path: Path) -> None:
    result = connector.run(chain(source=["sh", "-c", "cat; echo done"], sink=sink(tmp_path / "out")))
    result.completed()
    assert (tmp_path / "out").read_bytes() == b"done\n"


def test_programs_start_clean(connector: Connector, tmp_path: Path) -> None:
    middle = misbehave("descriptors", tmp_path / "found")
    connector.run(chain(source=source(10), middle=middle, sink=sink(tmp_path / "out"))).completed()
    opened, blocked, ignored, session = (tmp_path / "found").read_text().splitlines()
    assert opened == "0 1 2"
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & ~0x1001000 == 0, "Python itself ignores PIPE and XFSZ, nothing else may be"
    assert session == "session True"


def test_what_a_program_finds_in_its_environment(connector: Connector, tmp_path: Path) -> None:
    found = {}
    for name in ("source", "middle"):
        found[name] = tmp_path / name
    pipeline = chain(
        source={"command": ["sh", "-c", f'env > "{found["source"]}"; echo 1'], "env": {"ADDED": "yes"}},
        middle={"command": script("misbehave", "environment", found["middle"], "ADDED", "INHERITED")},
        sink=sink(tmp_path / "out"),
    )
    result = connector.run(pipeline, environment={"INHERITED": "from outside"})
    report = result.completed()
    source_environment = dict(line.split("=", 1) for line in found["source"].read_text().splitlines() if "=" in line)
    middle_environment = dict(line.split("=", 1) for line in found["middle"].read_text().splitlines())
    assert source_environment["ADDED"] == "yes"
    assert source_environment["CONNECTOR_WRITTEN"] == "0"
    assert middle_environment["INHERITED"] == "from outside"
    assert middle_environment["CONNECTOR_PIPELINE"] == "test"
    assert middle_environment["CONNECTOR_PROCESSOR"] == "middle"
    assert middle_environment["CONNECTOR_INSTANCE"] in ("0", "1")
    assert middle_environment["CONNECTOR_ATTEMPT"] == "1"
    assert middle_environment["CONNECTOR_RUN"] == report["run"]
    assert middle_environment["ADDED"] == ""


def test_params_of_a_used_folder(connector: Connector, tmp_path: Path) -> None:
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "processor.toml").write_text(
        'name = "greeter"\n'
        'command = ["sh", "-c", "echo {word} $CONNECTOR_PARAM_TIMES ${HOME:-none} $CONNECTOR_PARAMS"]\n'
        "[params.word]\n"
        'type = "string"\n'
        "required = true\n"
        "[params.times]\n"
        'type = "integer"\n'
        "default = 3\n"
        "[writes.stdout]\n"
        'codec = "lines"\n'
    )
    text = (
        'name = "params"\n[processors.greeter]\nuse = "greeter"\nparams = { word = "hello" }\nwrites = "c"\n'
        f'[processors.sink]\ncommand = {json.dumps(sink(tmp_path / "out"))}\nreads = "c"\n'
    )
    connector.run(text, environment={"HOME": "/somewhere"}).completed()
    line = (tmp_path / "out").read_text()
    assert line.startswith("hello 3 /somewhere {"), line
    assert '"word"' in line or "word" in line


def test_a_secret_is_never_shown(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2-from-a-file\n")
    pipeline = chain(
        source=source(10),
        middle={
            "command": ["sh", "-c", 'printf "%s %s" "$ONE" "$TWO" > seen; cat'],
            "secrets": {"ONE": "file:key", "TWO": "env:OUTER"},
        },
        sink={"command": ["sh", "-c", "exit 3"], "restart": "never"},
    )
    for options in ((), ("--log-format", "json")):
        result = connector.run(pipeline, *options, environment={"OUTER": "hunter3-from-outside"})
        result.failed()
        assert (tmp_path / "seen").read_text() == "hunter2-from-a-file hunter3-from-outside"
        assert "hunter" not in result.output
        assert "hunter" not in json.dumps(result.report)


def test_a_secret_that_its_program_logs_is_masked(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2-from-a-file\n")
    failing = {"command": misbehave("shows-secret", "KEY"), "secrets": {"KEY": "file:key"}, "restart": "never"}
    result = connector.run(chain(source=source(10), sink=failing))
    result.failed()
    assert "the key is" in result.output
    assert "hunter" not in result.output
    assert "hunter" not in json.dumps(result.report)


def test_check_is_silent_about_a_good_file_and_names_a_warning(connector: Connector, tmp_path: Path) -> None:
    file = connector.write(chain(source=source(1), sink=sink(tmp_path / "out")))
    assert connector.command("check", str(file)).code == 0
    file = connector.write(chain(source={"command": source(1), "network": "outbound"}, sink=sink(tmp_path / "o")))
    result = connector.command("check", str(file))
    assert result.code == 0, str(result)
    assert "network: a bare process is not held to it" in result.output


def test_what_is_not_there_yet_is_refused_by_name(connector: Connector, tmp_path: Path) -> None:
    pipeline = chain(source=source(1), middle={"command": ["cat"], "runner": "edge"}, sink=sink(tmp_path / "out"))
    result = connector.run(pipeline)
    assert result.code == 2, str(result)
    assert "runner" in result.stderr
    result.expect_no_traceback()


def test_a_warning_of_the_file_is_one_line_that_says_so_once(connector: Connector) -> None:
    result = connector.run({"processors": {"alone": {"command": ["true"]}}})
    (line,) = (each for each in result.stderr.splitlines() if "neither reads nor writes" in each)
    assert line.count("warning: ") == 1
    assert line.endswith("processors.alone: neither reads nor writes a channel (its stdout is its log)")
