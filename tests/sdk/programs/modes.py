"""One processor on the Python SDK per mode; modes.mjs and Modes.java do the same."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "sdk" / "python"))
from connector_processor import Processor, State


def checked(message):
    if message.payload == b"bad":
        raise ValueError(f"attempt {message.attempt} of {message.id} on {message.port} from {message.channel}")
    return message.payload


def echo():
    Processor().run(checked)


def batches():
    Processor().run_batches(lambda messages: (checked(message) for message in messages))


def manual():
    work = queue.Queue()

    def worker():
        while True:
            message = work.get()
            if message.payload == b"bad":
                message.nack("no", 0.25)
            else:
                message.out(message.payload)
                message.ack()

    threading.Thread(target=worker, daemon=True).start()
    Processor().run_manual(work.put)


def count():
    processor = Processor(stateful=True)

    def handle(message):
        processor.state = b"%d" % (int(processor.state or 0) + 1)
        yield processor.state
        checked(message)

    processor.run(handle)


def source():
    committed = []

    def generate(state):
        for number in range(int(state or 0) + 1, 1001):
            yield b"%d" % number
            if number % 10 == 0:
                yield State(b"%d" % number)

    Processor(stateful=True, on_committed=committed.append).run_source(generate)
    assert committed[-1:] == [100] or len(committed) < 100, committed[-3:]


def live():
    async def generate(_state):
        yield "one"
        await __import__("asyncio").sleep(60)

    Processor().run_source(generate)


def noise():
    def handle(message):
        print("out 1 1 stdout")
        subprocess.run(["echo", "noise of a child"], check=True)
        return "errors", message.payload

    Processor().run(handle)


def total():
    seen = []
    Processor(at_end=lambda: [str(len(seen))]).run(seen.append)


globals()[sys.argv[1]]()
