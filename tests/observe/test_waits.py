import asyncio
from collections.abc import Callable

from runner.events import InstanceState, StateChanged, WaitChanged
from runner.observe.waits import Wait, Waits


class Timer:
    """A clock that is set by hand, and its timers."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], None], /) -> "Timer":
        self._timers.append((self.now_s + delay, callback))
        return self

    def cancel(self) -> None:
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while due := sorted((timer for timer in self._timers if timer[0] <= end_s), key=lambda timer: timer[0]):
            self._timers.remove(due[0])
            self.now_s = due[0][0]
            due[0][1]()
        self.now_s = end_s

    @property
    def armed(self) -> int:
        return len(self._timers)


def waiting(cause: str | None) -> WaitChanged:
    return WaitChanged(processor="fetch", replica=0, cause=cause)


def follow() -> tuple[Timer, Waits, list[Wait]]:
    timer, told = Timer(), list[Wait]()
    waits = Waits(told.append, clock=timer.clock)
    waits.start(timer.call_later)
    return timer, waits, told


def test_short_waits_are_silent() -> None:
    timer, waits, told = follow()
    for _ in range(1000):
        waits.handle(waiting("waiting for store"))
        timer.advance(0.1)
        waits.handle(waiting(None))
    assert told == []
    timer.advance(60)
    assert timer.armed == 0


def test_a_wait_that_lasts_is_told_while_it_lasts_and_when_it_ends() -> None:
    timer, waits, told = follow()
    waits.handle(waiting("waiting for store, 8 MiB in flight"))
    timer.advance(3)
    waits.handle(waiting("waiting for store, 7 MiB in flight"))
    timer.advance(3)
    assert told == [Wait("fetch", 0, "waiting for store, 7 MiB in flight", 5.0)]
    assert told[0].text == "waiting for store, 7 MiB in flight (for 5s now)"
    assert timer.armed == 0
    timer.advance(6)
    waits.handle(waiting(None))
    assert told[1:] == [Wait("fetch", 0, None, 12.0)]
    assert told[1].text == "goes on after 12s"


def test_patience_grows_with_each_wait_that_was_told() -> None:
    timer, waits, told = follow()
    for _ in range(10):
        waits.handle(waiting("waiting for store"))
        timer.advance(9)
        waits.handle(waiting(None))
    assert len(told) == 2


def test_an_instance_that_ended_waits_no_more() -> None:
    timer, waits, told = follow()
    waits.handle(waiting("waiting for store"))
    running, exited = InstanceState.RUNNING, InstanceState.EXITED
    waits.handle(StateChanged(processor="fetch", replica=0, attempt=1, old=running, new=exited, cause="done"))
    timer.advance(60)
    assert told == []


def test_without_a_timer_it_looks_when_an_event_comes() -> None:
    timer, told = Timer(), list[Wait]()
    waits = Waits(told.append, clock=timer.clock)
    waits.handle(waiting("waiting for store"))
    timer.advance(20)
    waits.handle(waiting("waiting for store"))
    assert [wait.waited_s for wait in told] == [20.0]


def test_the_loop_of_asyncio_is_such_a_timer() -> None:
    async def run() -> Wait:
        told: asyncio.Queue[Wait] = asyncio.Queue()
        waits = Waits(told.put_nowait, patience_s=0.01)
        waits.start(asyncio.get_running_loop().call_later)
        waits.handle(waiting("waiting for store"))
        async with asyncio.timeout(10):
            return await told.get()

    assert asyncio.run(run()).cause == "waiting for store"
