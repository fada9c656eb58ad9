"""Folders with endpoints: who may connect, what a new run finds, and what is left."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.launch import sockets
from runner.launch.bubblewrap import System, Wall, arguments
from runner.launch.endpoints import EndpointFolder, EndpointFolders
from runner.spec.model import Home, Processor, Trust

PERL = "/usr/bin/perl"
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place there is; everybody may pass through to it."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(sockets, "bases", lambda _environ: [Path(folder, "base")])
        yield Path(folder, "base")


def listening(folder: EndpointFolder, *names: str) -> tuple[dict[str, str], list[socket.socket]]:
    taken: list[socket.socket] = []
    found = folder.listen(dict.fromkeys(names, taken.append))
    return found, taken


def close(taken: list[socket.socket]) -> None:
    for each in taken:
        each.close()


def connects(path: str, user: int | None = None) -> bool:
    command = [sys.executable, "-S", "-c", CONNECT, path]
    groups: list[int] | None = None
    if user is not None:  # whose way to this Python may be closed
        command, groups = [PERL, "-MSocket", "-e", CONNECT_IN_PERL, path], []
    tried = subprocess.run(
        command, capture_output=True, check=False, timeout=20, user=user, group=user, extra_groups=groups
    )
    assert not tried.stderr or b"ermission denied" in tried.stderr or b"No such file" in tried.stderr, tried.stderr
    return tried.returncode == 0


CONNECT_IN_PERL = (
    'socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; connect($s, pack_sockaddr_un($ARGV[0])) or die "$!\\n"'
)


def test_each_endpoint_is_a_socket_of_its_own_and_each_run_has_new_ones(base: Path) -> None:
    async def test() -> None:
        folders = EndpointFolders()
        folder = await folders.make(None)
        first, taken = listening(folder, "CONNECTOR_READER_STDIN", "CONNECTOR_WRITER_STDOUT")
        assert list(first) == ["CONNECTOR_READER_STDIN", "CONNECTOR_WRITER_STDOUT"]
        assert all(address.startswith(f"ipc://{base}/connector-") for address in first.values())
        assert len(set(first.values())) == 2
        assert connects(first["CONNECTOR_READER_STDIN"].removeprefix("ipc://"))
        close(taken)
        second, taken = listening(folder, "CONNECTOR_READER_STDIN")
        close(taken)
        assert not set(first.values()) & set(second.values()), "a program of the run before finds nobody"
        assert not connects(first["CONNECTOR_READER_STDIN"].removeprefix("ipc://"))
        other = await folders.make(None)
        assert other.folder != folder.folder
        for _ in range(2):
            folder.remove()
            other.remove()
        assert not folder.folder.exists()
        folders.close()
        folders.close()

    asyncio.run(test())
    assert list(base.iterdir()) == []


def test_only_its_own_user_can_connect(base: Path) -> None:
    if os.geteuid() != 0 or not Path(PERL).exists():
        pytest.skip("needs root and perl")

    async def test() -> None:
        folders = EndpointFolders()
        mine = await folders.make(None)
        theirs = await folders.make("/.connector/run", (54_321, 54_321))
        _, taken = listening(mine, "A")
        variables, more = listening(theirs, "A")
        assert variables == {"A": "ipc:///.connector/run/z1"}
        assert stat.S_IMODE(theirs.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((theirs.folder / "z1").stat().st_mode) == 0o600
        assert connects(str(theirs.folder / "z1"), 54_321)
        assert not connects(str(theirs.folder / "z1"), 54_322)
        assert not connects(str(mine.folder / "z1"), 54_321)
        for place in (base, theirs.folder.parent):
            assert stat.S_IMODE(place.stat().st_mode) == 0o711, "others pass through, and list nothing"
        close([*taken, *more])
        folders.close()

    asyncio.run(test())


def test_whoever_the_folder_is_shown_to_may_connect_where_no_user_is_known(base: Path) -> None:
    base.mkdir()
    folder = EndpointFolder(base, "/.connector/run", None)
    _, taken = listening(folder, "A")
    assert stat.S_IMODE((base / "z1").stat().st_mode) == 0o666
    close(taken)
    folder.clear()
    assert list(base.iterdir()) == []


def test_a_place_that_has_gone_is_the_machines_fault(base: Path) -> None:
    folder = EndpointFolder(base / "nowhere", "/x", None)
    with pytest.raises(MachineError, match="no socket can be made"):
        listening(folder, "A")


@pytest.mark.parametrize(
    ("trust", "folder", "shown"),
    [
        (Trust.UNTRUSTED, "/run/c/1", ["--ro-bind", "/run/c/1", "/.connector/run"]),
        (Trust.TRUSTED, "/tmp/c/1", ["--ro-bind", "/tmp/c/1", "/tmp/c/1"]),
        (Trust.TRUSTED, "/run/c/1", None),
    ],
)
def test_a_sandbox_is_shown_its_own_folder_and_no_other(trust: Trust, folder: str, shown: list[str] | None) -> None:
    spec = Processor(name="p", command=("x",), directory=None, home=Home.SANDBOX, trust=trust, network="none")
    wall = Wall("bwrap", "p", "/", 4, 3, user_namespace=True, endpoints=folder)
    words = arguments(spec, System(), wall)
    places = [words[at : at + 3] for at, word in enumerate(words) if word == "--ro-bind" and words[at + 1] == folder]
    assert places == ([] if shown is None else [shown])
    if shown is not None and trust is Trust.UNTRUSTED:
        assert words.index(folder) < words.index("--remount-ro", words.index(folder))
