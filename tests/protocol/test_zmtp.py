"""ZMTP as bytes: against libzmq's own, against what nobody should send, and however it is cut."""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.protocol import zmtp
from runner.protocol.errors import ProtocolError
from runner.protocol.frames import Ack, End, Log, Out
from runner.protocol.session import Session
from runner.protocol.wire import ZEROMQ, MessageDecoder

LIMIT_S = 20.0
LIMIT_MS = 20_000


def framed(parts: Sequence[bytes]) -> bytes:
    last = len(parts) - 1
    return b"".join(zmtp.head(len(part), zmtp.MORE if index < last else 0) + part for index, part in enumerate(parts))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]
    return pieces


# -- the other side is libzmq


@pytest.mark.parametrize(("ours", "theirs"), [("PUSH", zmq.PULL), ("PULL", zmq.PUSH), ("DEALER", zmq.DEALER)])
def test_libzmq_takes_us_for_one_of_its_own(ours: str, theirs: int) -> None:
    kind = {zmq.PULL: b"PULL", zmq.PUSH: b"PUSH", zmq.DEALER: b"DEALER"}[zmq.SocketType(theirs)]
    payloads = [b"", b"x", b"y" * 255, b"z" * 256, b"!" * 70_000]
    with (
        tempfile.TemporaryDirectory(prefix="cz-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as listener,
        zmq.Context() as context,
        context.socket(theirs) as peer,
    ):
        listener.bind(str(Path(folder, "s")))
        listener.listen()
        listener.settimeout(LIMIT_S)
        peer.linger = 0
        peer.connect(f"ipc://{folder}/s")
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(LIMIT_S)
            connection.sendall(zmtp.GREETING)
            handshake = zmtp.Handshake(ours.encode(), kind)
            while not handshake.done:
                connection.sendall(handshake.feed(connection.recv(1)))
            if ours != "PULL":
                connection.sendall(b"".join(framed([payload]) for payload in payloads) + framed([b"a", b"b"]))
                assert peer.poll(LIMIT_MS)
                assert [peer.recv() for _ in payloads] == payloads
                assert peer.recv_multipart() == [b"a", b"b"]
            if ours != "PUSH":
                for payload in payloads:
                    peer.send(payload)
                peer.send_multipart([b"a", b"b"])
                splitter = zmtp.Splitter(100_000, 100)
                found = [*splitter.feed(handshake.rest)]
                while len(found) <= len(payloads):
                    found += splitter.feed(connection.recv(50_000))
                assert found == [*([payload] for payload in payloads), [b"a", b"b"]]


# -- greetings

GOOD = zmtp.GREETING + zmtp.ready(b"PULL")
BAD = [
    (b"GET / HTTP/1.1\r\n", "does not speak ZMTP"),
    (b"\xff" + bytes(9), "does not speak ZMTP"),
    (b"\xff" + bytes(8) + b"\x7f\x01", "before 3.0"),
    (zmtp.GREETING.replace(b"NULL", b"CURV"), "its security mechanism is 'CURV'"),
    (zmtp.GREETING + framed([b"hello"]), "a message before"),
    (zmtp.GREETING + zmtp.ready(b"SUB"), "its socket is of type 'SUB', and PULL is due here"),
    (zmtp.GREETING + zmtp.command(b"READY", b""), "its socket is of type ''"),
    (zmtp.GREETING + zmtp.command(b"ERROR", b"\x03no!"), "it says 'no!'"),
    (zmtp.GREETING + zmtp.command(b"HELLO", b""), "does not say what kind of socket"),
    (zmtp.GREETING + zmtp.command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xff"), "cut short|''"),
    (zmtp.GREETING + zmtp.command(b"READY", b"\x0bSock"), "cut short"),
    (zmtp.GREETING + b"\x06" + struct.pack(">Q", 1 << 40), "says what it is in 1,099,511,627,776 bytes"),
]


@pytest.mark.parametrize(("sent", "why"), BAD)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_who_is_not_wanted_is_refused(sent: bytes, why: str, size: int) -> None:
    handshake = zmtp.Handshake(b"PUSH", b"PULL")
    with pytest.raises(zmtp.PeerError, match=why):
        for piece in cut(sent, [size]):
            handshake.feed(piece)
    assert not handshake.done


@settings(deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=5), st.binary(max_size=20))
def test_a_greeting_however_it_is_cut(sizes: list[int], rest: bytes) -> None:
    handshake = zmtp.Handshake(b"PUSH", b"PULL")
    pieces = cut(GOOD + rest, sizes)
    answered = b""
    while not handshake.done:
        answered += handshake.feed(pieces.pop(0))
    assert answered == zmtp.ready(b"PUSH")
    assert handshake.rest + b"".join(pieces) == rest


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_a_handshake_fall_over(data: bytes) -> None:
    for sent in (data, zmtp.GREETING + data, zmtp.GREETING + b"\x04" + data):
        handshake = zmtp.Handshake(b"PUSH", b"PULL")
        try:
            for piece in cut(sent, [3]):
                handshake.feed(piece)
        except zmtp.PeerError:
            pass


# -- messages

PARTS = st.lists(st.binary(max_size=300), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(PARTS, max_size=6), st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_messages_however_they_are_cut(messages: list[list[bytes]], sizes: list[int]) -> None:
    splitter = zmtp.Splitter(300, 300, 300)
    ping = zmtp.command(b"PING", b"\0\0abc")
    data = b"".join(ping + framed(parts) for parts in messages)
    found = [parts for piece in cut(data, sizes) for parts in splitter.feed(piece)]
    assert found == messages
    assert not splitter.unfinished
    assert splitter.pongs == [zmtp.command(b"PONG", b"abc")] * min(len(messages), zmtp.MOST_PINGS)


def test_what_is_announced_as_too_much_is_refused_before_it_is_there() -> None:
    for data, error in [
        (b"\x02" + struct.pack(">Q", 1 << 62), zmtp.TooLongError),
        (b"\x01\x00\x01\x00\x01\x00", zmtp.TooManyPartsError),
        (b"\x06" + struct.pack(">Q", 5000), zmtp.PeerError),
        (b"\x08\x00", zmtp.PeerError),
    ]:
        with pytest.raises(error):
            list(zmtp.Splitter(1000, 1000).feed(data))


def test_only_a_ping_is_answered() -> None:
    assert zmtp.pong(b"\x04PING\0\x0acontext") == zmtp.command(b"PONG", b"context")
    assert zmtp.pong(b"\x04PING\0\x0a" + b"x" * 50) == zmtp.command(b"PONG", b"x" * 16)
    assert zmtp.pong(b"\x04PONGcontext") is None
    assert zmtp.pong(b"\x04PING") == zmtp.command(b"PONG", b"")


# -- frames of the connector protocol


def test_frames_as_messages() -> None:
    decoder = MessageDecoder(["stdout"], 1000)
    sent = [[b"log 2 info", b"hi"], [b"out 3 1 stdout", b"abc"], [b"ack 0 1", b""], [b"end 0"]]
    data = b"".join(map(framed, sent))
    found = [frame for piece in cut(data, [5]) for frame in decoder.feed(piece)]
    assert found == [Log("info", "hi"), Out(1, "stdout", b"abc"), Ack(1, 1), End()]
    decoder.finish()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (framed([b"end 0", b"", b""]), "bad-header"),
        (framed([b"out 3 1 stdout", b"ab"]), "bad-field"),
        (framed([b"hello"]), "unknown-kind"),
        (framed([b"x" * 9000]), "header-too-long"),
        (framed([b"out 1001 1 stdout", b"x" * 1001]), "payload-too-long"),
        (b"\x09\x00", "bad-header"),
    ],
)
def test_what_is_no_frame(sent: bytes, code: str) -> None:
    decoder = MessageDecoder(["stdout"], 1000)
    with pytest.raises(ProtocolError) as found:
        decoder.feed(framed([b"ready 0 1"]) + framed([b"pong 0 1"]) + sent)
    assert (found.value.code, found.value.frame, found.value.offset) == (code, 3, None)
    assert len(decoder.rescued()) == 2


def test_an_end_within_a_message() -> None:
    decoder = MessageDecoder(["stdout"], 1000)
    decoder.feed(framed([b"ready 0 1"]) + b"\x01\x05out")
    with pytest.raises(ProtocolError, match="cut-short; frame 2"):
        decoder.finish()


def test_what_the_runner_says_is_messages() -> None:
    session = Session(reads=["stdin"], writes=["stdout"], max_payload_bytes=1000, wire=ZEROMQ)
    session.receive(framed([b"ready 0 1 stateful=yes"]))
    said = session.opening(b"s")
    said += session.deliver([b"", b"two"], number=5, attempt=1, port="stdin", channel="c@1")[1]
    said += session.ping()
    session.receive(framed([b"ack 0 1 2"]) + framed([b"state 0 1"]))
    said += [*session.committed(1), *session.end_of("stdin"), *session.end()]
    assert list(zmtp.Splitter(100, 100).feed(b"".join(said))) == [
        [b"ack-state 1 0 state=here max=1000", b"s"],
        [b"msg 0 1 5 1 stdin c@1", b""],
        [b"msg 3 2 6 1 stdin c@1", b"two"],
        [b"ping 0 1"],
        [b"ack-state 0 1"],
        [b"end 0 stdin"],
        [b"end 0"],
    ]
