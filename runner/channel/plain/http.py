"""Plain peers over HTTP: `curl` posts messages or streams them; as client, messages are posted or streamed from a URL.

A POST is one message, or with a newline-delimited content type as many as it has lines; it is answered when all of it
is as durable as the channel is, and taken once for each `Idempotency-Key`. A GET streams what is written, a message a
line, or as server-sent events where these are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.channel import tls
from runner.channel.link.tcp import reason
from runner.channel.link.transport import DownError
from runner.channel.network import Queue
from runner.channel.plain.base import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    STALLED_S,
    Handle,
    Meeting,
    Peer,
    PlainReceiver,
    dial,
)
from runner.channel.plain.keys import SeenKeys
from runner.channel.plain.tcp import framed
from runner.channel.plain.web import base_url, may, served
from runner.codec.base import Batch, Codec
from runner.codec.lines import LINES
from runner.errors import CodecError, RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from aiohttp import ClientSession, web

MANY = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines", "text/x-ndjson")
_EVENTS = "text/event-stream"
_WAIT_FOR_ROOM_S = 10.0
_KEEPALIVE_S = 15.0
_ANSWER_S = 60.0
_RETRIED = {408, 425, 429}
_SHOWN = 200


# -- as a server


class PostedMeeting(Meeting):
    """A server that takes POSTs; it has no peers that stay."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.address = base_url(network, "http") + network.path
        self.post: Callable[[web.Request], Any] | None = None

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        del handle
        assert self.post is not None
        await served(self._network, [("POST", self._network.path, self.post)], tell)


class PostedReceiver(PlainReceiver):
    """What is posted goes into the queue."""

    def __init__(self, queue: Queue, network: Network) -> None:
        self._meeting = PostedMeeting(network)
        super().__init__(queue, network, self._meeting)
        self._meeting.post = self._post
        self._keys = SeenKeys(queue.store, queue.name)
        self._publishing = asyncio.Lock()

    async def _post(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if (refusal := may(self.network, request)) is not None:
            return refusal
        try:
            async with asyncio.timeout(STALLED_S):
                body = await request.read()
        except TimeoutError:
            return _answer(408, f"the request did not come within {STALLED_S:.0f} s")
        except web.HTTPRequestEntityTooLarge:
            return _answer(413, "the request is too long")
        try:
            batch = self._batch(request.content_type, body)
        except CodecError as error:
            return _answer(400, error.what)
        try:
            async with asyncio.timeout(_WAIT_FOR_ROOM_S):
                await self.room()
        except TimeoutError:
            return _answer(503, "the channel is full", {"Retry-After": "5"})
        return await self._take(batch, request.headers.get("Idempotency-Key"))

    async def _take(self, batch: Batch, key: str | None) -> web.Response:
        if self._ended or self.over.is_set():
            return _answer(503, "the channel has ended", {"Retry-After": "5"})
        again = key is not None and self._keys.seen(key)
        if not again:
            try:
                self.publish(batch)
            except CodecError as error:
                return _answer(400, error.what)
            if key is not None:
                self._keys.keep(key)
        try:
            await self.safe()
        except RunnerError as error:
            return _answer(500, error.what)
        return _answer(200, f"{batch.count} taken{' before' if again else ''}")

    def _batch(self, content_type: str, body: bytes) -> Batch:
        """The messages of a request. Raises CodecError."""
        codec, most = self.queue.codec, self.network.max_message_bytes
        if content_type not in MANY:
            if len(body) > most:
                raise CodecError(f"the message has {len(body):,} bytes, and {most:,} are allowed", index=0)
            return framed(codec, body)
        decoder = LINES.decoder(most)
        batches = (decoder.feed(body), decoder.finish(clean=True))
        payloads = [payload for batch in batches for payload in LINES.payloads(batch) if payload.strip()]
        return codec.batch_of(payloads)


class StreamedMeeting(Meeting):
    """A server that streams to whoever GETs."""

    def __init__(self, network: Network, codec: Codec) -> None:
        self._network = network
        self._codec = codec
        self.address = base_url(network, "http") + network.path

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        await served(self._network, [("GET", self._network.path, lambda request: self._stream(request, handle))], tell)

    async def _stream(self, request: web.Request, handle: Handle) -> web.StreamResponse:
        from aiohttp import web

        if (refusal := may(self._network, request)) is not None:
            return refusal
        events = _EVENTS in request.headers.get("Accept", "")
        response = web.StreamResponse(
            headers={"Content-Type": _EVENTS if events else MANY[0], "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        peer = StreamedPeer(response, self._codec, str(request.remote), events=events)
        beating = asyncio.create_task(peer.beat()) if events else None
        try:
            await handle(peer)
        finally:
            if beating is not None:
                beating.cancel()
        return response


class StreamedPeer(Peer):
    """One GET that is being answered."""

    def __init__(self, response: web.StreamResponse, codec: Codec, remote: str, *, events: bool) -> None:
        self.remote = remote
        self._response = response
        self._codec = codec
        self._events = events
        self._number = 0

    async def read(self) -> Batch | None:
        """See `Peer`: nothing comes."""
        return None

    async def write(self, batch: Batch) -> None:
        """See `Peer`."""
        await self._write(b"".join(map(self._framed, self._codec.payloads(batch))))

    def _framed(self, payload: bytes) -> bytes:
        if not self._events:
            return payload + b"\n"
        self._number += 1
        lines = b"".join(b"data: " + line + b"\n" for line in payload.split(b"\n"))
        return b"id: %d\n" % self._number + lines + b"\n"

    async def _write(self, data: bytes) -> None:
        try:
            await self._response.write(data)
        except (OSError, RuntimeError) as error:
            raise DownError(reason(error)) from error

    async def beat(self) -> None:
        """Say now and then that somebody is there, for whoever is between."""
        while True:
            await asyncio.sleep(_KEEPALIVE_S)
            with contextlib.suppress(DownError):
                await self._write(b": there\n\n")

    async def finish(self) -> None:
        """See `Peer`."""
        with contextlib.suppress(OSError, RuntimeError):
            await self._response.write_eof()

    def close(self) -> None:
        """See `Peer`: the request ends when its handler does."""


# -- as a client


class PostingPeer(Peer):
    """A URL that batches are posted to, each with a key of its own until it is taken."""

    def __init__(self, network: Network, codec: Codec, session: ClientSession, address: str) -> None:
        self.remote = address
        self._network = network
        self._codec = codec
        self._session = session
        self._run = secrets.token_hex(8)
        self._number = 0

    async def read(self) -> Batch | None:
        """See `Peer`: nothing comes."""
        return None

    async def write(self, batch: Batch) -> None:
        """See `Peer`: until it is taken. Raises RunnerError for an answer that no other try changes."""
        payloads = self._codec.payloads(batch)
        self._number += 1
        many = all(b"\n" not in payload for payload in payloads)
        bodies = [b"".join(payload + b"\n" for payload in payloads)] if many else payloads
        for part, body in enumerate(bodies):
            key = f"{self._run}-{self._number}-{part}"
            await self._post(body, MANY[0] if many else "application/octet-stream", key)

    async def _post(self, body: bytes, content_type: str, key: str) -> None:
        import aiohttp

        wait_s = FIRST_WAIT_S
        headers = {"Content-Type": content_type, "Idempotency-Key": key, **_token(self._network)}
        while True:
            try:
                async with self._session.post(self.remote, data=body, headers=headers) as answer:
                    if answer.status < 300:
                        return
                    said = (await answer.content.read(_SHOWN)).decode(errors="replace").strip()
                    if answer.status < 500 and answer.status not in _RETRIED:
                        raise RunnerError(f"{self.remote} refuses a message with status {answer.status}: {said}")
            except (OSError, TimeoutError, aiohttp.ClientError) as error:
                if wait_s >= LONGEST_WAIT_S:
                    raise DownError(reason(error)) from error
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def finish(self) -> None:
        """See `Peer`."""
        await self._session.close()

    def close(self) -> None:
        """See `Peer`: whoever made the session closes it."""


class PostingMeeting(Meeting):
    """One URL, for as long as the channel lives."""

    def __init__(self, network: Network, codec: Codec) -> None:
        self._network = network
        self._codec = codec
        self.address = base_url(network, "http") + network.path

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        async with session_of(self._network) as session:
            tell(None)
            peer = PostingPeer(self._network, self._codec, session, self.address)
            while True:
                await handle(peer)
                await asyncio.sleep(FIRST_WAIT_S)


class StreamingPeer(Peer):
    """The answer to one GET, as it comes."""

    def __init__(self, answer: Any, network: Network, codec: Codec, meeting: StreamingMeeting) -> None:
        self.remote = meeting.address
        self._answer = answer
        self._codec = codec
        self._meeting = meeting
        self._decoder = LINES.decoder(network.max_message_bytes)
        self._events = answer.content_type == _EVENTS
        self._data: list[bytes] = []

    async def read(self) -> Batch | None:
        """See `Peer`."""
        import aiohttp

        while True:
            try:
                data = await self._answer.content.readany()
            except (OSError, aiohttp.ClientError) as error:
                raise DownError(reason(error)) from error
            found = self._decoder.feed(data) if data else self._decoder.finish(clean=True)
            payloads = LINES.payloads(found)
            if self._events:
                payloads = [each for line in payloads for each in self._event(line.rstrip(b"\r"))]
            else:
                payloads = [payload for payload in payloads if payload.strip()]
            if payloads:
                return self._codec.batch_of(payloads)
            if not data:
                return None

    def _event(self, line: bytes) -> list[bytes]:
        """The message that ends with this line of a stream of events, if one does."""
        if not line:
            data, self._data = self._data, []
            return [b"\n".join(data)] if data else []
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id":
            self._meeting.last_event = value.decode(errors="replace")
        return []

    async def write(self, batch: Batch) -> None:
        """See `Peer`: nothing goes."""
        del batch
        raise DownError("nothing can be sent there")

    async def finish(self) -> None:
        """See `Peer`."""
        self.close()

    def close(self) -> None:
        """See `Peer`."""
        self._answer.close()


class StreamingMeeting(Meeting):
    """A URL that is asked for what it has, again when its answer has ended."""

    def __init__(self, network: Network, codec: Codec) -> None:
        self._network = network
        self._codec = codec
        self.address = base_url(network, "http") + network.path
        self.last_event: str | None = None

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        async with session_of(self._network) as session:
            await dial(lambda: self._get(session), handle, tell)

    async def _get(self, session: ClientSession) -> Peer:
        import aiohttp

        headers = {"Accept": f"{_EVENTS}, {MANY[0]}, */*", **_token(self._network)}
        if self.last_event is not None:
            headers["Last-Event-ID"] = self.last_event
        try:
            answer = await session.get(self.address, headers=headers, timeout=aiohttp.ClientTimeout(sock_connect=10))
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise DownError(reason(getattr(error, "os_error", error))) from error
        if answer.status >= 300:
            said = (await answer.content.read(_SHOWN)).decode(errors="replace").strip()
            answer.close()
            if answer.status < 500 and answer.status not in _RETRIED:
                raise RunnerError(f"{self.address} answers with status {answer.status}: {said}")
            raise DownError(f"it answers with status {answer.status}")
        return StreamingPeer(answer, self._network, self._codec, self)


def session_of(network: Network) -> ClientSession:
    """A client with the channel's certificates."""
    import aiohttp

    context = True if network.tls is None else tls.connecting(network.tls)
    connector = aiohttp.TCPConnector(ssl=context)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_ANSWER_S))


def _token(network: Network) -> dict[str, str]:
    return {} if network.token is None else {"Authorization": f"Bearer {network.token}"}


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text=text + "\n", headers=headers)
