"""A channel that ends in a file: what is committed in it is put to the end of the file, each message once.

It is a durable channel whose one reader is the file. What was put there, how far the file goes and which file it is are
committed together; whatever is behind that in the file after a crash was not, and is cut off and put there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from runner.channel.base import Outside
from runner.channel.durable import DurableChannel
from runner.channel.file_disk import OutFile
from runner.channel.file_kept import FILE, keep, kept_of
from runner.channel.file_plan import Kept
from runner.codec.base import Batch
from runner.codec.delimited import DelimitedCodec
from runner.codec.registry import codec_named
from runner.errors import RunnerError
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Durability
from runner.store.store import Store

MOST_APPENDED_BYTES = 1 << 20
Result = TypeVar("Result")
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0
_NO_MORE = Batch((), 0, 0)


class FileSink(DurableChannel):
    """See the module. `now` is wall-clock time, by which files are exchanged.

    Raises RunnerError when the file cannot be gone on with.
    """

    kind = "file"

    def __init__(self, spec: ChannelSpec, store: Store, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(spec, store)
        assert spec.file is not None
        self._rotation = spec.file.rotation
        self._codec = codec_named(spec.file.codec)
        self._now = now
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._trouble: str | None = None
        self._file = OutFile(spec.file.path, spec.name, sync=spec.durability is Durability.DISK)
        self._threads = ThreadPoolExecutor(1, f"file-{spec.name}")
        try:
            delimiter = self._codec.delimiter if isinstance(self._codec, DelimitedCodec) else None
            self._kept = self._file.open(kept_of(store, spec.name), now(), delimiter)
        except BaseException:
            self.close()
            raise
        self._keep(self._kept)
        self._reader = self.open_reader(FILE, self._codec)
        self._reader.outside = True
        self._reader.on_data = self._wake.set

    @property
    def trouble(self) -> str | None:
        """See `DurableChannel`; also when the file cannot be written."""
        return super().trouble or self._trouble

    def _keep(self, kept: Kept) -> None:
        self._kept = kept
        keep(self.store.transaction, self.name, kept)

    async def live(self, outside: Outside) -> None:
        """See `Channel`: put messages into the file until all writers have ended and all is there."""
        try:
            await self._flush()  # nothing is put behind a length that is not on record
            while not self._over.is_set():
                await self._exchange_by_time(outside)
                batch, number = self._next()
                if batch.count:
                    await self._put(batch, number, outside)
                elif self._reader.ended and not self._reader.queued_messages:
                    return
                else:
                    await self._wait()
        except RunnerError as error:
            outside.fail(f"channel `{self.name}`: {error}")
        finally:
            self._reader.account.unread += self._reader.held
            self._reader.held = 0

    def abandon(self) -> None:
        """See `Channel`; what is not in the file stays in the store."""
        self._over.set()
        self._wake.set()
        self._reader.leave()

    def _next(self) -> tuple[Batch, int]:
        """What is committed and not in the file yet, and the number of its first message."""
        batch = self._reader.take()
        if batch is None:
            return _NO_MORE, 0
        number, parts, count, size_bytes = self._reader.number, batch.parts, batch.count, batch.size_bytes
        while size_bytes < MOST_APPENDED_BYTES and (batch := self._reader.take()) is not None:
            parts, count, size_bytes = (*parts, *batch.parts), count + batch.count, size_bytes + batch.size_bytes
        self._reader.held += count
        return Batch(parts, count, size_bytes), number

    async def _wait(self) -> None:
        """Until there may be more to do."""
        self._wake.clear()
        due_s = self._due_s()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self._now())):
                await self._wake.wait()

    async def _put(self, batch: Batch, number: int, outside: Outside) -> None:
        """All of it, into one file or several."""
        while batch.count and not self._over.is_set():
            head, rest = self._fitting(batch)
            if not head.count:
                await self._exchange(outside)
                continue
            append = partial(self._file.append, self._kept, head.joined(), self._now())
            appended = await self._keep_trying(append, outside)
            if appended is None:
                return
            self._keep(appended)
            self._reader.acknowledge(number, head.count)
            self._reader.held -= head.count
            number += head.count
            batch = rest

    def _fitting(self, batch: Batch) -> tuple[Batch, Batch]:
        """What of `batch` goes into the current file; one message always goes into an empty one."""
        most_bytes, length_bytes = self._rotation.size_bytes, self._kept.length_bytes
        if most_bytes is None or length_bytes + batch.size_bytes <= most_bytes:
            return batch, _NO_MORE
        head, rest = self._codec.cut(batch, most_bytes=max(0, most_bytes - length_bytes), most_messages=batch.count)
        if length_bytes and length_bytes + head.size_bytes > most_bytes:
            return _NO_MORE, batch
        return head, rest

    # -- exchanging a full file

    def _due_s(self) -> float | None:
        """When the current file is full by its age; None: never, or not while it is empty."""
        every_s, begun_at_s = self._rotation.every_s, self._kept.begun_at_s
        return begun_at_s + every_s if every_s is not None and begun_at_s and self._kept.length_bytes else None

    async def _exchange_by_time(self, outside: Outside) -> None:
        due_s = self._due_s()
        if due_s is not None and self._now() >= due_s:
            await self._exchange(outside)

    async def _exchange(self, outside: Outside) -> None:
        """The file is full: give it its number, and begin another. What is to be done is on record before it is."""
        await self._flush()
        for step in (self._file.prepare, self._file.exchange):
            if self._over.is_set():
                return
            done = await self._keep_trying(partial(step, self._kept), outside)
            if done is None:
                return
            self._keep(done)
            await self._flush()
        if self._rotation.keep is not None:
            try:
                await self._in_thread(partial(self._file.remove_old, self._kept.generation, self._rotation.keep))
            except OSError as error:
                outside.warn(f"channel `{self.name}` cannot delete its oldest files: {error}")

    async def _flush(self) -> None:
        """Until everything is committed that was put on record; or until it is too late."""
        flushed = asyncio.ensure_future(self.store.flush())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((flushed, over), return_when=asyncio.FIRST_COMPLETED)
            if flushed.done():
                flushed.result()
        finally:
            flushed.cancel()
            over.cancel()

    async def _in_thread(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def _keep_trying(self, act: Callable[[], Result], outside: Outside) -> Result | None:
        """The result of `act`, which is tried again while the system refuses; None: it is too late.

        Meanwhile writers wait, once the channel is full. Raises RunnerError.
        """
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = await self._in_thread(act)
            except OSError as error:
                why = f"cannot write {self._file.path}: {os.strerror(error.errno or 0).lower()}"
                if why != self._trouble:
                    self._trouble = why
                    outside.warn(f"channel `{self.name}` {why}; it is tried again")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._over.wait()
                if self._over.is_set():
                    return None
                wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            else:
                if self._trouble is not None:
                    self._trouble = None
                    outside.warn(f"channel `{self.name}`: {self._file.path} is written again")
                return result

    def close(self) -> None:
        """See `Channel`."""
        self._threads.shutdown()
        self._file.close()
