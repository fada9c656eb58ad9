"""The checks of an instance: they end when nobody wants them any more."""

from __future__ import annotations

import asyncio

import pytest

from runner.events import Exited
from runner.launch.base import FROM_INSIDE, Handle, LaunchRequest
from runner.spec.model import Check
from runner.supervise.health import Prober, until_dead

CHECK = Check(kind="tcp", value="127.0.0.1:1", every_s=0.0, timeout_s=100.0, failures=1000)


class Answering(Handle):
    """Its probes are answered as the test says."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[Exited]] = asyncio.Queue()

    async def start(self, request: LaunchRequest) -> int:
        raise NotImplementedError

    async def exited(self) -> Exited:
        raise NotImplementedError

    def signal(self, signal_number: int) -> None:
        raise NotImplementedError

    async def probe(self, command: tuple[str, ...]) -> Exited:
        answer: asyncio.Future[Exited] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return await answer

    async def kill_tree(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("turns", range(6))
def test_a_watch_that_is_cancelled_while_an_answer_is_under_way_ends(turns: int) -> None:
    """A program ends and the runner watches it no more, so many turns of the loop after the last answer came."""

    async def test() -> None:
        handle = Answering()
        handle.checks_inside = FROM_INSIDE
        watch = asyncio.create_task(until_dead(CHECK, Prober(handle, None)))
        async with asyncio.timeout(20):
            (await handle.asked.get()).set_result(Exited(1, None))
            for _ in range(turns):
                await asyncio.sleep(0)
        watch.cancel()
        await asyncio.wait({watch}, timeout=5)
        assert watch.cancelled(), "it goes on, and waits for another answer"

    asyncio.run(test())
