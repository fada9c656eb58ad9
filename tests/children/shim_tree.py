"""Hides a descendant in the way that argv[1] names, writes the pids of all of its processes on one line, and stays."""

import os
import signal
import sys
import threading
import time


def stay():
    while True:
        time.sleep(3600)


def ignore(numbers):
    for number in set(numbers) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))


def fork_one(then):
    """Forks; the child does `then`, which returns the pids it made and is not waited for. Returns all pids."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        made = then()
        os.write(writing, " ".join(map(str, made)).encode() + b"\n")
        os.close(writing)
        stay()
    os.close(writing)
    with os.fdopen(reading) as lines:
        return [pid, *map(int, lines.readline().split())]


def session():
    os.setsid()
    return []


def group():
    """One child in the program's own process group, one outside of it."""
    return fork_one(list) + fork_one(session)


def double_fork():
    """The middle process ends, so that the last is nobody's child any more."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, f"{os.getpid()}\n".encode())
            os.close(writing)
            stay()
        os._exit(0)
    os.waitpid(middle, 0)
    with os.fdopen(reading) as lines:
        return [int(lines.readline())]


def deaf():
    ignore(range(1, signal.NSIG))
    return session()


def deep():
    """Five generations, each in a session of its own and deaf."""

    def below(depth):
        deaf()
        return fork_one(lambda: below(depth - 1)) if depth else []

    return fork_one(lambda: below(4))


def from_thread():
    """The child of a thread that is not the main one: it is in that thread's list only."""
    found = []

    def run():
        found.extend(fork_one(session))
        stay()

    threading.Thread(target=run, daemon=True).start()
    while not found:
        time.sleep(0.001)
    return found


def vfork():
    """CPython's subprocess uses vfork where it can."""
    import subprocess

    return [subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True).pid]


def stopped():
    pids = fork_one(session)
    os.kill(pids[0], signal.SIGSTOP)
    return pids


KINDS = {
    "group": group,
    "session": lambda: fork_one(session),
    "double-fork": double_fork,
    "deaf": lambda: fork_one(deaf),
    "deep": deep,
    "thread": from_thread,
    "vfork": vfork,
    "stopped": stopped,
}

if __name__ == "__main__":
    pids = KINDS[sys.argv[1]]()
    ignore(set(range(1, signal.NSIG)) - {signal.SIGCHLD})
    print(os.getpid(), *pids, flush=True)
    stay()
