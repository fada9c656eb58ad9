"""A client that reads what a URL streams: lines, or server-sent events (HTML, 9.2), from the last that it has on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from runner.channel.link.reasons import reason
from runner.channel.link.transport import DownError
from runner.channel.network import Queue
from runner.channel.plain.base import Host, Meeting, Peer, dial
from runner.channel.plain.bounds import Bounds
from runner.channel.plain.carried import leading
from runner.channel.plain.events import Event, Events
from runner.channel.plain.http import EVENTS, MANY, headers_of, is_passing, said, session_of
from runner.channel.plain.web import base_url
from runner.channel.positions import TABLE
from runner.codec.base import Batch, Codec
from runner.codec.lines import LINES
from runner.errors import CodecError, RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_MARK = b"\xef\xbb\xbf"


class LastEvent:
    """The id of the last event that is in the channel; where that is stored it is committed with the message."""

    def __init__(self, queue: Queue) -> None:
        self._store = queue.store
        self._key = f"{queue.name}\0event".encode()
        stored = None if self._store is None else self._store.get(TABLE, self._key)
        self.id: str | None = None if stored is None else stored.decode(errors="replace")

    def keep(self, event_id: str) -> None:
        """In the same callback as the message is published."""
        self.id = event_id
        if self._store is not None:
            self._store.transaction.put(TABLE, self._key, event_id.encode())


class StreamingPeer(Peer):
    """The answer to one GET, as it comes."""

    goes_on = True

    def __init__(self, answer: ClientResponse, network: Network, codec: Codec, last: LastEvent, bounds: Bounds) -> None:
        self.remote = str(answer.url)
        self._answer = answer
        self._codec = codec
        self._last = last
        most_bytes = network.max_message_bytes
        self._lines = LINES.decoder(most_bytes)
        self._events: Events | None = None
        if answer.content_type == EVENTS:
            self._events = Events(most_bytes, bounds.event_id_bytes, last.id)
        self._found: deque[Event] = deque()
        self._taken_id: str | None = None
        self._first = True
        self._ended = False
        self._bad: CodecError | None = None

    async def read(self) -> Batch | None:
        """See `Peer`."""
        while not self._found:
            if self._bad is not None:
                self.goes_on = False  # nobody knows where the next line begins
                raise self._bad
            if self._ended:
                return None
            await self._more()
        payloads = []
        for event in self._found:
            if isinstance(event.data, CodecError):
                break
            payloads.append(event.data)
        try:
            if isinstance(self._found[0].data, CodecError):
                raise self._found[0].data
            batch = leading(self._codec, payloads)
        except CodecError:
            self._taken_id = self._found.popleft().last_id
            self.taken()  # it is refused, and not to come again
            raise
        for _ in range(batch.count):
            self._taken_id = self._found.popleft().last_id
        return batch

    async def _more(self) -> None:
        """Read once, and find what messages that makes whole."""
        import aiohttp

        try:
            data = await self._answer.content.readany()
        except (OSError, aiohttp.ClientError) as error:
            raise DownError(reason(error)) from error
        self._ended = not data
        if self._events is not None:
            self._found.extend(self._events.feed(data))
            return
        try:
            lines = self._lines.feed(data) if data else self._lines.finish(clean=True)
        except CodecError as error:
            self._bad, lines = error, self._lines.rescued()
        for line in LINES.payloads(lines):
            payload = line.removeprefix(_MARK) if self._first else line
            self._first = False
            if payload.strip():
                self._found.append(Event(payload, None))

    def taken(self) -> None:
        """See `Peer`."""
        if self._taken_id is not None and self._taken_id != self._last.id:
            self._last.keep(self._taken_id)

    async def finish(self) -> None:
        """See `Peer`."""
        self.close()

    def close(self) -> None:
        """See `Peer`."""
        self._answer.close()


class StreamingMeeting(Meeting):
    """A URL that is asked for what it has, again when its answer has ended."""

    def __init__(self, network: Network, queue: Queue) -> None:
        self._network = network
        self._codec = queue.codec
        self.address = base_url(network, "http") + network.path
        self._last = LastEvent(queue)

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        async with session_of(self._network, host.bounds) as session:
            await dial(lambda: self._get(session, host.bounds), host)

    async def _get(self, session: ClientSession, bounds: Bounds) -> Peer:
        import aiohttp

        headers = headers_of(self._network, Accept=f"{EVENTS}, {MANY[0]}, */*")
        if self._last.id is not None:
            headers["Last-Event-ID"] = self._last.id
        try:
            async with asyncio.timeout(bounds.answer_s):
                answer = await session.get(
                    self.address,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(sock_connect=bounds.connect_s),
                    allow_redirects=False,
                )
        except TimeoutError as error:
            raise DownError(str(error).lower() or f"no answer within {bounds.answer_s:g} s") from error
        except (OSError, aiohttp.ClientError) as error:
            raise DownError(reason(getattr(error, "os_error", error))) from error
        packed = answer.headers.get("Content-Encoding", "identity")
        if answer.status == 200 and packed != "identity":
            answer.close()
            raise RunnerError(
                f"{self.address} answers with what is packed ({packed}), though it was asked for what is not",
                remedy="switch compression off there",
            )
        if answer.status == 200:
            return StreamingPeer(answer, self._network, self._codec, self._last, bounds)
        text = "status 204" if answer.status == 204 else await said(answer)
        answer.close()
        if answer.status == 204 or is_passing(answer.status):
            raise DownError(f"it answers with {text}")
        raise RunnerError(f"{self.address} answers with {text}")
