"""File channels as a user sees them: files that are written, exchanged, read once, and followed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from runner import Pipeline
from tests.children.build import source
from tests.e2e.connector import Connector, Result, Running, until
from tests.e2e.disks import on_small_disk
from tests.e2e.test_run import sent
from tests.faults.files import files_of

ANSWERS = {"command": ["cat"], "contract": "one-to-one"}


def to_file(tmp_path: Path, command: list[str], *, more: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """A source that writes into a file."""
    channel = {"kind": "file", "path": "out", "durability": "process", **keys}
    writer = {"command": command, "writes": "c", "resume": "skip", **(more or {})}
    return {"processors": {"source": writer}, "channels": {"c": channel}}


def through(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """From a file, through a program, into a file."""
    first = {"kind": "file", "path": "in", "durability": "process", **keys}
    last = {"kind": "file", "path": "out", "durability": "process"}
    return {
        "processors": {"middle": ANSWERS | {"reads": "c1", "writes": "c2"}},
        "channels": {"c1": first, "c2": last},
    }


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def cut_short(connector: Connector, pipeline: dict[str, Any], out: Path, least_bytes: int = 1) -> None:
    """Run it until something is in the file, and kill the runner."""
    with connector.start(pipeline) as running:
        until(lambda: size_of(out) >= least_bytes or running.process.poll() is not None, "messages in the file")
        assert running.process.poll() is None, str(running.finish())
        running.process.kill()
        running.process.wait()


def endless(*more: Any) -> list[str]:
    return source(None, "--rate", 5000, *more)


# -- written


def test_a_file_is_written_and_the_next_run_goes_on_behind(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"before\n")
    for runs in (1, 2):
        result = connector.run(to_file(tmp_path, source(1000)))
        result.completed()
        assert (tmp_path / "out").read_bytes() == b"before\n" + sent(1000) * runs
        assert result.account("c", "file") == {"written": 1000, "acknowledged": 1000}
        assert result.channel("c")["kind"] == "file"


def test_several_writers_of_several_codecs(connector: Connector, tmp_path: Path) -> None:
    pipeline = to_file(tmp_path, source(500), codec="length-prefixed")
    pipeline["processors"]["other"] = {"command": ["printf", "a\\0b\\n\\0"], "writes": "c", "codec": "null"}
    connector.run(pipeline).completed()
    data = (tmp_path / "out").read_bytes()
    assert len(data) == 500 * 104 + 4 + 1 + 4 + 2
    assert b"\0\0\0\1a" in data
    assert b"\0\0\0\2b\n" in data


def test_what_the_file_cannot_carry_is_refused(connector: Connector, tmp_path: Path) -> None:
    pipeline = to_file(tmp_path, ["printf", "good\\0b\\nad\\0"], more={"codec": "null"}, codec="lines")
    result = connector.run(pipeline)
    result.failed()
    assert "message 2 of channel `c` is refused: a message with a newline inside" in result.output
    assert (tmp_path / "out").read_bytes() == b"good\n"


def test_raw_bytes(connector: Connector, tmp_path: Path) -> None:
    pipeline = to_file(tmp_path, ["head", "-c", "300000", "/dev/zero"], more={"codec": "raw", "resume": "none"})
    connector.run(pipeline).completed()
    assert (tmp_path / "out").read_bytes() == bytes(300_000)


def test_full_files_get_numbers_and_old_ones_go(connector: Connector, tmp_path: Path) -> None:
    pipeline = to_file(tmp_path, source(2000), rotate={"size": "50KiB", "keep": 2})
    connector.run(pipeline).completed()
    files = files_of(tmp_path / "out")
    assert [each.name for each in files] == ["out.000002", "out.000003", "out"]
    assert b"".join(each.read_bytes() for each in files) == sent(2000)[506 * 101 :]
    assert all(50 << 10 >= each.stat().st_size > (50 << 10) - 101 for each in files[:-1])
    assert not (tmp_path / ".out.next").exists()


def test_files_are_exchanged_by_time(connector: Connector, tmp_path: Path) -> None:
    """Also while nothing comes."""
    pipeline = to_file(tmp_path, source(100, "--linger", "--graceful"), rotate={"every": "500ms"})
    with connector.start(pipeline) as running:
        until(lambda: sum(size_of(each) for each in tmp_path.glob("out.0*")) == 10_100, "all to be in full files")
        assert size_of(tmp_path / "out") == 0
        running.signal(signal.SIGTERM)
        running.finish().expect(143, "stopped")
    assert files_of(tmp_path / "out")[-1] == tmp_path / "out"


def refused(connector: Connector, pipeline: dict[str, Any], why: str) -> Result:
    result = connector.run(pipeline)
    assert result.code == 1, str(result)
    result.expect_no_traceback()
    assert why in result.output, str(result)
    return result


def test_a_file_that_is_not_as_it_was_left_is_refused(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = to_file(tmp_path, endless())
    cut_short(connector, pipeline, out, 10_000)
    shown = json.loads(connector.command("state", "show", "--format", "json").stdout)["channels"]["c"]["file"]
    committed = shown["committed_bytes"]
    assert (shown["path"], shown["generation"], shown["inode"]) == (str(out), 1, out.stat().st_ino)
    assert f"{committed:,} bytes committed" in connector.command("state", "show").stdout
    whole = out.read_bytes()

    os.truncate(out, 500)
    result = refused(connector, pipeline, f"has 500 bytes, and {committed:,} are committed")
    assert "connector state reset --channel c" in result.output
    assert size_of(out) == 500, "never padded"
    checked = connector.command("state", "check")
    assert (checked.code, f"file {out} of channel `c` has 500 bytes" in checked.stdout) == (1, True), str(checked)

    out.write_bytes(whole)
    pipeline["processors"]["source"]["command"] = source(3000)
    connector.run(pipeline).completed()
    assert out.read_bytes() == sent(3000), "put right, it goes on"


@pytest.mark.parametrize("way", ["reset", "fresh"])
def test_what_was_never_committed_is_cut_off_when_the_record_is_given_up(
    connector: Connector, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "out"
    pipeline = to_file(tmp_path, endless())
    cut_short(connector, pipeline, out, 10_000)
    shown = json.loads(connector.command("state", "show", "--format", "json").stdout)
    committed = shown["channels"]["c"]["file"]["committed_bytes"]
    with out.open("ab") as file:
        file.write(b"torn")
    if way != "fresh":
        result = connector.command("state", "reset", "--channel", "c")
        assert result.code == 0, str(result)
        assert size_of(out) == committed
    pipeline["processors"]["source"] |= {"command": source(10), "resume": "live"}
    connector.run(pipeline, *(("--fresh",) if way == "fresh" else ())).completed()
    assert out.read_bytes() == sent(committed // 101) + sent(10)


def test_a_file_that_is_read_is_never_cut(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(50_000))
    pipeline = through(tmp_path, capacity="64KiB")
    cut_short(connector, pipeline, tmp_path / "out")
    assert connector.command("state", "reset").code == 0
    assert (tmp_path / "in").read_bytes() == sent(50_000)


def test_one_file_has_one_writer(connector: Connector, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(connector, to_file(tmp_path, source(1)), "is written by another runner, or by another channel")


def test_somebody_else_takes_the_file_away_while_it_is_written(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = to_file(tmp_path, endless("--graceful"))
    with connector.start(pipeline) as running:
        until(lambda: size_of(out) > 1000, "messages")
        out.rename(tmp_path / "away")
        result = running.finish()
    result.failed()
    assert "was taken away while it was written" in result.output
    (tmp_path / "away").rename(out)
    pipeline["processors"]["source"]["command"] = source(20_000)
    connector.run(pipeline).completed()
    assert out.read_bytes() == sent(20_000), "what was not in it was in the store"


def test_somebody_else_writes_the_file(connector: Connector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with connector.start(to_file(tmp_path, endless("--graceful"))) as running:
        until(lambda: size_of(out) > 1000, "messages")
        with out.open("ab") as file:
            file.write(b"mine\n")
        result = running.finish()
    result.failed()
    assert "somebody else writes it" in result.output


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[str, ...]:
    """A wrapper that puts a small disk where the file is; the file `room` gives it room, and a copy is left behind."""
    folder = tmp_path / "disk"
    folder.mkdir()
    copy = f'cat $(ls {folder}/out.0* 2>/dev/null) "{folder}/out" >"{tmp_path}/copy"'
    return on_small_disk(folder, tmp_path, at_the_end=copy)


def waits(running: Running) -> bool:
    return "waiting until it can be stored: cannot write" in running.output()


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_full_disk_makes_writers_wait(
    connector: Connector, tmp_path: Path, small_disk: tuple[str, ...], durability: str
) -> None:
    keys: dict[str, Any] = {
        "path": "disk/out",
        "durability": durability,
        "capacity": "1MiB",
        "rotate": {"size": "300KiB"},
    }
    with connector.start(
        to_file(tmp_path, source(40_000), **keys), "--log-format", "json", wrapper=small_disk
    ) as running:
        until(lambda: waits(running) or running.process.poll() is not None, "a writer to wait", 30)
        assert running.process.poll() is None, str(running.finish())
        (tmp_path / "room").touch()
        result = running.finish()
    result.completed()
    assert (tmp_path / "copy").read_bytes() == sent(40_000)
    assert "no space left on device; it is tried again" in result.output
    assert "is written again" in result.output


def test_a_full_disk_does_not_hold_up_the_end_for_ever(
    connector: Connector, tmp_path: Path, small_disk: tuple[str, ...]
) -> None:
    pipeline = to_file(tmp_path, source(40_000), path="disk/out", capacity="1MiB")
    pipeline["drain"] = "1s"
    with connector.start(pipeline, "--log-format", "json", wrapper=small_disk) as running:
        until(lambda: waits(running) or running.process.poll() is not None, "a writer to wait", 30)
        running.wrapped().send_signal(signal.SIGTERM)
        result = running.finish(25)
    result.expect(143, "stopped")
    assert (tmp_path / "copy").read_bytes() == sent(40_000)[: size_of(tmp_path / "copy")]
    assert result.account("c", "file")["unread"] > 0, "it stays in the store"


# -- read


def test_a_file_is_read_once(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(5000)[:-1])
    result = connector.run(through(tmp_path))
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(5000), "a last line without a newline counts"
    assert result.account("c1", "middle") == {"written": 5000, "acknowledged": 5000}


def test_a_file_that_was_read_half_is_read_on(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(100_000))
    pipeline = through(tmp_path, capacity="64KiB")
    cut_short(connector, pipeline, tmp_path / "out")
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(100_000)
    assert 0 < result.channel("c1")["written"] < 100_000


def test_a_file_that_is_not_the_one_that_was_read_half_is_refused(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(100_000))
    pipeline = through(tmp_path, capacity="64KiB")
    cut_short(connector, pipeline, tmp_path / "out")
    (tmp_path / "in").rename(tmp_path / "away")
    (tmp_path / "in").write_bytes(sent(100_000))
    refused(connector, pipeline, "than the one that was read")
    checked = json.loads(connector.command("state", "check", "--format", "json").stdout)
    (wrong,) = checked["files"]
    assert (checked["sound"], wrong["channel"]) == (False, "c1")
    assert "than the one that was read" in wrong["why"]


def test_a_message_that_is_too_long_is_named_by_its_place(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(100) + b"x" * 3000 + b"\n" + sent(1))
    result = connector.run(through(tmp_path, max_message="2KiB"))
    result.failed()
    assert f"file {tmp_path}/in, byte 10,100: a message" in result.output
    assert "is longer than max_message (2.0 KiB)" in result.output
    assert (tmp_path / "out").read_bytes() == sent(100)
    connector.run(through(tmp_path, max_message="4KiB")).completed()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_readers_that_leave_end_it(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(200_000))
    channel = {"kind": "file", "path": "in", "follow": True, "capacity": "64KiB", "durability": "process"}
    head = {"command": ["sh", "-c", f"head -n 5 >{tmp_path}/out"], "reads": "c"}
    result = connector.run({"processors": {"head": head}, "channels": {"c": channel}})
    result.completed()
    assert (tmp_path / "out").read_bytes() == sent(5)


def test_several_readers_of_one_file(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(1000))
    pipeline = through(tmp_path)
    pipeline["processors"]["other"] = {"command": ["sh", "-c", f"cat >{tmp_path}/other"], "reads": "c1"}
    result = connector.run(pipeline)
    result.completed()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "other").read_bytes() == sent(1000)


def test_a_program_for_each_batch_between_two_files(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"".join(b"%03d\n" % (number * 7 % 300) for number in range(300)))
    pipeline = through(tmp_path)
    pipeline["processors"]["middle"] |= {"command": ["sort"], "contract": "batch", "batch": {"messages": 100}}
    pipeline["channels"]["c2"]["capacity"] = 100  # it is waited for
    result = connector.run(pipeline)
    result.completed()
    lines = (tmp_path / "in").read_text().splitlines()
    assert (tmp_path / "out").read_text().splitlines() == [
        line for at in (0, 100, 200) for line in sorted(lines[at : at + 100])
    ]
    assert result.account("c2", "file") == {"written": 300, "acknowledged": 300}


# -- followed


def test_a_file_is_followed_as_it_grows_and_rotates(connector: Connector, tmp_path: Path) -> None:
    fed, out = tmp_path / "in", tmp_path / "out"
    with connector.start(through(tmp_path, follow=True)) as running:

        def arrives(messages: int) -> None:
            due = sent(messages)
            until(lambda: size_of(out) >= len(due) or running.process.poll() is not None, f"{messages}", 30)
            assert out.read_bytes() == due, running.output()

        def write(first: int, last: int) -> None:
            with fed.open("ab") as file:
                file.write(sent(last)[(first - 1) * 101 :])

        write(1, 100)  # it was not there
        arrives(100)
        with fed.open("ab") as file:
            file.write(sent(101)[100 * 101 : -50])  # half of a line is not read
            write(102, 101)
            fed.rename(tmp_path / "in.1")
            file.write(sent(101)[-50:])  # its writer has not turned to the new one yet
        arrives(101)
        write(102, 200)
        arrives(200)
        shutil.copy(fed, tmp_path / "in.2")
        os.truncate(fed, 0)
        write(201, 300)
        arrives(300)
        running.signal(signal.SIGTERM)
        result = running.finish()
    result.expect(143, "stopped")
    fed.rename(tmp_path / "in.000003")  # while nobody follows
    with (tmp_path / "in.000003").open("ab") as file:
        file.write(sent(350)[300 * 101 :])
    fed.write_bytes(sent(400)[350 * 101 :])
    with connector.start(through(tmp_path, follow=True)) as running:
        until(lambda: size_of(out) >= 400 * 101, f"the rest\n{running.output()}", 30)
        running.signal(signal.SIGTERM)
        running.finish().expect(143, "stopped")
    assert out.read_bytes() == sent(400)


def test_a_followed_file_that_cannot_be_found_any_more_is_refused(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(100))
    with connector.start(through(tmp_path, follow=True)) as running:
        until(lambda: size_of(tmp_path / "out") == 10_100, "all of it")
        running.signal(signal.SIGTERM)
        running.finish().expect(143, "stopped")
    (tmp_path / "in").unlink()
    (tmp_path / "in").write_bytes(b"other\n")
    refused(connector, through(tmp_path, follow=True), "and no file beside it is that one")
    assert "given up" in connector.command("state", "reset", "--channel", "c1").stdout
    with connector.start(through(tmp_path, follow=True)) as running:
        until(lambda: size_of(tmp_path / "out") == 10_106, "the other file")
        running.signal(signal.SIGTERM)
        running.finish()


def test_a_followed_file_that_is_cut_short_without_a_copy_is_said(connector: Connector, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(100))
    with connector.start(through(tmp_path, follow=True)) as running:
        until(lambda: size_of(tmp_path / "out") == 10_100, "all of it")
        os.truncate(tmp_path / "in", 0)
        until(lambda: "was cut short, and there is no copy of it" in running.output(), "that it is said")
        (tmp_path / "in").write_bytes(b"again\n")
        until(lambda: size_of(tmp_path / "out") == 10_106, "what came then")
        running.signal(signal.SIGTERM)
        running.finish().expect(143, "stopped")


# -- in Python


def test_in_python(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(sent(1000))
    document = through(tmp_path)
    pipeline = Pipeline(name="files", processors=document["processors"], channels=document["channels"], folder=tmp_path)
    report = asyncio.run(pipeline.execute())
    assert report.balanced
    assert report.channels["c2"].readers["file"].acknowledged == 1000
    assert (tmp_path / "out").read_bytes() == sent(1000)
