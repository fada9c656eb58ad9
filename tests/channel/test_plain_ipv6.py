"""Plain peers at an address of IPv6, both ways, and how it is written for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.channel.plain.bounds import Bounds
from tests.addresses import HAS_IPV6, free_port
from tests.certificates import authority
from tests.channel.plain_end import End, numbered, run
from tests.waiting import until

HERE = "::1"
COUNT = 1000
QUICK = Bounds(first_wait_s=0.01, longest_wait_s=0.02)
pytestmark = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no ::1")


@pytest.mark.parametrize("listening", ["writer", "reader"])
@pytest.mark.parametrize(
    ("kind", "protected"),
    [("zeromq", False), *((kind, protected) for kind in ("tcp", "websocket", "http") for protected in (False, True))],
)
def test_who_listens_and_who_connects_meet(kind: str, listening: str, protected: bool, tmp_path: Path) -> None:
    made = authority(tmp_path) if protected else None

    def end_of(side: str, port: int) -> End:
        listens = side == listening
        tls = None if made is None else made.server if listens else made.client
        return End(side, kind, host=HERE, port=port, listens=listens, bounds=QUICK, tls=tls)

    async def act() -> None:
        port = free_port(HERE)
        reader, writer = end_of("reader", port), end_of("writer", port)
        async with reader.alive(), writer.alive() as living:
            writer.write(*numbered(COUNT))
            assert await reader.read(COUNT) == numbered(COUNT)
            writer.end()
            await living
        assert writer.account == {"acknowledged": COUNT}
        scheme = {"websocket": "ws", "http": "http"}.get(kind, "tcp")
        secure = "s" if protected and kind != "tcp" else ""
        assert writer.far.meeting.address.startswith(f"{scheme}{secure}://[::1]:{port}")

    run(act)


def test_who_came_is_told_in_brackets() -> None:
    async def act() -> None:
        end = End("reader", "tcp", host=HERE, port=free_port(HERE), max_message_bytes=100)
        async with end.alive():
            _, writer = await end.connected()
            port = writer.get_extra_info("sockname")[1]
            writer.write(b"x" * 1000)
            await until(lambda: end.warned, "it to be told")
        assert f"[::1]:{port} is let go" in end.said

    run(act)


def test_an_address_in_use_is_told_in_brackets() -> None:
    async def act() -> None:
        first = End("reader", "tcp", host=HERE, port=free_port(HERE))
        second = End("writer", "tcp", host=HERE, port=first.port)
        async with first.alive():
            await first.connected()
            async with second.alive():
                await until(lambda: "listens there" in str(second.far.trouble), "it to be told")
                assert second.far.trouble == f"nobody is there at tcp://[::1]:{first.port}: somebody else listens there"

    run(act)
