"""How the parts of a run are joined: its channels, and what the ports of each processor have to do with them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runner.bridge.batch_cuts import Cuts
from runner.bridge.batches import Batches
from runner.bridge.inlet import Inlet
from runner.bridge.outlet import Outlet
from runner.bridge.screen import Screen
from runner.bridge.sequence import Sequencer
from runner.bridge.states import KeptState
from runner.channel.base import Channel
from runner.channel.durable import DurableChannel
from runner.channel.file_sink import FileSink
from runner.channel.file_source import FileSource
from runner.channel.network import Here, network_channel
from runner.channel.pipe import PIPE_BYTES, PipeChannel
from runner.channel.registry import channel_kind
from runner.clock import Clock
from runner.codec.registry import codec_named
from runner.events import Bus
from runner.spec.model import Channel as ChannelSpec
from runner.spec.model import Contract, Pipeline, Port, Processor
from runner.store.store import Store
from runner.supervise.letters import DeadLetters
from runner.supervise.ports import Shared
from runner.supervise.processor import ProcessorRun
from runner.supervise.refusals import Refusals


class Joiner:
    """See the module. `channels` is filled by `join`; `store` is there where a channel is durable."""

    def __init__(
        self,
        pipeline: Pipeline,
        run_id: str,
        channels: dict[str, Channel],
        *,
        bus: Bus,
        clock: Clock,
        store: Store | None,
        letters: DeadLetters,
    ) -> None:
        self.refusals: list[Refusals] = []
        self._pipeline = pipeline
        self._run_id = run_id
        self._channels = channels
        self._bus = bus
        self._clock = clock
        self._store = store
        self._letters = letters

    def join(self) -> dict[str, Shared]:
        """Make the channels, open every reader and then every writer; what the replicas of each processor share."""
        pipeline = self._pipeline
        for name, channel in pipeline.channels.items():
            self._channels[name] = self._channel(channel)
        shared = {name: Shared() for name in pipeline.processors}
        for name, spec in pipeline.processors.items():
            for port in spec.reads:
                self._open_inlet(spec, port, shared[name])
        for name, spec in pipeline.processors.items():
            for port in spec.writes:
                self._open_outlet(spec, port, shared[name])
            shared[name] = self._with_order(spec, shared[name])
        return shared

    def _channel(self, spec: ChannelSpec) -> Channel:
        if spec.network is not None:
            return network_channel(
                spec, self._store, Here(self._pipeline.name, self._pipeline.runner or "", self._run_id)
            )
        if not spec.durable:
            return channel_kind(spec.kind)(spec)
        assert self._store is not None
        if spec.file is None:
            return DurableChannel(spec, self._store)
        return (FileSink if spec.writers else FileSource)(spec, self._store)

    def _open_inlet(self, spec: Processor, port: Port, shared: Shared) -> None:
        first = self._channels[port.channels[0]]
        if isinstance(first, PipeChannel):
            shared.pipes_in[port.name] = first
            return
        codec = codec_named(port.codec)
        readers = [self._channels[name].open_reader(spec.name, codec) for name in port.channels]
        for reader in readers:
            reader.epoch = reader.epoch or self._run_id
            answered = port.name == "stdin" or spec.contract is Contract.ACKNOWLEDGED
            reader.claims = not answered or spec.contract is Contract.STREAM
        sharing = 1 if spec.contract is Contract.BATCH else spec.replicas  # a batch is as large as it may be
        shared.inlets[port.name] = Inlet(port.name, readers, replicas=sharing)

    def _open_outlet(self, spec: Processor, port: Port, shared: Shared) -> None:
        first = self._channels[port.channels[0]]
        if isinstance(first, PipeChannel):
            shared.pipes_out[port.name] = first
            return
        codec = codec_named(port.codec)
        writers = [self._channels[name].open_writer(spec.name, codec) for name in port.channels]
        screens = [self._screen(spec, self._pipeline.channels[name]) for name in port.channels]
        shared.outlets[port.name] = Outlet(port.name, writers, screens)

    def _screen(self, spec: Processor, channel: ChannelSpec) -> Screen | None:
        if channel.schema is None:
            return None
        refusals = Refusals(spec.name, channel.name, self._bus, self._clock, self._letters)
        self.refusals.append(refusals)
        return Screen(channel.name, channel.schema, refusals.refused)

    def _with_order(self, spec: Processor, shared: Shared) -> Shared:
        """The same, with what an answer needs: the largest window, the sequencer of replicas, the state."""
        state = None
        if spec.contract is Contract.ACKNOWLEDGED:
            state = KeptState(spec.name, self._store)
        answered = [port for port in spec.reads if port.name == "stdin" or state is not None]
        capacities = [self._pipeline.channels[name].capacity_bytes for port in answered for name in port.channels]
        sequencer = None
        outlet = shared.outlets.get("stdout")
        if spec.order == "keep" and spec.contract is Contract.ONE_TO_ONE and outlet is not None:
            sequencer = Sequencer(outlet.deliver, most_bytes=max(capacities, default=PIPE_BYTES))
        return Shared(
            shared.inlets,
            shared.outlets,
            shared.pipes_in,
            shared.pipes_out,
            sequencer,
            max(capacities, default=PIPE_BYTES),
            state,
            self._batches(spec, shared),
            self._store.path if self._store is not None else None,
        )

    def _batches(self, spec: Processor, shared: Shared) -> Batches | None:
        """What cuts its input into batches. What is not acknowledged takes up room in a durable channel."""
        if spec.contract is not Contract.BATCH:
            return None
        inlet = shared.inlets["stdin"]
        durable = [self._pipeline.channels[reader.channel] for reader in inlet.readers]
        durable = [channel for channel in durable if channel.durable]
        room_bytes = [max(1, channel.capacity_bytes // spec.replicas) for channel in durable]
        policy = replace(spec.batch, size_bytes=min(spec.batch.size_bytes, *room_bytes, spec.batch.size_bytes))
        return Batches(inlet, policy, Cuts(spec.name, [channel.name for channel in durable], self._store))


def tell_each_other(
    pipeline: Pipeline, channels: Mapping[str, Channel], processors: Mapping[str, ProcessorRun]
) -> None:
    """Let those who write to a channel and those who read from it know when the others have ended or left."""
    for name, spec in pipeline.channels.items():
        channel = channels[name]
        writers = [processors[writer] for writer in spec.writers]
        readers = [processors[reader] for reader in spec.readers]
        if isinstance(channel, PipeChannel):
            for reader in readers:
                reader.pipe_writers += writers
            for writer in writers:
                writer.pipe_readers += readers
        for reader in readers:
            channel.on_ended(reader.inputs_moved)
        for writer in writers:
            channel.on_readers_left(writer.check_wanted)
            writer.on_done += [reader.inputs_moved for reader in readers]
