"""Plain peers over TCP: the channel's codec frames the bytes. `nc` is one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from runner.channel import tls
from runner.channel.link.reasons import reason
from runner.channel.link.transport import DownError
from runner.channel.plain.base import Host, Meeting, Peer, dial
from runner.channel.plain.bounds import Bounds
from runner.channel.plain.door import Door, Visitor
from runner.channel.plain.line import Line
from runner.codec.base import Batch, Codec
from runner.errors import CodecError
from runner.spec.model import Network

_READ_BYTES = 64 << 10


class TcpPeer(Peer):
    """One connection."""

    says_end = False

    def __init__(
        self, line: Line, reader: asyncio.StreamReader, codec: Codec, most_message_bytes: int, bounds: Bounds
    ) -> None:
        self.remote = line.remote
        self._line = line
        self._reader = reader
        self._codec = codec
        self._bounds = bounds
        self._decoder = codec.decoder(most_message_bytes)
        self._began_s = 0.0
        self._ended = False
        self._bad: CodecError | None = None

    async def read(self) -> Batch | None:
        """See `Peer`. Half a message is waited for, but not for ever."""
        while not self._ended:
            if self._bad is not None:
                raise self._bad
            data = await self._data()
            held_bytes = self._decoder.pending_bytes
            try:
                batch = self._decoder.feed(data) if data else self._decoder.finish(clean=True)
            except CodecError as error:
                self._bad, batch = error, self._decoder.rescued()
            self._ended = not data and self._bad is None
            self._look_at_rest(begins=batch.count > 0 or not held_bytes)
            if batch.count:
                return batch
        return None

    async def _data(self) -> bytes:
        within_s, why = None, ""
        if self._decoder.pending_bytes:
            within_s, why = self._bounds.rest_of_message(self._began_s, asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(within_s):
                data = await self._reader.read(_READ_BYTES)
        except TimeoutError as error:
            raise DownError(why) from error
        except (OSError, ssl.SSLError) as error:
            raise DownError(self._line.why if self._line.lost.is_set() else reason(error)) from error
        if not data and not self._line.ended:
            raise DownError(self._line.why)
        return data

    def _look_at_rest(self, *, begins: bool) -> None:
        """What came of a message that is not whole yet is bounded in bytes and time, from where it `begins`."""
        if begins:
            self._began_s = asyncio.get_running_loop().time()
        if isinstance(self._line, Visitor):
            self._line.hold(self._decoder.pending_bytes)

    async def write(self, batch: Batch, number: int) -> None:
        """See `Peer`, piece by piece: handed over is what the kernel has taken."""
        del number
        transport = self._line.transport
        rest = batch
        while rest.count:
            if transport is None or transport.is_closing():
                raise DownError(self._line.why)
            piece, rest = self._codec.cut(rest, most_bytes=self._bounds.piece_bytes, most_messages=rest.count)
            self.handed += piece.count
            transport.writelines(piece.parts)
            await self._line.flushed()

    async def gone(self) -> None:
        """See `Peer`: who sends no more may read on."""
        with contextlib.suppress(OSError, ssl.SSLError):
            while await self._reader.read(_READ_BYTES):
                if isinstance(self._line, Visitor):
                    self._line.hold(0)
        await self._line.lost.wait()
        if self._line.failed:
            raise DownError(self._line.why)

    async def finish(self) -> None:
        """See `Peer`: it is told, and has a moment to end as well: a reset would take what it has not read."""
        await self._line.flushed()
        transport = self._line.transport
        if transport is not None and transport.can_write_eof():
            transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.close_s):
                    await self._line.over.wait()
        await self.end()

    async def end(self) -> None:
        """Close what the peer has ended, or leave it when it does not answer."""
        transport = self._line.transport
        if transport is not None:
            transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.close_s):
                    await self._line.lost.wait()
            self._line.abort()

    def close(self) -> None:
        """See `Peer`."""
        self._line.abort()

    def waits(self, *, for_us: bool) -> None:
        """See `Peer`."""
        if isinstance(self._line, Visitor):
            self._line.busy = for_us
        self._began_s = asyncio.get_running_loop().time()  # until now nobody looked whether more came


class _Stream(asyncio.StreamReaderProtocol):
    """What a reader reads from. That its connection broke is told by the line; asyncio has not to complain of it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. The error is also kept in a future for `wait_closed`, which nobody calls."""
        super().connection_lost(exc)
        closed: asyncio.Future[None] = self._closed  # type: ignore[attr-defined]
        if not closed.cancelled():
            closed.exception()


class TcpMeeting(Meeting):
    """A listening socket, or a connection to one."""

    def __init__(self, network: Network, codec: Codec, *, listens: bool, writes_here: bool) -> None:
        self._network = network
        self._codec = codec
        self._listens = listens
        self._writes_here = writes_here
        self._host = network.host or "127.0.0.1"
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"tcp://{shown}:{network.port}"
        self._tls = None if network.tls is None or listens else tls.connecting(network.tls)

    async def meet(self, host: Host) -> None:
        """See `Meeting`."""
        if not self._listens:
            await dial(lambda: self._connect(host.bounds), host)
            return
        door = Door(self._network, host, address=self.address, busy=self._writes_here)
        try:
            async with asyncio.TaskGroup() as group:

                def spoken(line: Line) -> asyncio.BaseProtocol:
                    reader = asyncio.StreamReader()
                    group.create_task(self._handle(line, reader, host))
                    return _Stream(reader)

                await door.serve(spoken)
        finally:
            door.close()

    async def _handle(self, line: Line, reader: asyncio.StreamReader, host: Host) -> None:
        peer = TcpPeer(line, reader, self._codec, self._network.max_message_bytes, host.bounds)
        try:
            await host.handle(peer)
            await peer.end()
        finally:
            peer.close()

    async def _connect(self, bounds: Bounds) -> Peer:
        server_name = None
        if self._network.tls is not None:
            server_name = self._network.tls.name or self._host
        reader = asyncio.StreamReader()
        try:
            async with asyncio.timeout(bounds.connect_s):
                _, line = await asyncio.get_running_loop().create_connection(
                    lambda: Line(lambda _line: _Stream(reader)),
                    self._host,
                    self._network.port,
                    ssl=self._tls,
                    server_hostname=server_name,
                )
        except TimeoutError as error:
            raise DownError(f"no answer within {bounds.connect_s:g} s") from error
        except (OSError, ssl.SSLError) as error:
            raise DownError(reason(error)) from error
        return TcpPeer(line, reader, self._codec, self._network.max_message_bytes, bounds)
