"""The writing side of a link: what a far runner has not acknowledged is kept, and sent again on the next connection."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Literal

from runner.channel.base import Reader
from runner.channel.link.frames import Ack, Bye, End, Frame, Hello, encode, encode_data
from runner.channel.link.peer import FRAME_BYTES, TIMING, Peer, Timing
from runner.channel.link.transport import Connection, DownError, PromptConnection, RefusedError
from runner.channel.network import Here, Queue
from runner.channel.positions import end_arrived, keep_end_arrived
from runner.codec.base import Batch, Buffer
from runner.errors import RunnerError
from runner.units import format_count

_USUAL_BYTES = 384 << 10
"""So much is sent at once, and what is less a moment later, with what comes until then. What programs write is read by
256 KiB, so two of these make a frame, and none is cut: that would have to look for the end of a message."""

_MOST_TURNS = 8
"""What comes bit by bit, some in each turn of the loop, does not wait for more turns than this."""


class Sender(Peer):
    """Sends what its `Reader` has to one far runner.

    Numbers are those of the reader: gapless within its epoch, which a durable channel has on record and a channel in
    memory makes anew.
    """

    role: Literal["writer", "reader"] = "writer"

    def __init__(
        self, runner: str, queue: Queue, here: Here, *, most_message_bytes: int, timing: Timing = TIMING
    ) -> None:
        super().__init__(runner, queue, here, timing)
        self.reader: Reader = queue.open_reader(self.name)
        self.reader.on_data = self._queued
        self.epoch = self.reader.epoch or secrets.token_hex(8)
        self._most_message_bytes = most_message_bytes
        self._in_memory = queue.store is None
        """Else taking means reading a store, which can fail: not where somebody writes."""
        self._taken = self.acknowledged = self.reader.before
        self._unacknowledged: deque[tuple[int, Batch]] = deque()
        self._to_send: deque[tuple[int, Batch]] = deque()
        self._credit = self._sent_bytes = 0
        self._gathering: asyncio.Handle | None = None
        """What is queued and less than a frame waits until this has run; then it is overdue."""
        self._overdue = False
        self._end_sent = False
        self._end_arrived = end_arrived(queue.store, queue.name, self.name, self.epoch)
        """It is on record, maybe of a run before this one, that the other side has all: then nobody waits for it."""
        self._lives = False
        self._stopping = False

    def open(self) -> None:
        """The run has begun: what comes to the queue, and its end, are of this run."""
        self._lives = True
        self.moved()

    def moved(self) -> None:
        """See `Peer`."""
        if self._lives and self._end_arrived and self._at_end and not self.finished.is_set():
            self.finish()
        super().moved()

    # -- the beginning of a connection

    def hello(self) -> Hello:
        """See `Peer`."""
        return Hello(
            self.here.pipeline,
            self.queue.name,
            self.role,
            self.here.runner,
            self.queue.codec.name,
            epoch=self.epoch,
            acknowledged=self.acknowledged,
            last=self._last,
        )

    @property
    def _last(self) -> int:
        return self._taken + self.reader.queued_messages

    def judge(self, theirs: Hello) -> None:
        """See `Peer`."""
        has = self.acknowledged
        if theirs.epoch == self.epoch:
            if theirs.received > self._last + theirs.ended:
                raise RefusedError(behind(self.queue.name, theirs.received, self._last))
            has = max(has, theirs.received)
        self._credit, self._sent_bytes, self._end_sent = theirs.credit, 0, False
        self._take_up_to(has)
        self._acknowledged_up_to(has)
        self._to_send = deque(self._unacknowledged)
        self._overdue = self.reader.queued_messages > 0
        self.moved()

    def _take_up_to(self, number: int) -> None:
        """What the other side has, and a runner that was killed had not heard of, is not sent again."""
        while self._taken < number:
            batch = self.reader.take(most_messages=number - self._taken)
            if batch is None:
                return  # the rest is the end, which has a number as well
            self._keep(batch)

    def _keep(self, batch: Batch) -> tuple[int, Batch]:
        entry = (self.reader.number, batch)
        self.reader.held += batch.count
        self._taken += batch.count
        self._unacknowledged.append(entry)
        return entry

    # -- what is sent

    async def act(self, connection: Connection) -> None:
        """See `Peer`."""
        while not self.finished.is_set():
            self._wake.clear()
            parts = self._next_frame() if self._due else None
            if parts is None and self._at_end and not self._end_sent:
                await self.queue.committed()  # that all have ended is on record before anybody else knows
                self._end_sent = True
                parts = (encode(End(self._taken + 1)),)
            if parts is not None:
                await connection.send(*parts)
                continue
            if self._acknowledged_all and not self._end_arrived:
                await self._remember()
            self._look_whether_finished()
            if not self.finished.is_set():
                await self._wake.wait()
        final = self._acknowledged_all or self.reader.left
        await connection.send(encode(Bye(self._goodbye, final=final)))
        await connection.finish()

    async def _remember(self) -> None:
        """That all has arrived is on record before the other side, who may go then, is told that we know."""
        keep_end_arrived(self.queue.store, self.queue.name, self.name, self.epoch)
        await self.queue.committed()
        self._end_arrived = True

    @property
    def _goodbye(self) -> str:
        return "all is acknowledged" if self._acknowledged_all else "it was stopped"

    @property
    def _acknowledged_all(self) -> bool:
        return self._at_end and (self._end_arrived or (self._end_sent and self.acknowledged > self._taken))

    @property
    def _at_end(self) -> bool:
        """Whether all that write have ended for good, and everything was sent."""
        reader = self.reader
        return reader.ended and not reader.queued_messages and not self._to_send and self.queue.finished

    def _queued(self) -> None:
        """More is queued, or its end is."""
        if self.reader.ended:
            self.moved()
        elif self.reader.queued_bytes >= _USUAL_BYTES:
            self._send_now(_USUAL_BYTES)
        else:
            self._gather_rest()

    def _gather_rest(self) -> None:
        if not self._overdue and self._gathering is None:
            self._gather(-1, _MOST_TURNS)  # what the next turn brings is always waited for

    def _gather(self, before_bytes: int, turns: int) -> None:
        self._gathering = asyncio.get_running_loop().call_soon(self._gathered, before_bytes, turns - 1)

    def _gathered(self, before_bytes: int, turns: int) -> None:
        self._gathering = None
        queued_bytes = self.reader.queued_bytes
        if turns and before_bytes < queued_bytes < _USUAL_BYTES:
            self._gather(queued_bytes, turns)
        elif self.reader.queued_messages:
            self._overdue = True
            self._send_now(1)

    def _send_now(self, least_bytes: int) -> None:
        """Send what is queued, but for a rest below `least_bytes`, where that needs no waiting; else `act` does it."""
        reader, connection = self.reader, self.connection
        while (
            isinstance(connection, PromptConnection)
            and connection.ready
            and self._in_memory
            and not self._to_send
            and self._sent_bytes < self._credit
            and reader.queued_bytes >= least_bytes
        ):
            entry = self._next()
            if entry is None or self._too_long(entry[1]):
                self._to_send.extend(() if entry is None else (entry,))
                break
            connection.send_now(*self._frame(entry))
        if self._due:
            self.moved()

    @property
    def _due(self) -> bool:
        """Whether what is to be sent does not wait for more."""
        reader = self.reader
        return self._overdue or bool(self._to_send) or reader.ended or reader.queued_bytes >= _USUAL_BYTES

    def _next_frame(self) -> tuple[Buffer, ...] | None:
        """The next messages, as far as there is credit; the last frame may go beyond it."""
        if self._sent_bytes >= self._credit:
            return None
        entry = self._to_send.popleft() if self._to_send else self._next()
        if entry is None:
            return None
        if self._too_long(entry[1]):
            raise RunnerError(
                f"message {entry[0]:,} has {entry[1].size_bytes:,} bytes, and it carries {self._most_message_bytes:,}",
                remedy="give the channel a larger max_message",
            )
        return self._frame(entry)

    def _too_long(self, batch: Batch) -> bool:
        return batch.count == 1 and batch.size_bytes > self._most_message_bytes + FRAME_BYTES

    def _frame(self, entry: tuple[int, Batch]) -> tuple[Buffer, ...]:
        number, batch = entry
        self._sent_bytes += batch.size_bytes
        return encode_data(number, batch)

    def _next(self) -> tuple[int, Batch] | None:
        """What comes next, put together until it is worth a frame."""
        codec, reader = self.queue.codec, self.reader
        batch = reader.take(most_bytes=FRAME_BYTES, most_messages=None if codec.framed else 1)
        if batch is None:
            return None
        number, parts, count, size_bytes = reader.number, batch.parts, batch.count, batch.size_bytes
        while codec.framed and size_bytes < _USUAL_BYTES:
            more = reader.take(most_bytes=FRAME_BYTES - size_bytes, never_over=FRAME_BYTES - size_bytes)
            if more is None:
                break
            parts, count, size_bytes = (*parts, *more.parts), count + more.count, size_bytes + more.size_bytes
        reader.number = number
        self._overdue = self._overdue and bool(reader.queued_messages) and not codec.framed
        if reader.queued_messages and reader.queued_bytes < _USUAL_BYTES:
            self._gather_rest()
        return self._keep(Batch(parts, count, size_bytes))

    # -- what comes

    def take(self, frame: Frame) -> None:
        """See `Peer`."""
        if isinstance(frame, Ack):
            if frame.number > self._taken + self._end_sent:
                raise DownError(f"it acknowledges message {frame.number:,}, which was not sent")
            self._credit = max(self._credit, frame.credit)
            self._acknowledged_up_to(frame.number)
            if self._due:
                self.moved()
        elif isinstance(frame, Bye):
            self.reader.leave(for_good=True)  # nobody there wants any more
            self.finish()
        else:
            raise DownError("it sends what only the writer of a channel may send")

    def _acknowledged_up_to(self, number: int) -> None:
        if number <= self.acknowledged:
            return
        self.acknowledged = number
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            first, batch = self._unacknowledged.popleft()
            done = min(batch.count, number - first + 1)
            if done < batch.count:
                _, rest = self.queue.codec.skip(batch, done)
                self._unacknowledged.appendleft((first + done, rest))
            self.reader.acknowledge(first, done)
            self.reader.held -= done

    # -- its end

    def _look_whether_finished(self) -> None:
        ended = self.reader.ended and not self.reader.queued_messages and not self._unacknowledged
        if self._acknowledged_all or (self._stopping and ended and not self.queue.finished):
            self.finish()

    def connection_lost(self) -> None:
        """See `Peer`: in a stop nobody waits for who is not there."""
        if self._stopping:
            self._stop_without_connection()

    def stop(self) -> None:
        """See `Peer`."""
        self._stopping = True
        self.moved()
        if self.connection is None:
            self._stop_without_connection()

    def _stop_without_connection(self) -> None:
        if self.reader.ended:
            self.finish()
        else:
            self.reader.on_data = self._when_ended

    def _when_ended(self) -> None:
        self.moved()
        if self.connection is None and self.reader.ended:
            self.finish()

    def settle(self) -> None:
        """Nothing more is sent: what was not acknowledged counts as unread."""
        if self._gathering is not None:
            self._gathering.cancel()
        self.reader.account.unread += self.reader.held
        self.reader.held = 0
        self.reader.leave()


def behind(channel: str, received: int, last: int) -> str:
    """The sentence for a writer that has lost what it had sent."""
    return (
        f"the reader of channel `{channel}` has {format_count(received, 'message')} and its writer knows of {last:,}:"
        " the writer's state is older than what it has sent; start both over with --fresh"
    )
