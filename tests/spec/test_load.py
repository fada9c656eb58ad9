"""Good pipelines: what becomes of each key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner.errors import SpecError
from runner.spec.load import load_document, load_file, load_text
from runner.spec.model import Check, Contract, Guard, InFlight, OnFull, Port, Processor, Resources, Resume
from runner.units import Rate
from tests.spec.marked import ENV, load_case, middle, writer

ISSUE = """
name = "flights"

[processors.fetch]
command = ["cat", "fetch.mjs", "http://127.0.0.1:8080/flights"]
writes  = "raw"

[processors.delay]
command  = ["cat", "delay.py"]
reads    = "raw"
writes   = "clean"
contract = "one-to-one"
replicas = 2

[processors.store]
command = "cat 'a b' c"
reads = "clean"

[channels.clean]
capacity = "256MiB"
on_full = "drop-oldest"
"""


def only(text: str, folder: Path, name: str = "m") -> Processor:
    return load_case(text, folder).pipeline.processors[name]


def test_a_whole_pipeline(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(ISSUE)
    loaded = load_file(tmp_path / "pipeline.toml", env=ENV)
    assert loaded.warnings == ()
    pipeline = loaded.pipeline
    assert (pipeline.name, pipeline.drain_s) == ("flights", 30.0)
    assert (pipeline.folder, pipeline.file) == (tmp_path, tmp_path / "pipeline.toml")
    assert list(pipeline.processors) == ["fetch", "delay", "store"]
    fetch, delay, store = pipeline.processors.values()
    assert fetch.command == ("cat", "fetch.mjs", "http://127.0.0.1:8080/flights")
    assert fetch.is_source
    assert fetch.directory == tmp_path
    assert fetch.restart.when == "never"
    assert delay.reads == (Port("stdin", ("raw",), "lines"),)
    assert delay.writes == (Port("stdout", ("clean",), "lines"),)
    assert (delay.contract, delay.replicas, delay.order) == (Contract.ONE_TO_ONE, 2, "keep")
    assert delay.restart.when == "on-failure"
    assert store.command == ("cat", "a b", "c")
    assert store.log_stdout
    assert store.order == "any"
    clean, raw = pipeline.channels["clean"], pipeline.channels["raw"]
    assert (clean.capacity_bytes, clean.on_full) == (256 << 20, OnFull.DROP_OLDEST)
    assert (raw.kind, raw.capacity_bytes, raw.writers, raw.readers) == ("memory", 8 << 20, ("fetch",), ("delay",))


def test_a_relative_file_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.toml").write_text(ISSUE)
    monkeypatch.chdir(tmp_path)
    pipeline = load_file("pipeline.toml").pipeline
    assert pipeline.folder == tmp_path
    assert pipeline.processors["fetch"].directory == tmp_path


def test_ports_in_every_form(tmp_path: Path) -> None:
    text = """
name = "p"
[processors.a]
command = ["cat"]
writes = ["x", "y"]
[processors.b]
command = ["cat"]
reads = ["x", "y"]
writes = { stdout = "z", errors = ["e", "f"], stderr = "noise" }
codec = { stdout = "null", errors = "length-prefixed" }
[processors.c]
command = ["cat"]
reads = { stdin = ["e", "f"], lookup = "z", more = "noise" }
codec = "lines"
"""
    b, c = only(text, tmp_path, "b"), only(text, tmp_path, "c")
    assert b.reads == (Port("stdin", ("x", "y"), "lines"),)
    assert b.writes == (
        Port("stdout", ("z",), "null"),
        Port("errors", ("e", "f"), "length-prefixed"),
        Port("stderr", ("noise",), "lines"),
    )
    assert c.reads == (
        Port("stdin", ("e", "f"), "lines"),
        Port("lookup", ("z",), "lines"),
        Port("more", ("noise",), "lines"),
    )


def test_one_to_one_without_writes_has_a_codec_for_its_answers(tmp_path: Path) -> None:
    text = ISSUE.replace('reads = "clean"', 'reads = "clean"\ncontract = "one-to-one"\ncodec = { stdout = "null" }')
    store = only(text, tmp_path, "store")
    assert (store.stdout_codec, store.log_stdout, store.writes) == ("null", False, ())


def test_settings(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "key").write_text("from a file\n")
    keys = """
contract = "one-to-one"
in_flight = { bytes = "64KiB", messages = 5 }
max_message = 1000
guard = { match = '^\\{' }
restart = { when = "always", backoff = "0s", limit = "3 in 1m", reset_after = "2s" }
stop = { grace = "0s", signal = "INT" }
ready = { file = "up", timeout = "5s", failures = 7 }
live = { command = "cat x", every = "1m" }
stall = "1.5s"
continue_on_error = true
resources = { memory = "1GiB", cpus = 0.5, pids = 3, files = 99 }
env = { A = "${SET}", B = "$${SET}", C = "${EMPTY:-d}${EMPTY:-}", D = "$SET" }
secrets = { E = "env:SET", F = "file:key" }
directory = "sub"
trust = "trusted"
network = "host"
bridge = "stdio"
"""
    loaded = load_case(middle(keys), tmp_path)
    processor = loaded.pipeline.processors["m"]
    assert loaded.warnings == ()
    assert processor.in_flight == InFlight(64 << 10, 5)
    assert processor.max_message_bytes == 1000
    assert processor.guard.kind == "match"
    assert processor.guard.pattern is not None
    assert processor.guard.pattern.pattern == rb"^\{"
    assert (processor.restart.when, processor.restart.backoff.first_s, processor.restart.backoff.most_s) == (
        "always",
        0,
        0,
    )
    assert (processor.restart.limit, processor.restart.reset_after_s) == (Rate(3, 60.0), 2.0)
    assert (processor.stop.grace_s, processor.stop.signal_number) == (0.0, 2)
    assert processor.ready == Check("file", str(tmp_path / "up"), 0.2, 5.0, 7)
    assert processor.live == Check("command", ("cat", "x"), 60.0, 2.0, 3)
    assert processor.stall_s == 1.5
    assert processor.continue_on_error
    assert processor.resources == Resources(1 << 30, 0.5, 3, 99)
    assert processor.env == {"A": "value", "B": "${SET}", "C": "d", "D": "$SET"}
    assert processor.secrets == {"E": "value", "F": "from a file"}
    assert "from a file" not in repr(processor)
    assert processor.directory == tmp_path / "sub"


@pytest.mark.parametrize(
    ("keys", "check"),
    [
        ("ready = { line = 'up$' }", Check("line", "up$", 0.2, 60.0, None)),
        ("ready = { tcp = '127.0.0.1:80', every = '1s' }", Check("tcp", "127.0.0.1:80", 1.0, 60.0, None)),
        ("ready = { tcp = '[::1]:80' }", Check("tcp", "[::1]:80", 0.2, 60.0, None)),
        ("live = { http = 'http://localhost:1/x' }", Check("http", "http://localhost:1/x", 10.0, 2.0, 3)),
    ],
)
def test_checks(tmp_path: Path, keys: str, check: Check) -> None:
    processor = only(middle(keys), tmp_path)
    assert check in (processor.ready, processor.live)


def test_guard_and_backoff(tmp_path: Path) -> None:
    processor = only(middle('guard = "json"\nrestart = { backoff = "50ms" }'), tmp_path)
    assert processor.guard == Guard("json")
    assert (processor.restart.backoff.first_s, processor.restart.backoff.most_s) == (0.05, 0.05)


@pytest.mark.parametrize("resume", ["skip", "self", "live"])
def test_a_source_that_may_be_restarted(tmp_path: Path, resume: str) -> None:
    processor = only(writer(f'resume = "{resume}"'), tmp_path, "a")
    assert processor.resume is Resume(resume)
    assert processor.restart.when == "on-failure"
    assert only(writer(f'resume = "{resume}"\nrestart = "always"'), tmp_path, "a").restart.when == "always"


def test_a_source_that_is_never_restarted_may_say_so(tmp_path: Path) -> None:
    assert only(writer('restart = "never"'), tmp_path, "a").restart.when == "never"


def test_values_from_the_environment_may_be_numbers(tmp_path: Path) -> None:
    assert only(middle('replicas = "${COUNT}"\ncontinue_on_error = "${FLAG:-true}"'), tmp_path).replicas == 3


def test_programs_are_looked_for_where_they_will_be(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "tool"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert only(writer("").replace('["cat"]', '["./bin/tool"]', 1), tmp_path, "a").command == (str(program),)
    assert only(writer("directory = 'bin'").replace('["cat"]', '["./tool"]', 1), tmp_path, "a").command == (
        str(program),
    )
    found = writer(f"env = {{ PATH = '{program.parent}' }}").replace('["cat"]', '["tool"]', 1)
    assert only(found, tmp_path, "a").command == ("tool",)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xef\xbb\xbf" + ISSUE.replace("\n", "\r\n").encode())
    assert load_file(tmp_path / "p.toml").pipeline.name == "flights"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "p"\n# \xe9\n')
    for file, line, what in (
        (tmp_path / "gone.toml", None, "no such file"),
        (tmp_path, None, "is a directory"),
        (tmp_path / "latin.toml", 2, "is not UTF-8"),
    ):
        with pytest.raises(SpecError) as caught:
            load_file(file)
        (problem,) = caught.value.problems
        assert what in problem.message
        assert (problem.file, problem.line) == (str(file), line)


def test_a_deep_document_is_an_error() -> None:
    with pytest.raises(SpecError, match="nested too deeply"):
        load_text("a = " + "[" * 100_000)


def test_a_huge_number_is_an_error() -> None:
    with pytest.raises(SpecError):
        load_text(f"a = {'9' * 5000}")


def test_built_in_python(tmp_path: Path) -> None:
    pipeline = runner.Pipeline(
        name="p",
        processors={
            "a": {"command": ("cat", "x"), "writes": "x", "directory": tmp_path},
            "b": {"command": ["cat"], "reads": "x"},
        },
        channels={"x": {"capacity": 5}},
        drain="5s",
        folder=tmp_path,
    )
    assert pipeline.spec.processors["a"].command == ("cat", "x")
    assert (pipeline.spec.drain_s, pipeline.spec.channels["x"].capacity_bytes, pipeline.spec.file) == (5.0, 5, None)
    assert pipeline.warnings == ()


def test_errors_of_what_is_built_in_python_have_keys_and_no_lines() -> None:
    with pytest.raises(SpecError) as caught:
        load_document({"name": "p", "processors": {"a": {"command": ["cat"], "write": "x"}}})
    (problem,) = caught.value.problems
    assert str(problem) == 'error: processors.a.write: unknown key "write"\n    write "writes"'


def test_from_file(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(ISSUE)
    assert runner.Pipeline.from_file(tmp_path / "pipeline.toml").spec.name == "flights"


def test_importing_the_package_stays_light() -> None:
    code = "import sys, runner; assert not {'msgspec', 'asyncio', 'click'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_many_loads_leave_the_interpreter_whole(tmp_path: Path) -> None:
    """msgspec 0.22 crashes at the end of the interpreter over patterns in some unions; see `runner.spec.values`."""
    code = "import gc, runner.spec.schema as s; s.pipeline_schema(); s.processor_schema(); gc.collect()"
    for _ in range(10):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("secret", ['"hunter2"', "12345", '"hunter2\\u0000"', '"env:hunter2\\u0000"', "['hunter2']"])
def test_a_secret_that_is_written_down_is_not_repeated(tmp_path: Path, secret: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_case(middle(f"secrets = {{ KEY = {secret} }}"), tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "12345" not in str(caught.value)


def test_one_mistake_does_not_hide_the_others(tmp_path: Path) -> None:
    text = middle("environment = {}\ncpu = 1").replace('reads = "w"', 'reads = "v"')
    with pytest.raises(SpecError) as caught:
        load_case(text, tmp_path)
    told = [problem.message for problem in caught.value.problems]
    assert told == [
        'nobody reads the channel "w"',
        'nobody writes the channel "v"',
        'unknown key "environment"',
        'unknown key "cpu"',
    ]
