"""Files that are written, on a real disk: what is there already, what is refused, how a full one is exchanged."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.channel.file_disk import OutFile
from runner.channel.file_kept import let_go
from runner.channel.file_plan import TAIL_BYTES, Kept
from runner.errors import RunnerError


class Written:
    """A file that was begun and written."""

    def __init__(self, folder: Path, data: bytes = b"first\n") -> None:
        self.path = folder / "out"
        self.file = OutFile(self.path, "c", sync=True)
        self.kept = self.file.open(None, 1.0, b"\n")
        if data:
            self.append(data)

    def append(self, data: bytes) -> None:
        self.kept = self.file.append(self.kept, data, 2.0)

    def again(self) -> Kept:
        """As after a crash."""
        self.file.close()
        self.file = OutFile(self.path, "c", sync=True)
        self.kept = self.file.open(self.kept, 3.0, b"\n")
        return self.kept

    def refused(self) -> str:
        with pytest.raises(RunnerError) as caught:
            self.again()
        return str(caught.value)


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    written = Written(tmp_path)
    before = written.kept
    with written.path.open("ab") as file:
        file.write(b"never committed")
    assert written.again() == before
    written.append(b"second\n")
    assert written.path.read_bytes() == b"first\nsecond\n"
    assert written.kept.begun_at_s == 2.0


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES])
def test_the_checksum_is_of_the_last_bytes(tmp_path: Path, size: int) -> None:
    """However they came."""
    written = Written(tmp_path, b"")
    data = os.urandom(size)
    for start in range(0, size, 1000):
        written.append(data[start : start + 1000])
    before = written.kept
    assert written.again() == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: os.truncate(path, 3), "has 3 bytes, and 6 are committed"),
        (
            lambda path: path.write_bytes(b"other\n"),
            "was changed: the bytes before the committed length (6)",
        ),
        (Path.unlink, "is not there any more, and 6 bytes of it are committed"),
        (lambda path: path.rename(path.with_name("x")) and path.write_bytes(b"first\n"), "is another file (inode"),
    ],
)
def test_what_is_not_as_it_was_left_is_refused(tmp_path: Path, change: Callable[[Path], object], why: str) -> None:
    written = Written(tmp_path)
    change(written.path)
    there = written.path.read_bytes() if written.path.exists() else None
    assert why in written.refused()
    assert (written.path.read_bytes() if written.path.exists() else None) == there, "it is left alone"


@pytest.mark.parametrize(("make", "why"), [(os.mkfifo, "is a named pipe"), (os.mkdir, "is a folder")])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "out")
    with pytest.raises(RunnerError, match=why):
        Written(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="cannot be used: no such file or directory"):
        Written(tmp_path / "no")


def test_it_has_one_writer(tmp_path: Path) -> None:
    written = Written(tmp_path)
    with pytest.raises(RunnerError, match="is written by another runner, or by another channel"):
        Written(tmp_path)
    written.file.close()
    Written(tmp_path).file.close()


def test_a_file_that_ends_in_the_middle_of_a_message(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"no newline")
    with pytest.raises(RunnerError, match="ends in the middle of a message"):
        Written(tmp_path)
    assert (tmp_path / "out").read_bytes() == b"no newline"


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere" / "file")
    exchanged(Written(tmp_path))
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / "file.000001").read_bytes() == b"first\n"
    assert (tmp_path / "out").read_bytes() == b""


# -- full


def exchanged(written: Written) -> None:
    written.kept = written.file.prepare(written.kept)
    written.kept = written.file.exchange(written.kept)


def test_an_exchange_that_the_disk_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written = Written(tmp_path)
    written.kept = written.file.prepare(written.kept)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(OSError, match="No space left"):
            written.file.exchange(written.kept)
    written.kept = written.file.exchange(written.kept)
    assert (tmp_path / "out.000001").read_bytes() == b"first\n"


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_full_files_count_up_and_old_ones_go(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.path.chmod(0o640)
    for number in (2, 3, 4):
        exchanged(written)
        written.append(b"file %d\n" % number)
    assert names(tmp_path) == ["out", "out.000001", "out.000002", "out.000003"]
    assert written.path.stat().st_mode & 0o777 == 0o640
    written.file.remove_old(written.kept.generation, 1)
    assert names(tmp_path) == ["out", "out.000003"]
    written.file.close()
    assert OutFile(written.path, "c", sync=False).open(None, 1.0, None).generation == 4


def test_an_exchange_beside_a_child_that_is_being_started(tmp_path: Path) -> None:
    """Between fork and exec it has all descriptors of the runner, and holds their locks."""
    written = Written(tmp_path)
    inode = written.path.stat().st_ino
    open_now = [int(each.name) for each in Path("/proc/self/fd").iterdir()]
    childs = [os.dup(number) for number in open_now if _inode_of(number) == inode]
    assert childs
    written.kept = written.file.exchange(written.file.prepare(written.kept))
    written.append(b"second\n")
    assert written.path.read_bytes() == b"second\n"
    for number in childs:
        os.close(number)


def _inode_of(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


def test_a_number_that_somebody_took_is_left_out(tmp_path: Path) -> None:
    written = Written(tmp_path)
    (tmp_path / "out.000007").write_bytes(b"mine")
    exchanged(written)
    assert names(tmp_path) == ["out", "out.000007", "out.000008"]
    assert (tmp_path / "out.000007").read_bytes() == b"mine"


def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    written = Written(tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    exchanged(written)
    assert (tmp_path / "out.000001").read_bytes() == b"first\n"
    assert written.path.read_bytes() == b""


def test_a_leftover_of_an_exchange_that_was_never_on_record(tmp_path: Path) -> None:
    written = Written(tmp_path)
    before = written.kept
    written.file.prepare(before)
    assert written.again() == before
    exchanged(written)
    assert names(tmp_path) == ["out", "out.000001"]


def test_it_stays_whole_for_who_reads_it_meanwhile(tmp_path: Path) -> None:
    """There is never a moment without a file at its path."""
    written = Written(tmp_path)
    missing: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            if not written.path.exists():
                missing.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        exchanged(written)
        written.append(b"more\n")
    over.set()
    thread.join()
    assert not missing


# -- faults


def test_what_a_failed_try_leaves_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(tmp_path)
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if at == 6:
            return pwrite(descriptor, data[:3], at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            written.append(b"second\n")
    monkeypatch.undo()
    written.append(b"2nd\n")
    assert written.path.read_bytes() == b"first\n2nd\n"


def test_a_sync_that_failed_is_done_again_with_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(tmp_path)

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        written.append(b"second\n")
    monkeypatch.undo()
    written.append(b"second\n")
    assert written.path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.rename(path.with_name("x")), "was taken away while it was written"),
        (lambda path: path.rename(path.with_name("x")) and path.touch(), "was exchanged for another file"),
        (lambda path: path.write_bytes(b"longer than it was"), "somebody else writes it"),
        (lambda path: os.truncate(path, 1), "somebody else writes it"),
    ],
)
def test_somebody_else_is_at_it(tmp_path: Path, change: Callable[[Path], object], why: str) -> None:
    written = Written(tmp_path)
    change(written.path)
    with pytest.raises(RunnerError, match=why):
        written.append(b"second\n")


def test_a_record_that_is_given_up(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.file.close()
    for kept, left in (
        (Kept(written.kept.path, 1, written.kept.inode, 6, written.kept.checksum, written=False), b"first\ntorn"),
        (Kept(written.kept.path, 1, written.kept.inode + 1, 6, written.kept.checksum), b"first\ntorn"),
        (Kept(written.kept.path, 1, written.kept.inode, 6, 1), b"first\ntorn"),
        (written.kept, b"first\n"),
    ):
        written.path.write_bytes(b"first\ntorn")
        let_go(kept)
        assert written.path.read_bytes() == left
    written.path.unlink()
    let_go(written.kept)
