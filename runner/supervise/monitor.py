"""What nobody's event tells: no progress. Stalls, programs that buffer their output, waits and rings of waits.

Looks at every running instance twice a second; a look costs some microseconds each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.bridge.intake import Intake
from runner.bridge.spout import Spout
from runner.channel.base import Reader
from runner.clock import Clock
from runner.events import Bus, WaitChanged
from runner.launch.procstate import Waits, cpu_ticks, waits_for_pipes
from runner.plan.rings import Wait, ring_of, stuck
from runner.supervise.attempt import Attempt
from runner.supervise.instance import Idle, Instance
from runner.supervise.processor import ProcessorRun
from runner.units import format_duration, format_size

LOOK_EVERY_S = 0.5
BUFFERS_SURE_S = 10.0
BUFFERS_LIKELY_S = 300.0
"""How long a program that has read the largest window gives no answer until it counts as one that buffers its output:
sure (it waits for more input, in a read), or likely (it sleeps)."""
RING_SURE_S = 5.0
RING_LIKELY_S = 60.0
"""How long nothing must have moved before a ring of waits fails the run: sure (in a read), or likely (asleep)."""
_SAY_WAIT_AFTER_S = 2.0


@dataclass(slots=True)
class _Look:
    """What an attempt looked like, and since when.

    `since_s`: since when nothing of it has moved; `idle_s`: since when, in spite of input and room, nothing has come of
    it; `answered_s`: since when no answer came; `asleep_s`: since when its CPU time stands at `ticks`.
    """

    attempt: Attempt
    signature: tuple[int, ...]
    since_s: float
    idle_s: float
    answered: int
    answered_s: float
    ticks: int
    asleep_s: float
    wait_key: str | None
    wait_since_s: float
    wait_said: bool = False


class Monitor:
    """See the module. `writers_of` maps a channel to those who write it.

    `fail` fails the run with a cause, and is told who is in the ring.
    """

    def __init__(
        self,
        processors: Mapping[str, ProcessorRun],
        writers_of: Mapping[str, tuple[str, ...]],
        bus: Bus,
        clock: Clock,
        fail: Callable[[str, tuple[str, ...]], None],
    ) -> None:
        self._processors = processors
        self._writers_of = writers_of
        self._bus = bus
        self._clock = clock
        self._fail = fail
        self._looks: dict[Instance, _Look] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """One look at everything."""
        now_s = self._clock()
        for processor in self._processors.values():
            for instance in processor.replicas:
                attempt = instance.attempt
                if attempt is None or attempt.pid is None or attempt.over:
                    self._looks.pop(instance, None)
                    instance.waiting = (attempt.waiting if attempt is not None else None) or self._idle_cause(instance)
                    continue
                look = self._renew(instance, attempt, now_s)
                self._stalled(processor, look, now_s)
                self._window(look, now_s)
                self._wait(processor, instance, look, now_s)
        self._rings(now_s)

    def _renew(self, instance: Instance, attempt: Attempt, now_s: float) -> _Look:
        signature = tuple(
            [feeder.written_bytes - feeder.unread_bytes for feeder in attempt.ports.feeders]
            + [item.delivered for item in attempt.ports.collectors]
        )
        answering = attempt.ports.answering
        answered = answering.answered if answering is not None else 0
        look = self._looks.get(instance)
        if look is None or look.attempt is not attempt:
            look = _Look(attempt, signature, now_s, now_s, answered, now_s, -1, now_s, None, now_s)
            self._looks[instance] = look
        moved = signature != look.signature
        if moved:
            look.signature, look.since_s, look.ticks = signature, now_s, -1
        if answered != look.answered or not self._in_flight(attempt):
            look.answered, look.answered_s = answered, now_s
            moved = moved or answering is not None
        elif answering is not None:
            moved = False  # reading on is no answer
        if attempt.ports.answered_by_exit:
            return look  # idle since its start: whatever it reads or writes, its end is what counts
        if moved or not self._in_flight(attempt) or self._held_up(attempt):
            look.idle_s = now_s
        return look

    @staticmethod
    def _in_flight(attempt: Attempt) -> bool:
        if attempt.ports.answering is not None:
            return attempt.ports.answering.pending_messages > 0
        return any(feeder.unread_bytes for feeder in attempt.ports.feeders)

    @staticmethod
    def _held_up(attempt: Attempt) -> bool:
        return any(item.paused for item in attempt.ports.collectors)

    def _stalled(self, processor: ProcessorRun, look: _Look, now_s: float) -> None:
        limit_s = processor.spec.stall_s
        attempt = look.attempt
        if limit_s is None or not attempt.ready or attempt.asked:
            return
        if now_s - look.idle_s >= limit_s:
            attempt.break_off(f"stalled: input in flight and no answer for {format_duration(limit_s)}")

    def _window(self, look: _Look, now_s: float) -> None:
        """A full window, nothing unread, no answer: the program buffers its output; let it have more."""
        answers = look.attempt.ports.answers
        if answers is None or not answers.window_full or self._held_up(look.attempt):
            return
        if answers.unread_bytes or now_s - look.answered_s < LOOK_EVERY_S:
            return
        if answers.grow():
            return
        ticks = cpu_ticks(look.attempt.pid or 0)
        if look.ticks != ticks:
            look.ticks, look.asleep_s = ticks, now_s
            return
        sure, _ = waits_for_pipes(look.attempt.pid or 0, frozenset({answers.inode}))
        enough_s = {Waits.SURELY: BUFFERS_SURE_S, Waits.MAYBE: BUFFERS_LIKELY_S}.get(sure)
        if enough_s is not None and now_s - look.asleep_s >= enough_s:
            look.attempt.break_off(
                f"buffers its output: {format_size(answers.pending_bytes)} read and not answered, which fills channel"
                f" `{answers.inlet.readers[0].channel}`; switch its buffering off (python3 -u, stdbuf -oL, awk"
                " fflush(), jq --unbuffered) or flush after each answer",
                final=True,
            )

    # -- waits

    def _wait(self, processor: ProcessorRun, instance: Instance, look: _Look, now_s: float) -> None:
        key, text = self._cause(look.attempt)
        instance.waiting = text
        if key != look.wait_key:
            if look.wait_said:
                self._bus.emit(WaitChanged(processor=processor.spec.name, replica=instance.replica, cause=None))
            look.wait_key, look.wait_since_s, look.wait_said = key, now_s, False
        elif key is not None and not look.wait_said and now_s - look.wait_since_s >= _SAY_WAIT_AFTER_S:
            look.wait_said = True
            self._bus.emit(WaitChanged(processor=processor.spec.name, replica=instance.replica, cause=text))

    def _cause(self, attempt: Attempt) -> tuple[str | None, str | None]:
        """(What is waited for, the same as a sentence); (None, None) when nothing holds it up."""
        if not attempt.ready:
            return "ready", "waiting until it is ready"
        for collector in attempt.ports.collectors:
            if collector.paused:
                readers, trouble = collector.blocked_by, collector.trouble
                if trouble is not None:
                    return "state", f"waiting until it can be stored: {trouble}"
                if not readers:
                    return "order", "waiting for answers that come before its own"
                return self._waiting_for(readers)
        answers = attempt.ports.answering
        if answers is not None and answers.window_full:
            return "answers", f"waiting for its answers, {format_size(answers.pending_bytes)} in flight"
        return self._closed(attempt)

    @staticmethod
    def _closed(attempt: Attempt) -> tuple[str | None, str | None]:
        ends: list[Spout | Intake] = [*attempt.ports.feeders, *attempt.ports.collectors]
        for end in ends:
            if end.unconnected:
                return "unconnected", f"no socket of it is connected to its `{end.port}`"
        for feeder in attempt.ports.feeders:
            if feeder.refused:
                return "refused", f"closed its `{feeder.port}` and runs on"
        for collector in attempt.ports.collectors:
            if collector.ended.is_set() and not attempt.outputs_unwanted:
                return "closed", f"closed its `{collector.port}` and runs on"
        return None, None

    def _idle_cause(self, instance: Instance) -> str | None:
        """Why it runs no program, where it is held up."""
        idle = instance.idle
        if idle is None:
            return None
        if idle.trouble is not None:
            return f"waiting until it can be stored: {idle.trouble}"
        if not idle.blocked_by:
            return None
        return self._waiting_for(idle.blocked_by)[1]

    def _waiting_for(self, readers: Sequence[Reader]) -> tuple[str, str]:
        """The one of `readers` that has the most before it, and that it is waited for."""
        reader = max(readers, key=lambda reader: reader.queued_bytes)
        if reader.outside:
            load, whom = format_size(reader.queued_bytes), f"the {reader.processor} of `{reader.channel}`"
        else:
            load, whom = self._load(reader.processor), f"`{reader.processor}`"
        return whom, f"waiting for {whom}, {load} in flight"

    def _load(self, name: str) -> str:
        processor = self._processors[name]
        size_bytes = sum(inlet.queued_bytes for inlet in processor.shared.inlets.values())
        return format_size(size_bytes + sum(feeder.backlog_bytes for feeder in processor.feeders()))

    # -- rings

    def _rings(self, now_s: float) -> None:
        held_up = [name for name, item in self._processors.items() if self._is_held_up(item)]
        if not held_up or not self._anybody_still(now_s):
            return
        waits = [wait for processor in self._processors.values() for wait in self._waits_of(processor, now_s)]
        ring = ring_of(stuck(waits))
        if ring is not None:
            said = ", ".join(str(wait) for wait in ring)
            self._fail(
                f"a ring of waits without progress: {said}; give the full channel more capacity, or let the program"
                " read its inputs as they come",
                tuple(wait.who for wait in ring),
            )

    def _anybody_still(self, now_s: float) -> bool:
        """Whether any instance has not moved for so long that there may be a ring."""
        if any(now_s - look.since_s >= RING_SURE_S for look in self._looks.values()):
            return True
        idles = [item.idle for processor in self._processors.values() for item in processor.replicas]
        return any(idle is not None and now_s - idle.since_s >= RING_SURE_S for idle in idles)

    def _is_held_up(self, processor: ProcessorRun) -> bool:
        for item in processor.replicas:
            if item.attempt is not None and self._held_up(item.attempt):
                return True
            if item.idle is not None and item.idle.blocked_by:
                return True
        return False

    def _waits_of(self, processor: ProcessorRun, now_s: float) -> list[Wait]:
        """What a processor waits for; nothing while any replica of it moves, or may."""
        found: list[Wait] = []
        for instance in processor.replicas:
            if not instance.alive:
                continue
            look = self._looks.get(instance)
            if look is None and instance.idle is not None and now_s - instance.idle.since_s >= RING_SURE_S:
                idle_waits = self._idle_waits(processor, instance.idle)
                if not idle_waits:
                    return []
                found += [Wait(processor.spec.name, *wait) for wait in idle_waits]
                continue
            if look is None or now_s - look.since_s < RING_SURE_S:
                return []
            waits = self._waits_for_room(look.attempt) + self._waits_for_messages(look.attempt, now_s - look.since_s)
            if not waits:
                return []
            found += [Wait(processor.spec.name, *wait) for wait in waits]
        return found

    def _idle_waits(self, processor: ProcessorRun, idle: Idle) -> list[tuple[str, str, bool]]:
        """(Whom, channel, whether for room) for an instance between two batches; nothing while one is in the making."""
        if idle.blocked_by:
            return [(reader.processor, reader.channel, True) for reader in idle.blocked_by if not reader.outside]
        batches = processor.shared.batches
        if batches is None or not batches.starved or idle.trouble is not None:
            return []
        return [
            (writer, reader.channel, False)
            for inlet in processor.shared.inlets.values()
            for reader in inlet.readers
            for writer in self._writers_of[reader.channel]
            if not self._processors[writer].done
        ]

    @staticmethod
    def _waits_for_room(attempt: Attempt) -> list[tuple[str, str, bool]]:
        """(Whom, channel, True) for each reader that holds it up."""
        readers = [reader for item in attempt.ports.collectors if item.paused for reader in item.blocked_by]
        return [(reader.processor, reader.channel, True) for reader in readers if not reader.outside]

    def _waits_for_messages(self, attempt: Attempt, still_s: float) -> list[tuple[str, str, bool]]:
        """(Whom, channel, False) for each writer of the ports that it waits for input on."""
        starved = {feeder.inode: feeder for feeder in attempt.ports.feeders if feeder.starved}
        if not starved:
            return []
        sure, inodes = waits_for_pipes(attempt.pid or 0, frozenset(starved))
        if sure is Waits.NO or (sure is Waits.MAYBE and still_s < RING_LIKELY_S):
            return []
        return [
            (writer, reader.channel, False)
            for inode in inodes
            for reader in starved[inode].readers
            for writer in self._writers_of[reader.channel]
            if not self._processors[writer].done
        ]
