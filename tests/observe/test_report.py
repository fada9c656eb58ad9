import ctypes
import json
import os
import pwd
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import MachineError
from runner.observe.report import check_writable, encode_report, write_report
from runner.supervise.snapshot import RunReport
from tests.observe.samples import Drain, report

ROOT = os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(report(), path)
    assert msgspec.json.decode(path.read_bytes(), type=RunReport) == report()
    assert path.read_text().startswith('{\n  "version": 1,\n')
    assert path.read_text().endswith("}\n")
    assert names(tmp_path) == ["report.json"]


@given(st.from_type(str), st.text())
def test_any_cause_is_read_back_the_same(cause: str, pipeline: str) -> None:
    given_report = report(cause=cause, pipeline=pipeline)
    assert msgspec.json.decode(encode_report(given_report), type=RunReport) == given_report


def test_what_the_issue_names_is_there() -> None:
    fields = json.loads(encode_report(report()))
    assert fields["status"] == "completed"
    assert fields["supervisor"] == {"peak_rss_bytes": 40 << 20, "cpu_s": 1.5}
    assert fields["processors"]["enrich"]["instances"][0]["exit"] == {"code": None, "signal": 9}
    assert set(fields["channels"]["raw"]["readers"]["enrich"]) == {
        "carried",
        "replayed",
        "acknowledged",
        "dead",
        "dropped",
        "indeterminate",
        "unread",
    }


def test_rights_are_those_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_report(report(), tmp_path / "report.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "report.json"
    link.symlink_to("real/report.json")
    write_report(report(), link)
    write_report(report(run="r2"), link)
    assert link.is_symlink()
    assert json.loads((tmp_path / "real/report.json").read_text())["run"] == "r2"


@pytest.mark.parametrize("name", ["missing/report.json", "", "file/report.json", "null\0byte"])
def test_places_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    for use in (check_writable, partial(write_report, report())):
        with pytest.raises(MachineError) as caught:
            use(path)
        assert caught.value.where == str(path)
        assert caught.value.what.startswith("the report cannot be written: ")
    assert names(tmp_path) == ["file"]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"Is a directory \(it is a folder; add a file name to it\)"):
        check_writable(tmp_path)
    with pytest.raises(MachineError, match=r"No such file or directory \(make its folder first"):
        check_writable(tmp_path / "missing" / "report.json")


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.json")
    assert names(tmp_path) == []
    (tmp_path / "report.json").write_text("old")
    check_writable(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "old"


def run_child(program: str, *arguments: str) -> str:
    header = "import os, sys\nfrom runner.errors import MachineError\nfrom runner.observe.report import *\n"
    header += "from tests.observe.samples import report\n"
    command = [sys.executable, "-c", header + textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_write_that_fails_damages_nothing(tmp_path: Path) -> None:
    """A limit on the size of files makes write(2) fail half-way, as a full disk does."""
    path = tmp_path / "report.json"
    path.write_text("the good old one")
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        try:
            write_report(report(), sys.argv[1])
        except MachineError as error:
            print(error)
    """
    said = run_child(program, str(path))
    assert said == f"{path}: the report cannot be written: File too large\n"
    assert path.read_text() == "the good old one"
    assert names(tmp_path) == ["report.json"]


def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    program = """
        for attempt in (lambda: check_writable(sys.argv[1]), lambda: write_report(report(), sys.argv[1])):
            try:
                attempt()
            except MachineError as error:
                print(error.what)
    """
    if ROOT:  # root may write anywhere, so become somebody else, for whom the way there is opened
        nobody = pwd.getpwnam("nobody").pw_uid
        for above in (tmp_path, *tmp_path.parents[:-2]):
            above.chmod(above.stat().st_mode | 0o055)
        program = f"os.setuid({nobody})\n" + textwrap.dedent(program)
    said = run_child(program, str(folder / "report.json"))
    assert said == "the report cannot be written: Permission denied\n" * 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if not ROOT:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=16k") != 0:
        pytest.skip(f"a file system cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    assert libc.umount2(str(folder).encode(), 0) == 0


def test_a_full_disk_damages_nothing(small_disk: Path) -> None:
    path = small_disk / "report.json"
    write_report(report(), path)
    good = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(1 << 16))
    with pytest.raises(MachineError, match=r"No space left on device \(free some space"):
        write_report(report(run="r2"), path)
    assert path.read_bytes() == good
    assert names(small_disk) == ["filler", "report.json"]


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="No space left on device"):
        write_report(report(), "/dev/full")
    write_report(report(), "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert run_child("check_writable('/dev/stdout')\nwrite_report(report(), '/dev/stdout')") == (
        encode_report(report()).decode()
    )
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(MachineError, match="No such device or address"):
        write_report(report(), fifo)
    receiving = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(receiving, True)
    write_report(report(), fifo)
    assert Drain(receiving).rest() == encode_report(report())
    assert fifo.is_fifo()
