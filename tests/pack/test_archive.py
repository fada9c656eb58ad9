"""What is sent to the engine: a tar that is the same for the same content."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from runner.pack.archive import context_bytes, dockerfile_name, tar_of
from runner.plan.content import ContentError, entries_of, ignored_in
from runner.plan.image import Recipe


def recipe(folder: Path, prefix: str = "processor/", dockerfile_path: str | None = None) -> Recipe:
    entries = entries_of(folder, ignored_in(folder))
    return Recipe("n:t", "d", "FROM x\n", ("x",), folder, entries, prefix, dockerfile_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    (made / "main.py").write_text("print(1)\n")
    (made / "main.py").chmod(0o600)
    (made / "tool").write_bytes(b"x" * 1000)
    (made / "tool").chmod(0o711)
    (made / "out").symlink_to("/etc/passwd")
    (made / ("long" * 40)).write_text("long")
    (made / "grün").write_text("umlaut")
    (made / os.fsdecode(b"raw\xff")).write_text("no text")
    return made


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        return {each.name: each for each in archive.getmembers()}


def test_what_is_sent(folder: Path) -> None:
    sent: list[int] = []
    data = b"".join(tar_of(recipe(folder), sent.append))
    found = members(data)
    assert {name for name in found if not name.startswith("processor/")} == {".connector.Dockerfile", "processor"}
    assert found["processor/main.py"].mode == 0o644, "readable for the image's own user"
    assert found["processor/tool"].mode == 0o755
    assert found["processor/sub"].isdir()
    assert (found["processor/out"].issym(), found["processor/out"].linkname) == (True, "/etc/passwd")
    assert {"processor/grün", f"processor/{'long' * 40}", os.fsdecode(b"processor/raw\xff")} <= found.keys()
    assert {(each.uid, each.gid, each.uname, each.mtime) for each in found.values()} == {(0, 0, "", 315_619_200)}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        opened = archive.extractfile("processor/tool")
        assert opened is not None
        assert opened.read() == b"x" * 1000
    assert sum(sent) == context_bytes(recipe(folder))


def test_a_copy_is_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy", symlinks=True, copy_function=shutil.copy)
    (tmp_path / "copy/main.py").chmod(0o644)
    assert b"".join(tar_of(recipe(tmp_path / "copy"))) == b"".join(tar_of(recipe(folder)))


def test_a_dockerfile_in_the_folder_is_not_sent_twice(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM x\n")
    own = recipe(folder, "", "Dockerfile")
    assert dockerfile_name(own) == "Dockerfile"
    assert "Dockerfile" in members(b"".join(tar_of(own)))
    assert ".connector.Dockerfile" not in members(b"".join(tar_of(own)))


@pytest.mark.parametrize("change", ["longer bytes than before", "shrt", "print(2)\n", None])
def test_what_is_changed_meanwhile_is_noticed(folder: Path, change: str | None) -> None:
    made = recipe(folder)
    (folder / "main.py").unlink()
    if change is not None:
        (folder / "main.py").write_text(change)
    with pytest.raises(ContentError, match=r"main\.py (was changed while it was sent|cannot be read)"):
        for _ in tar_of(made):
            pass
