"""Programs with plain ZeroMQ sockets (pyzmq). usage: sockets.py WHAT [ARGUMENT…]; each function is a WHAT.

How they end: an empty message where TEST_END is "empty", else SIGTERM, after which they take what is there.
"""

import os
import signal
import sys
import time
from pathlib import Path

import zmq

BY_MESSAGE = os.environ.get("TEST_END") == "empty"
CONTEXT = zmq.Context()
STOPPED = []
if not BY_MESSAGE and "careless" not in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: STOPPED.append(True))  # before any socket takes a message


def pull(port="STDIN"):
    socket = CONTEXT.socket(zmq.PULL)
    socket.connect(os.environ[f"CONNECTOR_READER_{port}"])
    return socket


def push(port="STDOUT"):
    socket = CONTEXT.socket(zmq.PUSH)
    socket.connect(os.environ[f"CONNECTOR_WRITER_{port}"])
    return socket


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def messages(socket):
    while True:
        if BY_MESSAGE or STOPPED:
            try:
                message = socket.recv(zmq.NOBLOCK if STOPPED else 0)
            except zmq.Again:
                return
            if BY_MESSAGE and not message:
                return
            yield message
        elif socket.poll(20):
            yield socket.recv()


def finish():
    """Wait until all that was sent is gone."""
    CONTEXT.destroy(linger=-1)


def echo(die_after="0", once=""):
    """Each message by itself; killed by itself after so many (only the first time, where `once` names a file)."""
    here, there = pull(), push()
    for count, message in enumerate(messages(here), 1):
        there.send(message)
        if count == int(die_after) and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            die()
    finish()


def store(file, pause="0"):
    """A sink: each message as a line of the file."""
    with Path(file).open("ab", buffering=0) as kept:
        for message in messages(pull()):
            time.sleep(float(pause))
            kept.write(message + b"\n")
    finish()


def numbers(count, size="10", last=""):
    """A source: so many numbered messages."""
    there = push()
    for number in range(1, int(count) + 1):
        there.send(b"%010d" % number + b"x" * (int(size) - 10))
    if last == "multipart":
        there.send_multipart([b"two", b"parts"])
    if last == "empty":
        there.send(b"")
    if last == "die":
        time.sleep(0.2)
        die()
    finish()


def ports():
    """Odd messages to the port `odd`, others to `even`; reads stdin, then `more`."""
    odd, even = push("ODD"), push("EVEN")
    for name in ("STDIN", "MORE"):
        for message in messages(pull(name)):
            (odd if int(message[:10]) % 2 else even).send(name.encode() + b" " + message)
    finish()


def head(count):
    """Takes so many and leaves."""
    here = pull()
    for _ in range(int(count)):
        print(here.recv().decode(), file=sys.stderr, flush=True)
    finish()


def never_reads():
    """Connects, and reads nothing; its library takes no more than one message."""
    socket = CONTEXT.socket(zmq.PULL)
    socket.rcvhwm = 1
    socket.connect(os.environ["CONNECTOR_READER_STDIN"])
    print("connected", file=sys.stderr, flush=True)
    time.sleep(3600)


def careless():
    """Its socket takes messages, and the stop signal ends it before it has looked at any."""
    here = pull()
    while not here.poll(1000):
        pass
    print("connected", file=sys.stderr, flush=True)
    time.sleep(3600)


def never_connects():
    time.sleep(3600)


def reconnects():
    """A socket of its own for every ten messages, in both directions, each closed before the next."""
    here = pull()
    for count, message in enumerate(messages(here)):
        there = push()
        there.send(message)
        there.close(linger=-1)
        if count % 10 == 9:
            time.sleep(0.01)
    finish()


def wrong_type():
    """A SUB where a PULL is due; then the right one."""
    wrong = CONTEXT.socket(zmq.SUB)
    wrong.connect(os.environ["CONNECTOR_READER_STDIN"])
    time.sleep(0.5)
    wrong.close(linger=0)
    echo()


def second():
    """A second PULL beside the first."""
    other = pull()
    first = other
    other = pull()
    assert other is not first
    there = push()
    poller = zmq.Poller()
    poller.register(first, zmq.POLLIN)
    poller.register(other, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            message = socket.recv()
            if not message:
                finish()
                return
            there.send(message)


def heartbeats():
    """Its library pings ours, and hangs up when no answer comes."""
    here, there = CONTEXT.socket(zmq.PULL), CONTEXT.socket(zmq.PUSH)
    losses = []
    for socket, variable in ((here, "CONNECTOR_READER_STDIN"), (there, "CONNECTOR_WRITER_STDOUT")):
        socket.heartbeat_ivl = 20
        socket.heartbeat_timeout = 500
        losses.append(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
        socket.connect(os.environ[variable])
    for message in messages(here):
        there.send(message)
    if any(loss.poll(0) for loss in losses):
        print("hung up", file=sys.stderr, flush=True)
    os._exit(0 if there.close(linger=-1) is None else 1)


globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
