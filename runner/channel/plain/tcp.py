"""Plain peers over TCP: the channel's codec frames the bytes. `nc` is one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from runner.channel import tls
from runner.channel.link.tcp import reason
from runner.channel.link.transport import DownError, cannot_listen
from runner.channel.plain.base import MOST_PEERS, STALLED_S, Handle, Meeting, Peer, dial
from runner.codec.base import Batch, Codec
from runner.errors import CodecError
from runner.spec.model import Network

_READ_BYTES = 64 << 10
_CONNECT_S = 10.0
_CLOSE_S = 2.0


class TcpPeer(Peer):
    """One connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: Codec, most_bytes: int
    ) -> None:
        address = writer.get_extra_info("peername")
        self.remote = f"{address[0]}:{address[1]}" if address else "somebody"
        self._reader = reader
        self._writer = writer
        self._decoder = codec.decoder(most_bytes)
        self._ended = False

    async def read(self) -> Batch | None:
        """See `Peer`. Half a message is waited for, but not for ever."""
        while not self._ended:
            try:
                async with asyncio.timeout(STALLED_S if self._decoder.pending_bytes else None):
                    data = await self._reader.read(_READ_BYTES)
            except TimeoutError as error:
                raise DownError(f"half a message came, and nothing more for {STALLED_S:.0f} s") from error
            except (OSError, ssl.SSLError) as error:
                raise DownError(reason(error)) from error
            if not data:
                self._ended = True
                batch = self._decoder.finish(clean=True)
                return batch if batch.count else None
            batch = self._decoder.feed(data)
            if batch.count:
                return batch
        return None

    async def write(self, batch: Batch) -> None:
        """See `Peer`: handed over is what the kernel has taken."""
        try:
            self._writer.writelines(batch.parts)
            await self._writer.drain()
        except (OSError, ssl.SSLError) as error:
            raise DownError(reason(error)) from error
        if self._writer.is_closing():
            raise DownError("it has closed the connection")

    async def finish(self) -> None:
        """See `Peer`."""
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()

    def close(self) -> None:
        """See `Peer`."""
        self._writer.transport.abort()


class TcpMeeting(Meeting):
    """A listening socket, or a connection to one."""

    def __init__(self, network: Network, codec: Codec, *, listens: bool) -> None:
        self._network = network
        self._codec = codec
        self._listens = listens
        self._host = network.host or "127.0.0.1"
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"tcp://{shown}:{network.port}"
        self._tls = None
        if network.tls is not None:
            self._tls = tls.listening(network.tls) if listens else tls.connecting(network.tls)

    async def meet(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        """See `Meeting`."""
        if not self._listens:
            await dial(self._connect, handle, tell)
            return
        await self._serve(handle, tell)

    async def _connect(self) -> Peer:
        server_name = None
        if self._network.tls is not None:
            server_name = self._network.tls.name or self._host
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    self._host, self._network.port, ssl=self._tls, server_hostname=server_name
                )
        except TimeoutError as error:
            raise DownError(f"no answer within {_CONNECT_S:.0f} s") from error
        except (OSError, ssl.SSLError) as error:
            raise DownError(reason(error)) from error
        return TcpPeer(reader, writer, self._codec, self._network.max_message_bytes)

    async def _serve(self, handle: Handle, tell: Callable[[str | None], None]) -> None:
        handling: set[asyncio.Task[None]] = set()

        async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(TcpPeer(reader, writer, self._codec, self._network.max_message_bytes))
            finally:
                await _closed(writer)

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(handled(reader, writer))
            handling.add(task)
            task.add_done_callback(handling.discard)

        server = await listening(
            lambda: asyncio.start_server(
                accepted, self._host, self._network.port, ssl=self._tls, backlog=MOST_PEERS, reuse_address=True
            ),
            self.address,
            tell,
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in handling:
                task.cancel()
            await asyncio.gather(*handling, return_exceptions=True)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close in order what a peer has ended, or leave it when it does not answer."""
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await writer.wait_closed()


async def listening(start: Callable[[], object], address: str, tell: Callable[[str | None], None]) -> asyncio.Server:
    """A server, once its address is free. Raises RunnerError for an address that this machine does not have."""
    while True:
        try:
            server: asyncio.Server = await start()  # type: ignore[misc]
        except OSError as error:
            if error.errno == 98:  # EADDRINUSE: whoever has it may go
                tell("somebody else listens there")
                await asyncio.sleep(0.25)
                continue
            raise cannot_listen(address, reason(error)) from error
        tell("nobody has come yet")
        return server


def framed(codec: Codec, payload: bytes) -> Batch:
    """One message. Raises CodecError where the channel's framing cannot carry it."""
    try:
        return codec.batch_of([payload])
    except CodecError as error:
        raise CodecError(f"what came is no message here: {error.what}", index=0, remedy=error.remedy) from error
