"""Private folders of sockets: who may come in, how often, and what is left of dead runners."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.launch import sockets
from runner.launch.owner import this_owner
from runner.launch.sockets import SocketFolder, bases, sweep
from runner.plan.owners import Owner, owner_in

ME = this_owner()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def base(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place there is."""
    folder = short / "base"
    monkeypatch.setattr(sockets, "bases", lambda _environ: [folder])
    return folder


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


def test_one_is_let_in_and_nobody_after(base: Path) -> None:
    async def test() -> None:
        folder = SocketFolder.make({})
        assert owner_in(folder.path.name, "connector-") == ME
        assert mode(folder.path) == mode(base) == 0o700
        door = folder.door()
        path = door.folder / "socket"
        assert mode(path) == 0o666
        with connect(path) as first:
            with await door.first() as theirs:
                first.send(b"hello")
                assert theirs.recv(10) == b"hello"
            with pytest.raises(FileNotFoundError):
                connect(path)
        other = folder.door()
        assert other.folder != door.folder
        other.close()
        door.close()
        door.close()
        assert names(folder.path) == []
        folder.remove()
        assert names(base) == []

    asyncio.run(test())


def test_who_waits_behind_the_first_is_turned_away(base: Path) -> None:
    async def test() -> None:
        door = SocketFolder.make({}).door()
        path = door.folder / "socket"
        with (
            connect(path),
            connect(path) as second,
            await door.first(),
            contextlib.suppress(ConnectionResetError),
        ):
            assert second.recv(10) == b""
        door.close()

    del base
    asyncio.run(test())


def test_what_dead_runners_left_goes_and_nothing_else(base: Path) -> None:
    dead = Owner(ME.boot, ME.namespace, ME.pid, ME.started + 1)
    before = Owner("0ther600", ME.namespace, ME.pid, ME.started)
    unseen = Owner(ME.boot, ME.namespace + 1, 1, 1)
    kept = [f"connector-{ME}-abc", f"connector-{unseen}-abc", "connector", "somebody-else", f"x-connector-{dead}-abc"]
    for name in (*kept, f"connector-{dead}-abc", f"connector-{before}-abc"):
        (base / name / "1").mkdir(parents=True)
        (base / name / "1/socket").touch()
    assert sweep({}) == 2
    assert names(base) == sorted(kept)


def test_a_place_that_others_can_change_is_not_taken(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, link, file, deep, good = (short / name for name in ("shared", "link", "file", "d" * 90, "good"))
    shared.mkdir()
    shared.chmod(0o777)
    link.symlink_to(short)
    file.touch()
    monkeypatch.setattr(sockets, "bases", lambda _environ: [shared, link, file, deep, short / "no/where", good])
    assert SocketFolder.make({}).path.parent == good
    assert names(shared) == names(deep) == []


def test_there_is_no_place_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    monkeypatch.setattr(sockets, "bases", lambda _environ: [deep])
    with pytest.raises(MachineError, match="too long for a socket") as caught:
        SocketFolder.make({})
    assert "XDG_RUNTIME_DIR" in str(caught.value.remedy)
    assert names(deep) == []


def test_the_places_in_their_order() -> None:
    ours = [Path("/run/connector")] if os.geteuid() == 0 else []
    assert bases({"XDG_RUNTIME_DIR": "/run/user/1"})[:-1] == [*ours, Path("/run/user/1/connector")]
    assert bases({"XDG_RUNTIME_DIR": "relative"})[-1] == Path("/tmp")
