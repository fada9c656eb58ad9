"""The home `attached` from outside: what a container may put into its folder, and who may connect at its socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from runner.errors import MachineError
from runner.events import Event, WaitChanged, Warned
from runner.launch import seats
from runner.launch.attached import AttachedHandle, AttachedLauncher
from runner.launch.attached_folder import AttachedFolder
from runner.launch.base import LaunchContext, LaunchRequest, ShimLostError
from runner.launch.shim.locate import shim_path
from runner.launch.shim_client import LARGEST_PACKET_BYTES
from runner.spec.model import Home, Processor, StopPolicy
from tests.launch.shims import Shims
from tests.waiting import until

LIMIT_S = 30.0
HELLO = b"H" + struct.pack("<I", 1) + b"/bridge/shim.sock"


@pytest.fixture
def place() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield Path(folder)


@dataclass
class Attached:
    """A launcher that is prepared for `p`, and what it told."""

    shims: Shims
    spec: Processor
    events: list[Event] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    launcher: AttachedLauncher = field(init=False)

    def __post_init__(self) -> None:
        context = LaunchContext(
            "run",
            "pipeline",
            exclusive=False,
            notify=self.events.append,
            stop=self.stops.append,
            bridges=self.shims.path,
        )
        self.launcher = AttachedLauncher(context)

    @property
    def door(self) -> Path:
        return self.shims.path / "p" / "shim.sock"

    async def handle(self) -> AttachedHandle:
        return await self.launcher.open(self.spec, 1)


@contextlib.asynccontextmanager
async def attached(replicas: int = 1) -> AsyncIterator[Attached]:
    spec = Processor(
        name="p", command=("true",), directory=None, home=Home.ATTACHED, replicas=replicas, stop=StopPolicy(0.5)
    )
    with Shims() as shims:
        made = Attached(shims, spec)
        await made.launcher.prepare([spec])
        try:
            yield made
        finally:
            await made.launcher.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Bounded in time, and nothing may go wrong behind its back."""
    errors: list[object] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        async with asyncio.timeout(LIMIT_S):
            await test()

    asyncio.run(bounded())
    assert errors == []


@contextlib.contextmanager
def request_of(*command: str) -> Iterator[LaunchRequest]:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        yield LaunchRequest(command, None, {}, dict.fromkeys(range(3), null))
    finally:
        os.close(null)


class Stranger:
    """Somebody who is no shim."""

    def __init__(self, door: Path, *said: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(door))
        self.socket.setblocking(False)  # noqa: FBT003 - the library's own shape
        for packet in said:
            self.socket.send(packet)

    async def heard(self) -> bytes:
        """The next packet; nothing when it was turned away."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.socket, LARGEST_PACKET_BYTES)
        except ConnectionResetError:  # what it said was never read
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# -- the folder


def test_the_folder_holds_the_shim_and_a_socket_for_everybody(place: Path) -> None:
    folder = AttachedFolder(place / "p")
    folder.install(shim_path())
    with folder.listen(1):
        assert (place / "p/connector-shim").read_bytes() == shim_path().read_bytes()
        assert stat.S_IMODE((place / "p/connector-shim").stat().st_mode) == 0o755
        assert stat.S_IMODE((place / "p/shim.sock").stat().st_mode) == 0o666
        assert names(place / "p") == ["connector-shim", "shim.sock"]
        with pytest.raises(MachineError, match="another runner listens at"):
            AttachedFolder(place / "p").listen(1)
    folder.close()
    assert names(place / "p") == ["connector-shim"]


@pytest.mark.parametrize("name", ["connector-shim", "connector-shim.new", "shim.sock", "shim.sock.new"])
@pytest.mark.parametrize("what", ["link", "dangling", "hard link", "fifo", "file"])
def test_what_a_program_put_there_is_not_followed(place: Path, name: str, what: str) -> None:
    outside = place / "outside"
    outside.write_text("precious")
    outside.chmod(0o600)
    (place / "p").mkdir()
    there = place / "p" / name
    if what == "link":
        there.symlink_to(outside)
    elif what == "dangling":
        there.symlink_to(place / "not-there")
    elif what == "hard link":
        there.hardlink_to(outside)
    elif what == "fifo":
        os.mkfifo(there)
    else:
        there.write_text("mine")
    folder = AttachedFolder(place / "p")
    folder.install(shim_path())
    with folder.listen(1):
        assert stat.S_ISSOCK((place / "p/shim.sock").lstat().st_mode)
        assert (place / "p/connector-shim").read_bytes() == shim_path().read_bytes()
    folder.close()
    assert (outside.read_text(), stat.S_IMODE(outside.stat().st_mode)) == ("precious", 0o600)
    assert not (place / "not-there").exists()


@pytest.mark.parametrize("name", ["connector-shim", "connector-shim.new", "shim.sock", "shim.sock.new"])
def test_what_cannot_be_replaced_is_refused_by_name(place: Path, name: str) -> None:
    (place / "p" / name / "full").mkdir(parents=True)
    folder = AttachedFolder(place / "p")
    with pytest.raises(MachineError, match=rf"the bridge folder {place}/p can.*: .*directory"):
        folder.install(shim_path())
        folder.listen(1)
    folder.close()


def test_a_folder_that_is_a_link_is_refused(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "p").symlink_to(place / "elsewhere")
    with pytest.raises(MachineError, match="cannot be opened"):
        AttachedFolder(place / "p")
    assert names(place / "elsewhere") == []


def test_a_link_to_somebody_elses_socket_is_not_knocked_at(place: Path) -> None:
    (place / "p").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(place / "other"))
        other.listen(1)
        other.settimeout(0)
        (place / "p/shim.sock").symlink_to(place / "other")
        folder = AttachedFolder(place / "p")
        with folder.listen(1), pytest.raises(BlockingIOError):
            other.accept()
        folder.close()


def test_what_a_dead_runner_left_is_swept(place: Path) -> None:
    folder = AttachedFolder(place / "p")
    name, listener = folder.endpoint(1)
    listener.close()
    assert (place / "p" / name).exists()
    folder.listen(1).close()
    assert names(place / "p") == ["shim.sock"]
    folder.close()


# -- strangers


@pytest.mark.parametrize(
    "said", [b"", b"B" + bytes(4), b"H", HELLO[:5], b"H" + struct.pack("<I", 2) + HELLO[5:], HELLO + b"\0x", b"H" * 200]
)
def test_who_does_not_say_hello_is_turned_away(said: bytes) -> None:
    async def test() -> None:
        async with attached() as it:
            with Stranger(it.door, said) as stranger:
                assert await stranger.heard() == b""

    run(test)


def test_a_shim_of_another_version_is_told_of() -> None:
    async def test() -> None:
        async with attached() as it:
            for _ in range(2):
                with Stranger(it.door, b"H" + struct.pack("<I", 9) + HELLO[5:]) as stranger:
                    assert await stranger.heard() == b""
            (warned,) = [event for event in it.events if isinstance(event, Warned)]
            assert "another version (9, not 1) is turned away: restart its container" in warned.message

    run(test)


def test_who_says_nothing_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "_HELLO_S", 0.2)

    async def test() -> None:
        async with attached() as it:
            with Stranger(it.door) as stranger:
                assert await stranger.heard() == b""

    run(test)


def test_a_crowd_is_turned_away_and_told_of_once() -> None:
    async def test() -> None:
        async with attached() as it:
            with contextlib.ExitStack() as stack:
                let_in = 0
                for _ in range(40):
                    stranger = stack.enter_context(Stranger(it.door, HELLO))
                    let_in += await stranger.heard() == b"W"
                assert let_in == 17  # its replica, and those who may stand by
                (warned,) = [event for event in it.events if isinstance(event, Warned)]
                assert "far more shims than it has instances (1) connect at its socket" in warned.message

    run(test)


def test_nonsense_from_one_that_was_let_in_does_no_harm() -> None:
    async def test() -> None:
        async with attached() as it:
            handle = await it.handle()
            with Stranger(it.door, HELLO) as stranger, request_of("true") as request:
                assert await stranger.heard() == b"W"
                starting = asyncio.create_task(handle.start(request))
                assert (await stranger.heard())[:1] == b"S"
                for packet in (b"G" + bytes(4), b"Q", b"X", b"?", b"B", HELLO):
                    stranger.socket.send(packet)
                stranger.socket.close()
                with pytest.raises(ShimLostError):
                    await starting
            await handle.close()

    run(test)


# -- containers that come and go


def test_it_waits_for_a_container_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.launch.attached._SAY_WAIT_AFTER_S", 0.0)

    async def test() -> None:
        async with attached() as it:
            handle = await it.handle()
            with request_of("sleep", "1000") as request:
                starting = asyncio.create_task(handle.start(request))
                await until(lambda: it.events)
                assert handle.waiting == "waiting for a container of `p`"
                shim = it.shims.start("p")
                await starting
                await until(lambda: handle.waiting is None)
                causes = [event.cause for event in it.events if isinstance(event, WaitChanged)]
                assert causes == ["waiting for a container of `p`", None]
                shim.kill()
                exited = await handle.exited()
                assert (exited.code, exited.signal, exited.note) == (None, None, "its container has gone")
                await handle.kill_tree()
                starting = asyncio.create_task(handle.start(request))
                await until(lambda: handle.waiting)
                assert handle.waiting == "waiting for a container of `p` (docker start?)"
                it.shims.start("p")
                await starting
            await handle.close()

    run(test)


def test_a_handle_that_is_closed_while_it_waits() -> None:
    async def test() -> None:
        async with attached() as it:
            handle = await it.handle()
            with request_of("true") as request:
                starting = asyncio.create_task(handle.start(request))
                await until(lambda: handle.waiting)
                await handle.close()
                with pytest.raises(ShimLostError):
                    await starting

    run(test)


def test_one_of_two_that_is_stopped_has_the_grace_period() -> None:
    async def test() -> None:
        async with attached(2) as it:
            handles = [await it.handle() for _ in range(2)]
            shims = [it.shims.start("p") for _ in range(2)]
            with request_of("sh", "-c", "trap '' TERM; while :; do sleep 1; done") as request:
                for handle in handles:
                    await handle.start(request)
            shims[0].terminate()
            ending = [asyncio.create_task(handle.exited()) for handle in handles]
            done, left = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result().note for task in done] == ["its container was stopped"]
            assert len(left) == 1
            assert await asyncio.to_thread(shims[0].wait, LIMIT_S) == 128 + signal.SIGTERM
            assert (shims[1].poll(), it.stops) == (None, [])
            for handle in handles:
                await handle.close()

    run(test)


def test_all_that_work_stopped_together_stop_the_run() -> None:
    async def test() -> None:
        async with attached(2) as it:
            handles = [await it.handle() for _ in range(2)]
            shims = [it.shims.start("p") for _ in range(2)]
            with request_of("sleep", "1000") as request:
                for handle in handles:
                    await handle.start(request)
            for shim in shims:
                shim.terminate()
            await until(lambda: it.stops)
            assert it.stops == ["the containers of all its processors are being stopped"]
            assert [shim.poll() for shim in shims] == [None, None]
            for handle in handles:
                await handle.close()

    run(test)


def test_who_comes_late_is_told_that_the_run_is_over() -> None:
    async def test() -> None:
        async with attached() as it:
            handle = await it.handle()
            shim = it.shims.start("p")
            with request_of("true") as request:
                await handle.start(request)
            shim.kill()
            await asyncio.to_thread(shim.wait, LIMIT_S)
            await handle.exited()
            await handle.close()
            it.launcher.tell_over(7)
            late = it.shims.start("p")
            await it.launcher.close()
            assert await asyncio.to_thread(late.wait, LIMIT_S) == 7

    run(test)
