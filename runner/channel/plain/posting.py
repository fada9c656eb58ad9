"""A client that posts what is written to a URL, until it is taken: at least once, and always with the same key.

The `Idempotency-Key` of a request is made of the channel's epoch and the numbers of its messages. So that the same
messages are in the same request for ever, where a request ends is on record before it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from runner.channel.base import Reader
from runner.channel.link.reasons import reason
from runner.channel.network import Queue, far_name
from runner.channel.plain.base import Host, Meeting, Peer, PlainEnd
from runner.channel.plain.bounds import BOUNDS, Bounds
from runner.channel.plain.http import MANY, headers_of, is_passing, retry_after_s, said, session_of
from runner.channel.plain.web import base_url
from runner.channel.positions import Position, keep_position, position_of
from runner.codec.base import EMPTY, Batch
from runner.errors import RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientSession

_ONE = "application/octet-stream"


class PostingMeeting(Meeting):
    """One URL; nobody comes from there."""

    def __init__(self, network: Network) -> None:
        self.address = base_url(network, "http") + network.path

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        host.tell(None)
        await asyncio.get_running_loop().create_future()


class PostingSender(PlainEnd):
    """See the module."""

    writes = False

    def __init__(self, queue: Queue, network: Network, bounds: Bounds = BOUNDS) -> None:
        super().__init__(queue, network, PostingMeeting(network), bounds)
        self.reader: Reader = queue.open_reader(far_name(""))
        self.reader.on_data = self.changed.set
        self._epoch = self.reader.epoch or secrets.token_hex(8)
        self._acknowledged = self.reader.before
        self._waiting: tuple[int, Batch] | None = None
        """What is to be taken next; where it ends is on record."""
        self._down: str | None = None
        self._stopping = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """See `FarEnd`."""
        return None if self._down is None else f"nothing is taken at {self.meeting.address}: {self._down}"

    def begin(self) -> None:
        """See `PlainEnd`."""

    async def talk(self, peer: Peer) -> None:
        """See `PlainEnd`: there is none."""
        del peer

    def stop(self) -> None:
        """See `FarEnd`."""
        self._stopping.set()
        self.changed.set()

    async def work(self) -> None:
        """See `PlainEnd`."""
        async with session_of(self.network, self.bounds) as session:
            while not self._done:
                self.changed.clear()
                waiting = self._waiting or await self._take()
                given_up = self._stopping.is_set() and self._down is not None
                if waiting is None or given_up or not await self._all_taken(session, *waiting):
                    await self.changed.wait()

    @property
    def _done(self) -> bool:
        """Whether all is taken, or, in a stop, nothing is."""
        if not self.reader.ended:
            return False
        nothing = self._waiting is None and not self.reader.queued_messages
        return nothing or (self._stopping.is_set() and self._down is not None)

    # -- which messages are in a request

    async def _take(self) -> tuple[int, Batch] | None:
        """What is in the next request; None: nothing is there."""
        store, channel = self.queue.store, self.queue.name
        first = self._acknowledged + 1
        position = position_of(store, channel, far_name(""))
        if position.epoch == self._epoch and position.number >= first:
            batch = self._these(position.number - first + 1)
        else:
            most = None if self.queue.codec.framed else 1
            batch = self.reader.take(most_bytes=self.bounds.batch_bytes, most_messages=most) or EMPTY
            if batch.count:
                keep_position(store, channel, far_name(""), Position(self._epoch, first + batch.count - 1))
        if not batch.count:
            return None
        self.reader.held += batch.count
        self._waiting = (first, batch)
        await self.queue.committed()
        return self._waiting

    def _these(self, count: int) -> Batch:
        """The next messages, as many as were in a request of an earlier run; all of them are stored."""
        batch = EMPTY
        while batch.count < count and (more := self.reader.take(most_messages=count - batch.count)) is not None:
            batch = Batch((*batch.parts, *more.parts), batch.count + more.count, batch.size_bytes + more.size_bytes)
        return batch

    # -- until it is taken

    async def _all_taken(self, session: ClientSession, number: int, batch: Batch) -> bool:
        """Whether it came to that. Raises RunnerError for an answer that no other try changes."""
        payloads = self.queue.codec.payloads(batch)
        last = number + batch.count - 1
        if all(b"\n" not in payload and payload.strip() for payload in payloads):
            requests = [(b"".join(payload + b"\n" for payload in payloads), MANY[0], f"{number}-{last}")]
        else:  # an empty line would be no message, and a line with a newline inside would be two
            requests = [(payload, _ONE, f"{number + index}") for index, payload in enumerate(payloads)]
        for body, content_type, numbers in requests:
            if not await self._taken(session, body, content_type, numbers):
                return False
        self._acknowledged = last
        self._waiting = None
        self.reader.held -= batch.count
        self.reader.acknowledge(number, batch.count)
        return True

    async def _taken(self, session: ClientSession, body: bytes, content_type: str, numbers: str) -> bool:
        """Whether one request was taken; not only where the run is being stopped."""
        headers = headers_of(
            self.network, **{"Content-Type": content_type, "Idempotency-Key": f"{self._epoch}-{numbers}"}
        )
        wait_s = self.bounds.first_wait_s
        while True:
            self.tried()
            self._down, asked = await self._try(session, body, headers, numbers)
            if self._down is None:
                self._tries = 0
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry_after_s(asked, wait_s, self.bounds)):
                    await self._stopping.wait()
                return False
            wait_s = min(2 * wait_s, self.bounds.longest_wait_s)

    async def _try(
        self, session: ClientSession, body: bytes, headers: dict[str, str], numbers: str
    ) -> tuple[str | None, str | None]:
        """(Why it was not taken, `Retry-After`). Raises RunnerError."""
        import aiohttp

        url = self.meeting.address
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                if 200 <= answer.status < 300:
                    return None, None
                text = await said(answer)
                if is_passing(answer.status):
                    return f"it answers with {text}", answer.headers.get("Retry-After")
        except TimeoutError:
            return f"no answer within {self.bounds.answer_s:g} s", None
        except (OSError, aiohttp.ClientError) as error:
            return reason(getattr(error, "os_error", error)), None
        raise RunnerError(
            f"{url} refuses message {numbers.replace('-', ' to ')} with {text}",
            remedy="what it refuses stays first in line: mend what the server wants, or the messages",
        )

    def settle(self) -> None:
        """See `PlainEnd`."""
        self.reader.account.unread += self.reader.held
        self.reader.held = 0
        self.reader.leave()
