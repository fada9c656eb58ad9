"""Frames of a websocket by RFC 6455: what is sent, what is refused, and how a connection ends, with a bare peer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise

import pytest

from runner.channel.link import framed
from runner.channel.link.tcp_socket import SocketConnection
from runner.channel.link.transport import DownError
from runner.channel.link.websocket_framing import WebsocketFraming

MOST = 3 << 20
BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 2, 1, 0, 8, 9, 10
KEY = b"\x91\x02\xa3\x04"


def frame(
    body: bytes,
    opcode: int = BINARY,
    *,
    masked: bool = True,
    last: bool = True,
    first: int = 0,
    size: int | None = None,
) -> bytes:
    """By the picture in section 5.2. `size` bytes of length (0, 2, 8), default as few as there can be."""
    length = len(body)
    size = (0 if length < 126 else 2 if length < 1 << 16 else 8) if size is None else size
    made = bytes((first | last << 7 | opcode, masked << 7 | {0: length, 2: 126, 8: 127}[size]))
    made += length.to_bytes(size, "big") if size else b""
    if not masked:
        return made + body
    whole = (KEY * (length // 4 + 1))[:length]
    return made + KEY + (int.from_bytes(body, "big") ^ int.from_bytes(whole, "big")).to_bytes(length, "big")


def close(code: int, text: bytes = b"", *, masked: bool = True) -> bytes:
    return frame(code.to_bytes(2, "big") + text, CLOSE, masked=masked)


class Bare:
    """The other end, byte by byte. `listens` is that of the connection at this end."""

    def __init__(self, sock: socket.socket, *, listens: bool) -> None:
        self.socket = sock
        self._listens = listens
        self._came = bytearray()
        self.keys: list[bytes] = []

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def heard(self) -> tuple[int, bytes]:
        """Opcode and body of the next frame."""
        first, second = await self._bytes(2)
        assert first & 0xF0 == 0x80
        assert bool(second & 0x80) != self._listens, "who connects masks, who listens does not"
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self._bytes(2 if length == 126 else 8), "big")
            assert length > 125
        key = b"" if self._listens else await self._bytes(4)
        body = await self._bytes(length)
        if key:
            self.keys.append(key)
            body = bytes(byte ^ key[place % 4] for place, byte in enumerate(body))
        return first & 0x0F, body

    async def ended(self) -> bool:
        """Whether nothing more comes: waits for that."""
        with contextlib.suppress(ConnectionResetError):
            self._came += await asyncio.get_running_loop().sock_recv(self.socket, 1)
        return not self._came

    async def _bytes(self, count: int) -> bytes:
        while len(self._came) < count:
            more = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
            if not more:
                raise EOFError
            self._came += more
        taken = bytes(self._came[:count])
        del self._came[:count]
        return taken


@contextlib.asynccontextmanager
async def joined(*, listens: bool = True, most: int = MOST) -> AsyncIterator[tuple[SocketConnection, Bare]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bare = socket.create_connection(server.getsockname())
        sock, _ = server.accept()
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for each in (sock, bare):
        each.settimeout(0)
    connection = SocketConnection(sock, WebsocketFraming(most, listens=listens))
    try:
        async with asyncio.timeout(60):
            yield connection, Bare(bare, listens=listens)
    finally:
        connection.close("the test is over")
        bare.close()


def run(act: Callable[[SocketConnection, Bare], Awaitable[None]], *, listens: bool = True, most: int = MOST) -> None:
    async def both() -> None:
        async with joined(listens=listens, most=most) as (connection, bare):
            await act(connection, bare)

    asyncio.run(both())


def of(sizes: list[int]) -> list[bytes]:
    return [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]


BOTH = pytest.mark.parametrize("listens", [True, False], ids=["listens", "connects"])


# -- frames


@BOTH
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_what_is_sent_is_one_binary_message(listens: bool, size: int) -> None:
    body = random.Random(size).randbytes(size)

    async def act(connection: SocketConnection, bare: Bare) -> None:
        await connection.send(body[:7], body[7 : size // 2 + 7], memoryview(body)[size // 2 + 7 :])
        assert await bare.heard() == (BINARY, body)

    run(act, listens=listens)


def test_each_frame_has_a_key_of_its_own() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        for _ in range(20):
            await connection.send(b"the same")
            assert await bare.heard() == (BINARY, b"the same")
        assert len(set(bare.keys)) == 20

    run(act, listens=False)


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_any_cut_gives_the_same_frames(listens: bool, seed: int) -> None:
    chance = random.Random(seed)
    sizes = [1, 9, 125, 126, 40_000, 9, 33_000, 3, (1 << 20) + 5, 21, MOST, 100, 32_764, 32_760, 65_535, 65_536, 0, 7]
    chance.shuffle(sizes)
    bodies = of(sizes)
    starts, data = [], b""
    for number, body in enumerate(bodies):
        starts.append(len(data))
        data += frame(body, masked=listens)
        if number % 5 == 4:
            data += frame(b"still there?", PONG, masked=listens)
    edges = {edge + near for edge in starts for near in range(-3, 17) if chance.random() < 0.5}
    edges |= {chance.randrange(len(data)) for _ in range(20)}
    cuts = sorted(edge for edge in edges | {0, len(data)} if 0 <= edge <= len(data))

    async def act(connection: SocketConnection, bare: Bare) -> None:
        async def send() -> None:
            for start, end in pairwise(cuts):
                await bare.say(data[start:end])
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)  # let some be read as it is, and some together

        sending = asyncio.create_task(send())
        for body in bodies:
            assert await connection.receive() == body
        await sending

    run(act, listens=listens)


@BOTH
@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_a_head_that_comes_byte_by_byte(listens: bool, size: int) -> None:
    body = random.Random(1).randbytes(size)
    whole = frame(body, masked=listens)

    async def act(connection: SocketConnection, bare: Bare) -> None:
        for place in range(min(16, len(whole) - 1)):
            await bare.say(whole[place : place + 1])
            while connection.progress() <= place:
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            await asyncio.sleep(0)
        await bare.say(whole[min(16, len(whole) - 1) :])
        assert await connection.receive() == body

    run(act, listens=listens)


@BOTH
def test_many_frames_in_one_read(listens: bool) -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        bodies = of(list(range(1, 300)))
        await bare.say(b"".join(frame(body, masked=listens) for body in bodies))
        for body in bodies:
            assert await connection.receive() == body

    run(act, listens=listens)


@BOTH
def test_what_was_read_before_is_the_beginning(listens: bool) -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        bodies = of([5, 200_000, 40, 100_000, 3])
        data = b"".join(frame(body, masked=listens) for body in bodies)
        connection.feed(data[:250_000])
        await bare.say(data[250_000:])
        for body in bodies:
            assert await connection.receive() == body

    run(act, listens=listens)


@BOTH
def test_a_message_in_parts_is_put_together_and_asked_between_is_answered(listens: bool) -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        bodies = of([10, 0, 50_000, 1, 126])
        for number, body in enumerate(bodies):
            opcode = CONTINUATION if number else BINARY
            await bare.say(frame(body, opcode, masked=listens, last=number == len(bodies) - 1))
            await bare.say(frame(b"%d" % number, PING, masked=listens) + frame(b"", PONG, masked=listens))
            assert await bare.heard() == (PONG, b"%d" % number)
        await bare.say(frame(b"next", masked=listens))
        assert await connection.receive() == b"".join(bodies)
        assert await connection.receive() == b"next"

    run(act, listens=listens)


@BOTH
def test_asked_again_and_again_who_does_not_listen_gets_the_latest_answer(listens: bool) -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        body = bytes(64 << 20)
        sending = asyncio.create_task(connection.send(body))
        await asyncio.sleep(0)
        assert not connection.ready
        waiting = len(connection._unsent)
        for number in range(1000):
            await bare.say(frame(b"%d" % number, PING, masked=listens))
        await bare.say(frame(b"that is all", masked=listens))
        assert await connection.receive() == b"that is all"
        assert len(connection._unsent) == waiting
        if not listens:
            bare._came.clear()
            connection.close("unmasking that by hand takes too long")
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            return
        assert await bare.heard() == (BINARY, body)
        await sending
        assert await bare.heard() == (PONG, b"999")

    run(act, listens=listens)


# -- what is refused

WRONG = {
    "reserved bit 1": (frame(b"x", first=0x40), 1002, "bits that mean nothing"),
    "reserved bit 2": (frame(b"x", first=0x20), 1002, "bits that mean nothing"),
    "reserved bit 3": (frame(b"x", first=0x10), 1002, "bits that mean nothing"),
    **{f"opcode {code}": (frame(b"x", code), 1002, "no known kind") for code in (3, 7, 11, 15)},
    "text": (frame(b"x", TEXT), 1003, "it sends text where frames are due"),
    "control in parts": (frame(b"", PING, last=False), 1002, "in parts or too long"),
    "control too long": (frame(bytes(126), PING), 1002, "in parts or too long"),
    "close too long": (frame(bytes(126), CLOSE), 1002, "in parts or too long"),
    "length of 2 bytes": (frame(bytes(125), size=2), 1002, "more bytes than it needs"),
    "length of 8 bytes": (frame(bytes(65_535), size=8), 1002, "more bytes than it needs"),
    "a continuation of nothing": (frame(b"x", CONTINUATION), 1002, "in disorder"),
    "a message within a message": (frame(b"x", last=False) + frame(b"x"), 1002, "in disorder"),
    "text within a message": (frame(b"x", last=False) + frame(b"x", TEXT), 1002, "in disorder"),
    "too big": (frame(bytes(MOST + 1)), 1009, "a frame of 3,145,729 bytes, and 3,145,728 are allowed"),
    "too big in all": (
        frame(bytes(MOST - 5), last=False) + frame(b"x" * 5, CONTINUATION, last=False) + frame(b"x", CONTINUATION),
        1009,
        "a frame of 3,145,729 bytes",
    ),
    "top bit of the length": (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + KEY, 1009, "a frame of 9,2"),
    "close of one byte": (frame(b"\x03", CLOSE), 1002, "a code that is none"),
    **{
        f"close {code}": (close(code), 1002, "a code that is none")
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
    },
    "close with no text": (close(1000, b"\xff"), 1007, "a text that is none"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_and_ends_the_connection(what: str) -> None:
    said, code, why = WRONG[what]

    async def act(connection: SocketConnection, bare: Bare) -> None:
        saying = asyncio.create_task(bare.say(frame(b"before") + said + frame(b"never") * 1000))
        assert await connection.receive() == b"before"
        receiving = asyncio.create_task(connection.receive())
        assert await bare.heard() == (CLOSE, code.to_bytes(2, "big"))
        await saying
        with pytest.raises(DownError, match=why):
            await connection.send(b"more")
        bare.socket.close()
        with pytest.raises(DownError, match=why):
            await receiving

    run(act)


def test_who_sends_too_much_is_told_while_it_sends() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        saying = asyncio.create_task(bare.say(frame(bytes(4 << 20))))
        assert await bare.heard() == (CLOSE, b"\x03\xf1")
        await saying
        bare.socket.close()
        with pytest.raises(DownError, match="are allowed"):
            await connection.receive()

    run(act)


def test_what_is_not_masked_is_refused_by_who_listens() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(frame(b"x", masked=False))
        assert await bare.heard() == (CLOSE, b"\x03\xea")
        assert await bare.ended(), "who does not go is let go"
        with pytest.raises(DownError, match="not masked"):
            await connection.receive()

    run(act, listens=True)


def test_what_is_masked_is_refused_by_who_connects() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(frame(b"x", masked=True))
        assert await bare.heard() == (CLOSE, b"\x03\xea")
        assert await bare.ended()
        with pytest.raises(DownError, match="a masked frame"):
            await connection.receive()

    run(act, listens=False)


def test_parts_of_nothing_take_no_memory() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(frame(b"a", last=False) + frame(b"", CONTINUATION, last=False) * 100_000)
        await bare.say(frame(b"b", CONTINUATION))
        assert await connection.receive() == b"ab"

    run(act)


# -- the end


@BOTH
@pytest.mark.parametrize("said", [b"", b"\x03\xe8", b"\x03\xe9going", b"\x0f\xa0"])
def test_who_closes_is_answered_with_its_code(listens: bool, said: bytes) -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(frame(b"last", masked=listens) + frame(said, CLOSE, masked=listens))
        assert await bare.heard() == (CLOSE, said[:2])
        assert await bare.ended()
        assert await connection.receive() == b"last"
        with pytest.raises(DownError, match="it has closed the connection"):
            await connection.receive()

    run(act, listens=listens)


def test_that_a_frame_was_too_long_for_the_other_side_is_said() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(close(1009))
        with pytest.raises(DownError, match="a frame was longer than it allows"):
            await connection.receive()

    run(act)


def test_who_closes_while_it_takes_nothing_is_answered_behind_what_waits() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        body = bytes(8 << 20)
        sending = asyncio.create_task(connection.send(body))
        await asyncio.sleep(0)
        await bare.say(close(1000))
        assert await bare.heard() == (BINARY, body)
        assert await bare.heard() == (CLOSE, b"\x03\xe8")
        assert await bare.ended()
        await asyncio.gather(sending, return_exceptions=True)

    run(act)


@BOTH
def test_finishing_says_close_and_waits_for_the_other(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "CLOSE_S", 60.0)

    async def act(connection: SocketConnection, bare: Bare) -> None:
        await connection.send(b"last")
        finishing = asyncio.create_task(connection.finish())
        assert await bare.heard() == (BINARY, b"last")
        assert await bare.heard() == (CLOSE, b"\x03\xe8")
        await bare.say(frame(b"on its way", masked=listens))
        assert await connection.receive() == b"on its way"
        assert not finishing.done()
        with pytest.raises(DownError):
            await connection.send(b"too late")
        await bare.say(close(1000, masked=listens))
        await finishing
        assert await bare.ended()
        with pytest.raises(DownError, match="the connection was closed"):
            await connection.receive()

    run(act, listens=listens)


def test_finishing_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "CLOSE_S", 0.1)

    async def act(connection: SocketConnection, bare: Bare) -> None:
        await connection.finish()
        assert await bare.heard() == (CLOSE, b"\x03\xe8")
        assert await bare.ended()

    run(act)


def test_closed_at_once_nothing_is_said() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        connection.close("no more")
        assert await bare.ended()
        await connection.finish()

    run(act)


def test_an_end_without_close_is_heard() -> None:
    async def act(connection: SocketConnection, bare: Bare) -> None:
        await bare.say(frame(bytes(400_000))[:-1])
        bare.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(DownError, match="it has closed the connection"):
            await connection.receive()

    run(act)
