"""A folder's hash counts what an image gets of it, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.utils.build import PatternMatcher
from hypothesis import example, given
from hypothesis import strategies as st

from runner.plan.content import ContentError, Ignored, digest_of, entries_of, folder_digest, ignored_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "sub/empty").mkdir(parents=True)
    (made / "main.py").write_text("print(1)\n")
    (made / "sub/data").write_bytes(bytes(range(256)))
    (made / "tool").write_text("#!/bin/sh\n")
    (made / "tool").chmod(0o755)
    (made / "link").symlink_to("../outside")
    return made


def test_a_copy_made_elsewhere_at_another_time_is_the_same(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deep/er/copy"
    copy.mkdir(parents=True)
    for name in ("tool", "sub", "main.py", "link"):  # in another order
        if (folder / name).is_symlink():
            (copy / name).symlink_to((folder / name).readlink())
        elif (folder / name).is_dir():
            shutil.copytree(folder / name, copy / name)
        else:
            shutil.copyfile(folder / name, copy / name)
            (copy / name).chmod(0o700 if name == "tool" else 0o600)
    os.utime(copy / "main.py", (1, 1))
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__/main.pyc").write_bytes(b"cached")
    (copy / "sub/.git").mkdir()
    (copy / "sub/.git/HEAD").write_text("ref")
    assert folder_digest(copy) == folder_digest(folder)


def relink(folder: Path, target: str) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to(target)


def unlink_and_write(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").write_text("../outside")


def move_bytes(folder: Path) -> None:
    (folder / "main.py").write_text("print(1)")
    (folder / "tool").write_text("\n#!/bin/sh\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda folder: (folder / "main.py").write_text("print(2)\n"),
    "may be executed": lambda folder: (folder / "main.py").chmod(0o755),
    "may not be executed": lambda folder: (folder / "tool").chmod(0o644),
    "another name": lambda folder: (folder / "main.py").rename(folder / "main2.py"),
    "another folder": lambda folder: (folder / "main.py").rename(folder / "sub/main.py"),
    "one more": lambda folder: (folder / "new").write_text(""),
    "an empty folder less": lambda folder: (folder / "sub/empty").rmdir(),
    "a file for a link": unlink_and_write,
    "the link leads elsewhere": lambda folder: relink(folder, "main.py"),
    "bytes move from one file to the next": move_bytes,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_an_image_would_see_counts(folder: Path, change: Callable[[Path], object]) -> None:
    before = folder_digest(folder)
    assert folder_digest(folder) == before
    change(folder)
    assert folder_digest(folder) != before


def test_no_two_lists_of_texts_are_the_same() -> None:
    lists = [(), ("",), ("a", "b"), ("b", "a"), ("ab",), ("atextb",), ("a4:text1:b",), ("a", "b", "")]
    assert len({digest_of((), *texts) for texts in lists}) == len(lists)


def test_dockerignore_is_obeyed(folder: Path) -> None:
    (folder / ".dockerignore").write_text("# no data\nsub\n!sub/data\n*.log\n")
    before = folder_digest(folder)
    (folder / "noise.log").write_text("much")
    (folder / "sub/other").write_text("left out")
    assert folder_digest(folder) == before
    assert [entry.path for entry in entries_of(folder, ignored_in(folder))] == [
        ".dockerignore", "link", "main.py", "sub/data", "tool"
    ]  # fmt: skip
    (folder / ".dockerignore").write_text("!**/.git\n")
    (folder / ".git").mkdir()
    assert ".git" in {entry.path for entry in entries_of(folder, ignored_in(folder))}


PART = st.sampled_from(["a", "b", "ab", "a.b", "*", "a*", "?", "*b", "**"])
NAME = st.sampled_from(["a", "b", "ab", "a.b", "axb"])
PATTERN = st.builds(lambda no, parts: no + "/".join(parts), st.sampled_from(["", "", "!"]), st.lists(PART, min_size=1))
PATHS = st.lists(NAME, min_size=1, max_size=5).map("/".join)


@given(st.lists(PATTERN, max_size=4), PATHS)
@example(["**", "!a"], "a/b")
@example(["*", "!a/b"], "a/b")
@example(["a", "!a/b", "a/b/a"], "a/b/a/b")
@example(["**/a"], "a/b")
def test_patterns_mean_what_they_mean_to_docker(patterns: list[str], path: str) -> None:
    parts = path.split("/")
    around = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    left_out = False
    # Its `matches` overlooks folders around the path that `**/` matches, of which its `walk` leaves out all the same.
    for pattern in PatternMatcher(patterns).patterns:
        if any(pattern.match(each) for each in around):
            left_out = not pattern.exclusion
    assert Ignored(patterns)(path) == left_out


@pytest.mark.parametrize(
    ("pattern", "path", "left_out"),
    [
        ("a.b", "axb", False),
        ("[ab]x", "bx", True),
        ("[^a]x", "ax", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("/a/", "a/b", True),
        ("./a", "a", True),
        ("", "a", False),
        (".", "a", False),
        ("#a", "#a", False),
    ],
)
def test_patterns(pattern: str, path: str, left_out: bool) -> None:
    assert Ignored([pattern])(path) is left_out


def test_a_bad_pattern_names_its_line(folder: Path) -> None:
    (folder / ".dockerignore").write_text("fine\n[z-a]\n")
    with pytest.raises(ContentError, match=r"\.dockerignore:2: \[z-a\] is no pattern"):
        folder_digest(folder)


def test_what_cannot_be_in_an_image_is_named(folder: Path) -> None:
    os.mkfifo(folder / "sub/pipe")
    with pytest.raises(ContentError, match=r"sub/pipe is no file, folder or link.*write a line sub/pipe"):
        folder_digest(folder)
    (folder / ".dockerignore").write_text("sub/pipe\n")
    folder_digest(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "sock"))
        with pytest.raises(ContentError, match="sock is no file"):
            folder_digest(folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """For files, this thread is somebody without rights (setfsuid(2)); only root can do that, and needs it."""
    set_user = ctypes.CDLL(None).setfsuid
    set_user(65534)
    try:
        yield
    finally:
        set_user(os.geteuid())


def test_what_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "main.py").chmod(0)
    folder.chmod(0)
    with as_nobody(), pytest.raises(ContentError, match=r"made.* cannot be read: permission denied.*dockerignore"):
        folder_digest(folder)
    folder.chmod(0o755)
    if os.geteuid() != 0:
        with pytest.raises(ContentError, match=r"main\.py cannot be read: permission denied"):
            folder_digest(folder)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="gone cannot be read: no such file"):
        folder_digest(tmp_path / "gone")
