"""Hand-written clients of the connector protocol. usage: acknowledges.py WHAT [ARGUMENT…]; each function is a WHAT.

Over a DEALER socket where CONNECTOR_ENDPOINT says so (which needs pyzmq), else over stdin and stdout.
"""

import atexit
import contextlib
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

READ, WRITE = os.dup(0), os.dup(1)
DEALER = None
if "CONNECTOR_ENDPOINT" in os.environ:
    import zmq

    CONTEXT = zmq.Context()
    DEALER = CONTEXT.socket(zmq.DEALER)
    DEALER.connect(os.environ["CONNECTOR_ENDPOINT"])
    atexit.register(CONTEXT.term)  # what was sent leaves before the program does
    atexit.register(DEALER.close)


def send(header, payload=b""):
    if DEALER is not None:
        DEALER.send_multipart([header, payload] if payload else [header])
        return
    data = memoryview(header + b"\n" + payload)
    while data:
        data = data[os.write(WRITE, data) :]


def out(delivery, payload, port=b"stdout"):
    send(b"out %d %b %b" % (len(payload), delivery, port), payload)


def frames(idle=False):
    """(words of the header, payload), until the runner's `end` or the end of file; pings are answered.

    `idle`: no words, whenever the input (stdin) waits.
    """
    for words, payload in frames_of_socket() if DEALER is not None else frames_of_stdin(idle):
        if words[0] == b"ping":
            send(b"pong 0 " + words[2])
            continue
        if words[0] == b"end" and len(words) == 2:
            return
        yield words, payload


def frames_of_socket():
    while True:
        header, *payload = DEALER.recv_multipart()
        yield header.split(), b"".join(payload)


def frames_of_stdin(idle):
    with open(READ, "rb", buffering=0, closefd=False) as raw:
        rest = b""
        while True:
            while (stop := rest.find(b"\n")) < 0 or len(rest) < stop + 1 + int(rest[:stop].split()[1]):
                if idle and not select.select([raw], [], [], 0)[0]:
                    yield [b""], b""
                data = raw.read(1 << 16)
                if not data:
                    sys.exit(1)
                rest += data
            words = rest[:stop].split()
            end = stop + 1 + int(words[1])
            payload, rest = rest[stop + 1 : end], rest[end:]
            yield words, payload


def messages():
    for words, payload in frames():
        if words[0] == b"msg":
            yield words, payload


def ready(stateful=False):
    send(b"ready 0 1 stateful=yes" if stateful else b"ready 0 1")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def echo(times="1", die_after="0", *_):
    """Each message by itself, so often; killed by itself after so many messages, between output and `ack`."""
    ready()
    for count, (words, payload) in enumerate(messages(), 1):
        for _ in range(int(times)):
            out(words[2], payload)
        if count == int(die_after):
            die()
        send(b"ack 0 " + words[2])
    send(b"end 0")


def sums(die_after="0"):
    """Stateful: the sum so far after each message, a state after each third or when told all is over."""
    ready(stateful=True)
    total = states = 0
    for count, (words, payload) in enumerate(frames()):
        if words[0] == b"ack-state" and words[2] == b"0":
            total = int(payload or b"0")
        if words[0] != b"msg":
            continue
        total += int(payload[:10])
        out(words[2], b"%d" % total)
        send(b"ack 0 " + words[2])
        if count == int(die_after):
            die()
        states += 1
        send(b"state %d %d" % (len(b"%d" % total), states), b"%d" % total)
    out(b"0", b"total %d" % total)
    send(b"end 0")


def large_state(size, folder):
    """Stateful: a state of so many bytes; dies once, and says what it was given back."""
    ready(stateful=True)
    mark = Path(folder, "died")
    for words, payload in frames():
        if words[0] == b"ack-state" and words[2] == b"0":
            given = payload
            if b"state=file" in words:
                assert os.environ["CONNECTOR_STATE_FILE"] == payload.decode()
                given = Path(payload.decode()).read_bytes()
            print("given", words[3].decode(), len(given), set(given) <= {120}, file=sys.stderr)
        elif words[0] == b"ack-state" and not mark.exists():
            break
        elif words[0] == b"msg":
            send(b"ack 0 " + words[2])
            send(b"state %d %b" % (int(size), words[2]), b"x" * int(size))
    if not mark.exists():  # a state is committed when it is sent, confirmed or not
        mark.touch()
        die()
    send(b"end 0")


def source(count, die_after="0", every="10", pause="0"):
    """A stateful source of numbers; a state (and a pause) after so many; killed after so many messages of each run."""
    ready(stateful=True)
    conversation = frames()
    words, payload = next(conversation)
    number = int(payload or b"0") if words[0] == b"ack-state" else 0
    states = 0
    for written in range(1, int(count) - number + 1):
        number += 1
        out(b"0", b"%010d" % number)
        if number % int(every) == 0:
            states += 1
            send(b"state %d %d" % (len(b"%d" % number), states), b"%d" % number)
            time.sleep(float(pause))
        if written == int(die_after):
            die()
    send(b"end 0")


def nacks(every, times, delay="0"):
    """Echoes; each so many-th message is nacked so many times first, with a delay."""
    ready()
    for words, payload in messages():
        if int(payload[:10]) % int(every) == 0 and int(words[4]) <= int(times):
            reason = b"not yet"
            out(words[2], b"never seen")
            send(b"nack %d %b delay=%b" % (len(reason), words[2], delay.encode()), reason)
        else:
            out(words[2], payload)
            send(b"ack 0 " + words[2])
    send(b"end 0")


def end_badly(how):
    """A death of one's own; `later` is none."""
    if how == "hang":
        time.sleep(3600)
    if how == "kill":
        die()
    print("cannot handle this", file=sys.stderr, flush=True)
    os._exit(75 if how == "later" else 3)


def poison(bad, how="exit", at_once="1", down="/nonexistent", once="/nonexistent"):
    """Echoes, so many at once and in any order; dies of the BAD (a comma list), and of all while DOWN is there.

    Of the BAD no more once ONCE is there.
    """
    ready()
    killers = {int(number) for number in bad.split(",") if number}
    held, chance = [], random.Random(os.getpid())

    def answer():
        words, payload = held.pop(chance.randrange(len(held)))
        if (int(payload[:10]) in killers and not Path(once).exists()) or Path(down).exists():
            end_badly(how)
        out(words[2], payload)
        send(b"ack 0 " + words[2])

    for words, payload in frames(idle=True):
        if words[0] == b"msg":
            held.append((words, payload))
        while len(held) >= int(at_once) or (held and not words[0]):
            answer()
    send(b"end 0")


def poisoned_sums(bad, every="3"):
    """Stateful: the sum so far after each message, a state after so many or when the input waits; dies of the BAD."""
    ready(stateful=True)
    killers = {int(number) for number in bad.split(",") if number}
    total = states = unsaved = 0
    for words, payload in frames(idle=True):
        if words[0] == b"ack-state" and words[2] == b"0":
            total = int(payload or b"0")
        if words[0] == b"msg":
            if int(payload[:10]) in killers:
                end_badly("exit")
            total += int(payload[:10])
            out(words[2], b"%d" % total)
            send(b"ack 0 " + words[2])
            unsaved += 1
        if unsaved >= int(every) or (unsaved and not words[0]):
            states, unsaved = states + 1, 0
            send(b"state %d %d" % (len(b"%d" % total), states), b"%d" % total)
    out(b"0", b"total %d" % total)
    send(b"end 0")


def refuses(bad, down="/nonexistent", delay="0"):
    """Echoes; gives the BAD (a comma list) back each time, and all while DOWN is there."""
    ready()
    refused = {int(number) for number in bad.split(",") if number}
    for words, payload in messages():
        if int(payload[:10]) in refused or Path(down).exists():
            reason = b"no such customer"
            send(b"nack %d %b delay=%b" % (len(reason), words[2], delay.encode()), reason)
        else:
            out(words[2], payload)
            send(b"ack 0 " + words[2])
    send(b"end 0")


def backwards(most="7"):
    """Answers what it has in the wrong order, in ranges and alone; a message has as many outputs as its number % 3."""
    ready()
    held = []

    def settle():
        for words, payload in reversed(held):
            for _ in range(int(payload[:10]) % 3):
                out(words[2], payload)
        if len(held) > 3:
            send(b"ack 0 %b %b" % (held[2][0][2], held[-1][0][2]))
            del held[2:]
        for words, _ in reversed(held):
            send(b"ack 0 " + words[2])
        held.clear()

    for words, payload in frames():
        if words[0] == b"msg":
            held.append((words, payload))
        if len(held) == int(most) or words[0] == b"end":
            settle()
    settle()
    send(b"end 0")


def ports():
    """Odd messages to `odd`, others to `even`; what it reads where comes first."""
    ready()
    for words, payload in messages():
        out(words[2], words[5] + b" " + payload, b"odd" if int(payload[:10]) % 2 else b"even")
        send(b"ack 0 " + words[2])
    send(b"end 0")


def identities(bad="0", once="/nonexistent"):
    """The number, the attempt and the channel of each message; every third is nacked once.

    With BAD it dies of that until ONCE is there, and gives the channel with its epoch.
    """
    ready()
    for words, payload in messages():
        if int(payload[:10]) == int(bad) and not Path(once).exists():
            end_badly("exit")
        if words[4] == b"1" and int(words[3]) % 3 == 0:
            send(b"nack 0 " + words[2])
            continue
        channel = words[6] if int(bad) else words[6].partition(b"@")[0]
        out(words[2], b" ".join((*words[3:5], channel, payload[:10])))
        send(b"ack 0 " + words[2])
    send(b"end 0")


def stores(file):
    """A sink: the number and the payload of each message, in a file, before it is acknowledged."""
    ready()
    with Path(file).open("ab", buffering=0) as kept:
        for words, payload in messages():
            kept.write(words[3] + b" " + payload + b"\n")
            send(b"ack 0 " + words[2])
    send(b"end 0")


def garbage(after):
    """Echoes so many, then prints what is no frame."""
    ready()
    for count, (words, payload) in enumerate(messages()):
        if count == int(after):
            if DEALER is None:
                os.write(WRITE, b"hello, I am a debugging print\n")
            else:
                send(b"hello, I am a debugging print")
            time.sleep(60)
        out(words[2], payload)
        send(b"ack 0 " + words[2])


def never_ready():
    """Prints nothing."""
    time.sleep(60)


def silent_once(folder):
    """Opens the session and hears nothing any more; the second time it echoes."""
    mark = Path(folder, "silent")
    if mark.exists():
        echo()
        return
    mark.touch()
    ready()
    while True:
        time.sleep(60)


def slow(pause, told="0"):
    """Echoes, and takes its time over each message; logs a line after so many."""
    ready()
    for count, (words, payload) in enumerate(messages(), 1):
        time.sleep(float(pause))
        out(words[2], payload)
        send(b"ack 0 " + words[2])
        if count == int(told):
            print("so many", file=sys.stderr, flush=True)
    send(b"end 0")


def hoards(size):
    """Outputs without an `ack`, so many bytes of them."""
    ready()
    for words, _ in messages():
        for _ in range(int(size) // (1 << 20)):
            out(words[2], b"x" * (1 << 20))


def leaves(after):
    """Echoes so many and wants no more."""
    ready()
    for count, (words, payload) in enumerate(messages(), 1):
        out(words[2], payload)
        send(b"ack 0 " + words[2])
        if count == int(after):
            break
    send(b"end 0")


def forgets_end():
    """Echoes and exits with 0, without a word."""
    ready()
    for words, payload in messages():
        out(words[2], payload)
        send(b"ack 0 " + words[2])


def lingers():
    """Echoes, says `end`, and does not exit."""
    echo()
    time.sleep(3600)


def logs():
    """Says something at each level, then echoes."""
    for level, text in ((b"info", b"all well\nreally"), (b"warning", b"it rains")):
        send(b"log %d %b" % (len(text), level), text)
    echo()


with contextlib.suppress(BrokenPipeError):
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
