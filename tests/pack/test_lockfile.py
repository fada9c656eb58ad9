"""The lock file as text: written whole, read with the place of every error."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runner.errors import MachineError, SpecError
from runner.pack.lockfile import (
    VERSION,
    Lock,
    LockedProcessor,
    LockedRunner,
    LockError,
    as_toml,
    lock_path,
    read_lock,
    write_lock,
)

LOCK = Lock(
    VERSION,
    "flights",
    LockedRunner("1.2.3", "x86_64", "sha256:00"),
    {
        "b": LockedProcessor(image="x:1", image_id="sha256:11", image_digest="x@sha256:22"),
        "a": LockedProcessor(folder="up", folder_hash="sha256:33", program="/bin/cat", program_hash="sha256:44"),
    },
)


@pytest.mark.parametrize(
    ("file", "lock"),
    [("pipeline.toml", "pipeline.lock.toml"), ("a/b.toml", "a/b.lock.toml"), ("plain", "plain.lock.toml")],
)
def test_its_name(file: str, lock: str) -> None:
    assert lock_path(Path(file)) == Path(lock)


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.lock.toml"
    assert write_lock(LOCK, path)
    assert read_lock(path) == LOCK
    text = path.read_text()
    assert text.startswith("# What the pipeline flights was tried with.")
    assert text.index("[processors.a]") < text.index("[processors.b]")
    before = path.stat().st_mtime_ns
    assert not write_lock(LOCK, path), "nothing has changed"
    assert path.stat().st_mtime_ns == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_lock(LOCK, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert read_lock(tmp_path / "real") == LOCK


def test_where_it_cannot_be_written_nothing_changes(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be written: no such file or directory"):
        write_lock(LOCK, tmp_path / "gone/x.lock.toml")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError, match="cannot be written: is a directory"):
        write_lock(LOCK, tmp_path / "folder")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"is not there \(write it: connector lock FILE\)"):
        read_lock(tmp_path / "x.lock.toml")


def test_one_of_a_newer_runner(tmp_path: Path) -> None:
    path = tmp_path / "x.lock.toml"
    path.write_text(as_toml(LOCK).replace("version = 1\n", "version = 2\nand = 'more'\n", 1))
    with pytest.raises(LockError, match=r"newer runner \(lock version 2, this one knows 1\)"):
        read_lock(path)


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ('pipeline = "flights"', "pipeline = flights", [r"x\.lock\.toml:5:\d+: error: no valid TOML"]),
        ('pipeline = "flights"', "", [r"the key \"pipeline\" is missing"]),
        ('folder = "up"', "folder = 1", [r"x\.lock\.toml:\d+:10: error: processors\.a\.folder: expected "]),
        ("program =", "programm =", [r"unknown key \"programm\""]),
        ("version = 1\n", 'version = "1"\n', [r"x\.lock\.toml:4:11: error: version: expected "]),
        ('folder = "up"', "folder = 1\nimage = 2", [r"a\.folder: expected", r"a\.image: expected"]),
    ],
)  # fmt: skip
def test_a_damaged_one_names_its_lines(old: str, new: str, problems: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.lock.toml"
    text = as_toml(LOCK)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        read_lock(path)
    assert len(caught.value.problems) == len(problems)
    for problem, wanted in zip(caught.value.problems, problems, strict=True):
        assert re.search(wanted, str(problem)), problem


def test_a_torn_one_is_refused_at_every_length(tmp_path: Path) -> None:
    """Whatever is left of it after a crash of something else: an error for people, or the whole lock."""
    data = as_toml(LOCK)
    path = tmp_path / "x.lock.toml"
    whole = 0
    for length in range(len(data) + 1):
        path.write_text(data[:length])
        try:
            whole += read_lock(path) == LOCK
        except (SpecError, LockError):
            continue
    assert whole <= 2, "the last newline is the only byte that may be missing"
