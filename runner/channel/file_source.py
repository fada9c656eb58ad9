"""A channel that begins in a file: its messages are put into the store, each once, with how far the file was read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runner.channel.base import Outside
from runner.channel.durable import DurableChannel, DurableWriter
from runner.channel.durable_keys import ENDS, key_of
from runner.channel.file_disk import cannot
from runner.channel.file_kept import FILE, keep, kept_of
from runner.channel.file_plan import Kept
from runner.channel.file_tail import InFile
from runner.codec.base import Batch, Decoder
from runner.codec.registry import codec_named
from runner.errors import CodecError, RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.store.store import Store

LOOK_EVERY_S = 0.1
"""How often a file that is followed is looked at when all of it is read."""
Result = TypeVar("Result")


class FileSource(DurableChannel):
    """See the module. It is a durable channel whose one writer is the file.

    Raises RunnerError when the file cannot be read, or is not the one that was read before.
    """

    kind = "file"

    def __init__(self, spec: ChannelSpec, store: Store, *, look_every_s: float = LOOK_EVERY_S) -> None:
        super().__init__(spec, store)
        assert spec.file is not None
        self._spec = spec.file
        self._codec = codec_named(spec.file.codec)
        self._look_every_s = look_every_s
        self.expect_writer()
        self._stopped = False
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(1, f"file-{spec.name}")
        self._decoder = self._codec.decoder(spec.file.max_message_bytes)
        self._file = InFile(spec.file.path, spec.name, follow=spec.file.follow)
        self._ended_before = store.get(ENDS, key_of(spec.name, FILE)) is not None
        self._when_ended: list[Callable[[], None]] = []
        if not self._ended_before:
            try:
                self._file.open(kept_of(store, spec.name))
            except OSError as error:
                self.close()
                raise cannot(self._file.path, error, what="cannot be read") from error
            except BaseException:
                self.close()
                raise
        self.on_readers_left(self._wake.set)

    def on_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` when nothing more comes from the file."""
        self._when_ended.append(callback)

    async def live(self, outside: Outside) -> None:
        """See `Channel`: put the file's messages into the store, to its end or until the run is stopped."""
        writer = self.expected_writer(FILE, self._codec)
        whole = self._ended_before
        try:
            if not whole:
                whole = await self._move(writer, outside)
        except CodecError as error:
            where = f"file {self._file.path}, byte {self._file.kept.length_bytes:,}"
            outside.stop(f"channel `{self.name}`: {where}: {error}")
        except OSError as error:
            outside.stop(f"channel `{self.name}`: {cannot(self._file.path, error, what='cannot be read')}")
        except RunnerError as error:
            outside.stop(f"channel `{self.name}`: {error}")
        finally:
            writer.end(for_good=whole)
            for callback in self._when_ended:
                callback()

    def stop(self) -> None:
        """See `Channel`."""
        self._stopped = True
        self._wake.set()

    def abandon(self) -> None:
        """See `Channel`."""
        self.stop()

    async def _move(self, writer: DurableWriter, outside: Outside) -> bool:
        """Whether it has come to the end of the file, or nobody wants more of it. Raises RunnerError and OSError."""
        on_record = False
        while not self._stopped and writer.wanted:
            if self._file.opened and not on_record:
                self._keep(self._file.kept)  # before anything is taken: it may be exchanged before that
                on_record = True
            if writer.full:
                await self._room(writer)
                continue
            data = await self._in_thread(self._file.read)
            if data:
                self._take(writer, data)
            elif not self._spec.follow:
                self._last(writer)
                return True
            elif not await self._moved_on(writer, outside):
                await self._wait(self._look_every_s)
        return self.forsaken

    def _take(self, writer: DurableWriter, data: bytes) -> None:
        """Publish what is whole now. Raises CodecError; what was good before it is published."""
        try:
            batch = self._decoder.feed(data)
        except CodecError:
            self._publish(writer, self._decoder.rescued())
            raise
        self._publish(writer, batch)

    def _publish(self, writer: DurableWriter, batch: Batch, *, added_bytes: int = 0) -> None:
        """Publish `batch` and how far the file is read with it; `added_bytes` of it are not in the file."""
        if not batch.count:
            return
        refused: CodecError | None = None
        try:
            writer.publish(batch)
        except CodecError as error:
            batch, _ = self._codec.skip(batch, error.index)
            refused = error
        there = batch.joined()
        self._keep(self._file.took(there[: len(there) - added_bytes] if refused is None else there))
        if refused is not None:
            raise refused

    def _keep(self, kept: Kept) -> None:
        keep(self.store.transaction, self.name, kept)

    def _last(self, writer: DurableWriter) -> None:
        """The file has come to its end: what is left of it is a message, or none. Raises CodecError."""
        left_bytes = self._decoder.pending_bytes
        batch = self._decoder.finish(clean=True)
        self._publish(writer, batch, added_bytes=batch.size_bytes - left_bytes)

    async def _moved_on(self, writer: DurableWriter, outside: Outside) -> bool:
        """Whether there is something to read after all: the file was exchanged, or cut short."""
        if await self._in_thread(lambda: self._file.cut_short):
            self._decoder = self._fresh_decoder()
            if not await self._in_thread(self._file.go_on_elsewhere):
                outside.warn(
                    f"channel `{self.name}`: {self._file.path} was cut short, and there is no copy of it: what was"
                    " written to it last may be missing; it is read from its beginning"
                )
            self._keep(self._file.kept)
            return True
        if not await self._in_thread(self._file.leave):
            return False
        self._last(writer)
        self._decoder = self._fresh_decoder()
        await self._in_thread(self._file.go_on)
        self._keep(self._file.kept)
        return True

    def _fresh_decoder(self) -> Decoder:
        return self._codec.decoder(self._spec.max_message_bytes)

    async def _room(self, writer: DurableWriter) -> None:
        self._wake.clear()
        writer.when_room(self._wake.set)
        await self._wake.wait()

    async def _wait(self, most_s: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._wake.wait()

    async def _in_thread(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    def close(self) -> None:
        """See `Channel`."""
        self._threads.shutdown()
        self._file.close()
