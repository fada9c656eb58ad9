"""Connector protocol 1 for processors in Python (contract "acknowledged"). Copy this file beside your program.

    from connector_processor import Processor
    def handle(message):                      # an exception is a nack: the message comes again
        yield message.payload.upper()         # any number of outputs: bytes or str, to stdout,
        yield "errors", b"..."                # or (port, bytes or str); `return` does for a single one

    Processor().run(handle)

The outputs of a message are committed together with it, or not at all. With stateful=True, `.state` is what was
committed last (None: nothing yet); what is set while a message is handled is committed with it. at_end() gives last
outputs; on_committed(n): n states are safe (to a source: from another thread). print() goes to stderr. Exit status:
0 after the last message, 143 after SIGTERM (what is at hand is finished first), 1 when the runner has gone. Python 3.9.
"""

import asyncio
import os
import pathlib
import select
import signal
import sys
import threading
import time

READ_BYTES, WRITE_BYTES, SETTLE = 1 << 18, 1 << 16, 500  # SETTLE messages are acknowledged even if more wait
TEXT = 4096  # the longest reason or log line that is sent, in characters
ONE = (bytes, bytearray, memoryview, str, tuple)  # what is a single output


class Message:
    """A message. `id` is the same each time it comes, and never another's: what makes a sink idempotent."""

    __slots__ = ("_processor", "_words", "payload")

    def __init__(self, processor, words, payload):
        self._processor, self._words, self.payload = processor, words, payload

    number = property(lambda self: int(self._words[3]), doc="Counts the messages of its channel from 1.")
    attempt = property(lambda self: int(self._words[4]), doc="1; more when it was given to a program before.")
    port = property(lambda self: self._words[5].decode(), doc="Where it came in, `stdin` as a rule.")
    channel = property(lambda self: self._words[6].partition(b"@")[0].decode(), doc="The name of its channel.")
    id = property(lambda self: f"{self._words[6].decode()}:{self.number}", doc="CHANNEL@EPOCH:NUMBER")

    def out(self, payload, port="stdout"):
        self._processor._output(self._words[2], (port, payload))

    def ack(self):
        self._processor._put(b"ack 0 %b\n" % self._words[2])

    def nack(self, reason, delay_s=0.0):
        data = str(reason)[:TEXT].encode("utf-8", "replace")
        self._processor._put(b"nack %d %b delay=%d\n" % (len(data), self._words[2], delay_s * 1000), data)


class State(bytes):
    """What a source yields to commit everything that it yielded before."""


class Processor:
    """One session with the runner; stdin and stdout are taken for it. Each run... returns when all is over."""

    def __init__(self, stateful=False, at_end=None, on_committed=None):
        self.stateful, self.at_end, self.on_committed, self.state = stateful, at_end, on_committed, None
        self._parts, self._lock, self._unsent = [], threading.RLock(), threading.Event()
        self._size = self._states = self._confirmed = self._done = self._stopping = self._idle = 0

    def run(self, handle):
        """Call `handle(message)` for each message."""
        self._session(lambda frames: self._serve(frames, lambda batch: self._try(handle, batch[0], batch), 1))

    def run_batches(self, handle, most=1000):
        """Call `handle(messages)`. When that fails, each is tried alone, to find the one that does not work."""
        self._session(lambda frames: self._serve(frames, lambda batch: self._try(handle, batch, batch), most))

    def run_manual(self, handle):
        """Call `handle(message)`; any thread, at any time, calls message.out(), then .ack() or .nack()."""
        self._session(lambda frames: self._serve(frames, lambda batch: handle(batch[0]), 1))

    def run_source(self, generate):
        """Write what `generate(state)` yields, where `state` is the one committed last, or None."""
        self._session(lambda frames: self._generate(frames, generate))

    def commit(self, state):
        """Send `state`: it covers all that was acknowledged, and all outputs in answer to nothing, so far."""
        self._states, self.state = self._states + 1, bytes(state)
        self._put(b"state %d %d\n" % (len(state), self._states), self.state)

    def log(self, text, level="info"):
        """A line for the runner's log. Levels: debug, info, warning, error."""
        data = str(text)[:TEXT].encode("utf-8", "replace")
        self._put(b"log %d %b\n" % (len(data), level.encode()), data)

    def _put(self, header, payload=b""):
        with self._lock:  # any thread may answer, and nothing comes between a header and its payload
            self._parts += (header, payload)
            self._size += len(header) + len(payload)
            if self._idle or self._size > WRITE_BYTES:
                self._flush()

    def _output(self, delivery, output):
        if type(output) is bytes:
            return self._put(b"out %d %b stdout\n" % (len(output), delivery), output)
        port, payload = output if type(output) is tuple else ("stdout", output)
        payload = payload.encode() if type(payload) is str else bytes(payload)
        self._put(b"out %d %b %b\n" % (len(payload), delivery, port.encode()), payload)

    def _settle(self, idle=False):  # between messages, so that the state covers exactly what is acknowledged
        if self._done:
            self._put(b"ack 0 %b %b\n" % (self._first, self._last))
            self._done = 0
            if self.stateful:
                self.commit(self.state or b"")
        with self._lock:
            self._idle = idle  # what other threads put leaves at once
            self._flush()

    def _flush(self):
        with self._lock:
            data, self._parts, self._size = memoryview(b"".join(self._parts)), [], 0
            try:
                while data:
                    data = data[os.write(self._stdout, data) :]
            except BrokenPipeError:  # the runner has gone
                os._exit(1)

    def _session(self, serve):
        (woken, self._waker), self._stdout, stdin = os.pipe(), os.dup(1), os.dup(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # what is printed, here or in children, is no frame
        sys.stdout.reconfigure(line_buffering=True)
        signal.signal(signal.SIGTERM, self._terminate)
        self._put(b"ready 0 1 stateful=yes\n" if self.stateful else b"ready 0 1\n")
        self._flush()
        frames = self._frames(stdin, woken)
        words, payload = next(frame for frame in frames if frame)
        if b"state=none" not in words:
            self.state = payload if b"state=here" in words else pathlib.Path(os.fsdecode(payload)).read_bytes()
        serve(frames)
        for output in (self.at_end and self.at_end()) or ():
            self._output(b"0", output)
        self._put(b"end 0\n")
        self._flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _terminate(self, *_):  # on SIGTERM
        self._stopping = True
        os.write(self._waker, b"x")

    def _stop(self):
        with self._lock:  # no frame is cut in two
            self._settle()
            os._exit(143)  # other threads may wait for what never comes

    def _frames(self, stdin, woken):  # (words of the header, payload); None before it waits for more
        data, start = b"", 0
        while True:
            if stop := data.find(b"\n", start) + 1:
                words = data[start : stop - 1].split(b" ")
                end = stop + int(words[1])
                if end <= len(data):
                    yield words, data[stop:end]
                    start = end
                    continue
            pieces, missing = [data[start:]], end - len(data) if stop else 1
            while missing > 0:
                if not select.select((stdin, woken), (), (), 0)[0]:
                    yield None
                    select.select((stdin, woken), (), ())
                    self._idle = False
                if self._stopping:
                    self._stop()
                pieces.append(os.read(stdin, READ_BYTES) or os._exit(1))  # at its end the runner has gone
                missing -= len(pieces[-1])
            data, start = b"".join(pieces), 0

    def _serve(self, frames, each, most):
        batch = []
        for frame in frames:
            message = frame and frame[0][0] == b"msg"
            if message:
                batch.append(Message(self, *frame))
            if batch and (len(batch) >= most or not message):
                each(batch)
                batch = []
                if self._stopping:
                    self._stop()
            if frame is None or self._done > SETTLE:
                self._settle(idle=frame is None)
            if frame and not message and self._other(*frame):
                return self._settle()

    def _other(self, words, payload):  # whether this frame says that all is over
        if words[0] == b"ping":
            self._put(b"pong 0 %b\n" % words[2])
        elif words[0] == b"ack-state":
            self._confirmed = int(words[2])
            if self.on_committed:
                self.on_committed(self._confirmed)
        return words[0] == b"end" and len(words) == 2

    def _try(self, handle, given, batch):  # handles messages as one
        state, first, last = self.state, batch[0]._words[2], batch[-1]._words[2]
        try:
            result = handle(given)
            if type(result) is bytes:  # what there is most of, with few calls
                self._put(b"out %d %b stdout\n" % (len(result), last), result)
            elif result is not None:
                outputs = (result,) if isinstance(result, ONE) else result if len(batch) == 1 else list(result)
                for output in outputs:
                    self._output(last, output)
        except Exception as error:
            self.state = state
            if len(batch) == 1:
                self._settle()
                return batch[0].nack(f"{type(error).__name__}: {error}", getattr(error, "delay_s", 0.0))
            for message in batch:
                self._try(handle, [message], [message])
        else:
            self._first, self._last = self._first if self._done else first, last
            self._done += len(batch)

    def _source_output(self, output):
        self.commit(output) if isinstance(output, State) else self._output(b"0", output)
        self._unsent.set()

    def _generate(self, frames, generate):
        def listen():
            for frame in frames:
                self._other(*frame or [[b""], b""])
                self._flush()

        def trickle():  # a slow source waits for nobody
            while self._unsent.wait():
                time.sleep(0.002)
                self._unsent.clear()
                self._flush()

        async def drain():
            async for output in outputs:
                self._source_output(output)

        threading.Thread(target=listen, daemon=True).start()
        threading.Thread(target=trickle, daemon=True).start()
        outputs = generate(self.state)
        asyncio.run(drain()) if hasattr(outputs, "__aiter__") else any(map(self._source_output, outputs))
        self._flush()
        while self._confirmed < self._states and self.on_committed:
            time.sleep(0.001)
