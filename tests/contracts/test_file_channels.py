"""File channels against a model: whatever is published, and wherever the runner dies, each message is there once."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from runner.channel.base import Outside
from runner.channel.file_disk import OutFile
from runner.channel.file_kept import kept_of
from runner.channel.file_plan import Kept, Step, full_number
from runner.channel.file_sink import FileSink
from runner.channel.file_source import FileSource
from runner.codec.registry import codec_named
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Durability, FileEnd, Rotation
from runner.store import Store
from tests.contracts.test_channels import CODECS, contents, messages

NAME = "out"
LIMIT_S = 10.0


class Crash(Exception):  # noqa: N818 - nobody's error: the process is gone
    """The runner dies here."""


class Fuse:
    """Kills at the so-and-so-many-th moment at which the files are different; None: never."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash


class MortalFile(OutFile):
    """An `OutFile` whose process may die between any two of its calls to the system, and in the midst of a write."""

    fuse: Fuse
    on_record: Callable[[], Kept | None]
    """What a crash would leave on record."""

    def _do(self, step: Step, kept: Kept) -> None:
        self.fuse.burn()
        super()._do(step, kept)
        self.fuse.burn()

    def append(self, kept: Kept, data: bytes, now_s: float) -> Kept:
        record = self.on_record()
        assert record is not None, "nothing is put into a file that is not on record"
        assert (record.inode, record.next_inode) == (kept.inode, None), "what is behind it would not be cut off"
        self.fuse.burn()
        before = self._tail
        if self.fuse.left == 0:
            super().append(kept, data[: len(data) // 2], now_s)  # torn
            self.fuse.burn()
            self._tail = before
        appended = super().append(kept, data, now_s)
        self.fuse.burn()
        return appended

    def exchange(self, kept: Kept) -> Kept:
        assert self.on_record() == kept, "what is being done would not be known"
        return super().exchange(kept)

    def prepare(self, kept: Kept) -> Kept:
        assert self.on_record() == kept, "all that is in a full file is committed"
        self.fuse.burn()
        prepared = super().prepare(kept)
        self.fuse.burn()
        return prepared


def files_of(folder: Path) -> list[Path]:
    """The full files and the current one, in order."""
    found = {each: full_number(NAME, each.name) for each in folder.iterdir()}
    full = sorted((number, each) for each, number in found.items() if number is not None)
    return [each for _, each in full] + [folder / NAME]


class SinkMachine(RuleBasedStateMachine):
    """One writer, one file that is exchanged when it is full; a crash at any moment."""

    @initialize(
        writing=st.sampled_from(CODECS),
        framed=st.sampled_from(CODECS),
        most_bytes=st.none() | st.integers(1, 40),
        sync=st.booleans(),
        before=messages,
    )
    def begin(self, writing: str, framed: str, most_bytes: int | None, *, sync: bool, before: list[bytes]) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="connector-files-"))
        (self.folder / "files").mkdir()
        self.fuse = Fuse()
        self.codec, self.framed = codec_named(writing), codec_named(framed)
        durability = Durability.DISK if sync else Durability.PROCESS
        file = FileEnd(self.folder / "files" / NAME, framed, Rotation(most_bytes))
        self.spec = ChannelSpec("c", "file", 1000, writers=("w",), durability=durability, file=file)
        self.sent = [codec_named(framed).encode(each) for each in before]
        if before:
            file.path.write_bytes(b"".join(self.sent))
        self.published: list[bytes] = []
        self.safe = 0
        """How many of the published are committed for certain."""
        self._open()

    def _open(self) -> None:
        self.store = Store.open(
            self.folder / "state", sync=self.spec.durability is Durability.DISK, capacity_bytes={"c": 1000}
        )
        self.loop.run_until_complete(self._join())

    async def _join(self) -> None:
        self.channel = FileSink(self.spec, self.store)
        store = self.store
        self.channel._file = _mortal(self.channel._file, self.fuse, lambda: kept_of(store, "c"))
        self.writer = self.channel.open_writer("w", self.codec)
        came = self.writer.carried
        assert self.safe <= came <= len(self.published), "what was committed is there"
        del self.published[came:]
        self.failed: list[str] = []
        self.living = asyncio.create_task(self.channel.live(Outside(self.failed.append, _never, _never)))

    def _do(self, act: Callable[[], object]) -> None:
        async def run() -> None:
            act()

        self.loop.run_until_complete(run())

    @rule(sent=messages.filter(bool))
    def publish(self, sent: list[bytes]) -> None:
        self.published += [self.framed.encode(each) for each in sent]
        self._do(lambda: self.writer.publish(self.codec.batch_of(sent)))

    @rule()
    def settle(self) -> None:
        """Let it put into the file all that it has; it may die at it."""

        async def settled() -> None:
            reader = self.channel._reader
            while not self.living.done() and (reader.queued_messages or reader.held):  # noqa: ASYNC110 - no such event
                await asyncio.sleep(0)
            await self.store.flush()

        self.loop.run_until_complete(settled())
        if self.living.done():
            assert isinstance(self.living.exception(), Crash), self.living.exception()
            self._bury()
            return
        self.safe = len(self.published)
        self._compare(self.safe)

    @rule(moments=st.integers(0, 20))
    def light_the_fuse(self, moments: int) -> None:
        self.fuse.left = moments

    @rule(turns=st.integers(0, 6))
    def crash(self, turns: int) -> None:
        """In the midst of whatever it does."""

        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())
        self._bury()

    def _bury(self) -> None:
        """It is dead: what was being committed is, or is not; nothing else is left of it."""
        self.fuse.left = None
        assert not self.failed, self.failed
        self.living.cancel()
        self.loop.run_until_complete(asyncio.gather(self.living, return_exceptions=True))
        self.channel.close()
        self.store.close()
        self._open()

    @precondition(lambda self: hasattr(self, "loop"))
    @rule()
    def end(self) -> None:
        """All writers end: all of it is there, and the ledger is even. Then another run begins."""
        self.fuse.left = None
        if self.living.done():
            self._bury()
        self._do(self.writer.end)
        self.loop.run_until_complete(self.living)
        account = self.channel._reader.account
        assert account.carried + self.channel.written == account.acknowledged
        self.loop.run_until_complete(self.store.flush())
        self.safe = len(self.published)
        self._compare(self.safe)
        self.living = self.loop.create_task(asyncio.sleep(0))
        self._bury()

    def _compare(self, count: int) -> None:
        """What is in the files is what was there before, and each of the first `count` published messages once."""
        files = files_of(self.folder / "files")
        found = [each.read_bytes() for each in files]
        assert b"".join(found) == b"".join(self.sent + self.published[:count])
        assert self.spec.file is not None
        most = self.spec.file.rotation.size_bytes
        for data in found:
            if most is None:
                continue
            whole = self.framed.decoder(1000)
            count_here = whole.feed(data).count
            assert not whole.pending_bytes, "no message is torn by an exchange"
            assert len(data) <= most or count_here == 1 or data.startswith(b"".join(self.sent) or b"?")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.fuse.left = None
            self.living.cancel()
            self.loop.run_until_complete(asyncio.gather(self.living, return_exceptions=True))
            self.channel.close()
            self.store.close()
            self.loop.close()
            shutil.rmtree(self.folder)


def _mortal(file: OutFile, fuse: Fuse, on_record: Callable[[], Kept | None]) -> OutFile:
    file.__class__ = MortalFile
    assert isinstance(file, MortalFile)
    file.fuse, file.on_record = fuse, on_record
    return file


def _never(said: str) -> None:
    raise AssertionError(said)


TestSink = SinkMachine.TestCase
TestSink.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


class SourceMachine(RuleBasedStateMachine):
    """A file that is written, exchanged and copied while it is read; a crash of the reader at any moment."""

    @initialize(framed=st.sampled_from(CODECS), reading=st.sampled_from(CODECS), sync=st.booleans())
    def begin(self, framed: str, reading: str, *, sync: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="connector-files-"))
        self.path = self.folder / NAME
        self.framed, self.reading = codec_named(framed), codec_named(reading)
        durability = Durability.DISK if sync else Durability.PROCESS
        file = FileEnd(self.path, framed, follow=True)
        self.spec = ChannelSpec("c", "file", 100, readers=("r",), durability=durability, file=file)
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.unread = b""
        self.full = 0
        self.ticks = 1_000_000_000
        self.path.touch()
        self._tick(self.path)
        self._open()
        self.loop.run_until_complete(self._until(lambda: self.store.get("files", b"c") is not None))

    def _open(self) -> None:
        self.store = Store.open(
            self.folder / "state", sync=self.spec.durability is Durability.DISK, capacity_bytes={"c": 100}
        )
        self.loop.run_until_complete(self._join())

    async def _join(self) -> None:
        self.channel = FileSource(self.spec, self.store, look_every_s=0)
        self.reader = self.channel.open_reader("r", self.reading)
        self.failed: list[str] = []
        told = Outside(self.failed.append, self.failed.append, _never)
        self.store.on_freed = lambda _channel: self.channel.room()
        self.living = asyncio.create_task(self.channel.live(told))

    def _write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self._tick(self.path)

    def _tick(self, path: Path) -> None:
        """Times that are apart, whatever the clock of this machine does."""
        self.ticks += 1_000_000_000
        os.utime(path, ns=(self.ticks, self.ticks))

    @rule(sent=messages.filter(bool), torn=st.integers(0, 5))
    def write(self, sent: list[bytes], torn: int) -> None:
        """Whole messages, and perhaps not all of the last one yet; none is the same as another."""
        sent = [b"%d %b" % (len(self.sent) + number, each) for number, each in enumerate(sent)]
        self.sent += sent
        data = self.unread + b"".join(self.framed.encode(each) for each in sent)
        torn = min(torn, len(data))
        self._write(data[: len(data) - torn])
        self.unread = data[len(data) - torn :]

    def _whole(self) -> None:
        if self.unread:
            self._write(self.unread)
            self.unread = b""

    @precondition(lambda self: self.path.exists())
    @rule()
    def rename(self) -> None:
        """As logrotate does with `create`, and as file channels do."""
        self._whole()
        self.full += 1
        self.path.rename(self.path.with_name(f"{NAME}.{self.full:06d}"))

    @precondition(lambda self: self.path.exists())
    @rule()
    def shift(self) -> None:
        """As logrotate names them: 1 is the youngest."""
        self._whole()
        plain = sorted(
            (each for each in self.folder.iterdir() if each.name.startswith(f"{NAME}.") and len(each.suffix) < 7),
            key=lambda each: -int(each.suffix[1:]),
        )
        for each in plain:
            each.rename(each.with_name(f"{NAME}.{int(each.suffix[1:]) + 1}"))
        self.path.rename(self.path.with_name(f"{NAME}.1"))

    @precondition(lambda self: self.path.exists() and self.path.stat().st_size > 0)
    @rule()
    def copy_and_cut(self) -> None:
        """As logrotate does with `copytruncate`; all was read before."""
        self._whole()
        self.settle()
        self.full += 1
        copy = self.path.with_name(f"{NAME}.{self.full:06d}")
        shutil.copy(self.path, copy)
        self._tick(copy)
        with self.path.open("r+b") as file:
            file.truncate(0)
        self._tick(self.path)

    @rule()
    def settle(self) -> None:
        """All that is whole is read."""
        complete = self._complete()
        self.loop.run_until_complete(self._until(lambda: len(self.got) >= complete))
        assert self.got == self.sent[:complete]

    def _complete(self) -> int:
        """How many messages are whole in the files."""
        missing, left = 0, len(self.unread)
        for each in reversed(self.sent):
            if left <= 0:
                break
            missing, left = missing + 1, left - len(self.framed.encode(each))
        return len(self.sent) - missing

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                assert not self.failed, self.failed
                batch = self.reader.take()
                if batch is not None:
                    self.got += contents(self.reading, batch)
                    self.reader.acknowledge(self.reader.number, batch.count)
                await asyncio.sleep(0.0005)

    @rule(turns=st.integers(0, 6))
    def crash(self, turns: int) -> None:
        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())
        self._bury()
        acknowledged = self.reader._cursor.acknowledged
        assert acknowledged <= len(self.got)
        del self.got[acknowledged:]

    def _bury(self) -> None:
        self.living.cancel()
        self.loop.run_until_complete(asyncio.gather(self.living, return_exceptions=True))
        self.channel.close()
        self.store.close()
        self._open()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self._whole()
            self.settle()
            self.living.cancel()
            self.loop.run_until_complete(asyncio.gather(self.living, return_exceptions=True))
            self.channel.close()
            self.store.close()
            self.loop.close()
            shutil.rmtree(self.folder)


TestSource = SourceMachine.TestCase
TestSource.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
