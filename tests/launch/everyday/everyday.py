"""What Python programs do every day, so far as system calls go; prints "fine"."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import mmap
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


async def speak() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(1)", stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"1\n"


def files(folder: Path) -> None:
    file = folder / "file"
    file.write_bytes(b"x" * 10_000)
    shutil.copy2(file, folder / "copy")
    shutil.copytree(folder, folder.with_name(folder.name + "-tree"))
    file.chmod(0o600)
    os.utime(file, (1, 1))
    file.rename(folder / "renamed")
    (folder / "link").symlink_to("renamed")
    os.mkfifo(folder / "fifo")
    os.truncate(folder / "copy", 5)
    with (folder / "copy").open("r+b") as copy:
        fcntl.flock(copy, fcntl.LOCK_EX)
        fcntl.lockf(copy, fcntl.LOCK_UN)
        os.posix_fallocate(copy.fileno(), 0, 4096)
        os.fsync(copy.fileno())
        with mmap.mmap(copy.fileno(), 4096) as mapped:
            mapped[0] = 65
            mapped.flush()
    assert sorted(each.name for each in folder.iterdir()) == ["copy", "fifo", "link", "renamed"]
    with sqlite3.connect(folder / "base") as base:
        base.execute("pragma journal_mode = wal")
        base.execute("create table t (a)")
        base.executemany("insert into t values (?)", [(1,), (2,)])
        assert base.execute("select sum(a) from t").fetchone() == (3,)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files(Path(folder))
    asyncio.run(speak())
    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    thread = threading.Thread(target=time.sleep, args=(0.001,))
    thread.start()
    thread.join()
    assert subprocess.run(["echo", "hi"], capture_output=True, text=True, check=True).stdout == "hi\n"
    here, there = socket.socketpair()
    here.sendmsg([b"x"])
    assert there.recv(1) == b"x"
    assert socket.if_nameindex()
    assert socket.getaddrinfo("127.0.0.1", 80)
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP).close()
    with select.epoll() as poll:
        poll.register(there)
        poll.poll(0)
    os.close(os.memfd_create("m"))
    os.close(os.pidfd_open(os.getpid()))
    signal.setitimer(signal.ITIMER_REAL, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.nice(1)
    os.getrandom(8)
    os.sync()
    pid, leader = os.forkpty()
    if pid == 0:
        os._exit(0 if os.isatty(0) and os.get_terminal_size(0) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(leader)
    assert ctypes.CDLL(None).personality(ctypes.c_ulong(0xFFFFFFFF)) != -1
    print("fine")


if __name__ == "__main__":
    main()
