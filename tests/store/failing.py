"""A child whose disk fails: `python -m tests.store.failing limit|sync|write FOLDER`.

`limit`: files may not grow beyond a limit (RLIMIT_FSIZE), which is lifted later. `sync` and `write`: the kernel answers
these system calls with EIO (a seccomp filter). It tells what it sees, a line each.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import platform
import resource
import struct
import sys
from pathlib import Path

from runner.errors import RunnerError
from runner.store import Store
from tests.store.stores import all_of, opened, put_in, right

CALLS = {
    "x86_64": {"sync": (75,), "write": (18, 296)},
    "aarch64": {"sync": (83,), "write": (68, 70)},
}
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_LOAD, _EQUAL, _RETURN, _ALLOW, _ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000


def fail(numbers: tuple[int, ...]) -> None:
    """From now on these system calls fail with EIO in this process (seccomp(2))."""
    program = [(_LOAD, 0, 0, 0)]
    for at, number in enumerate(numbers):
        program.append((_EQUAL, len(numbers) - at, 0, number))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EIO)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    holder = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.syscall(_SECCOMP[platform.machine()], _SET_FILTER, _ALL_THREADS, ctypes.c_char_p(holder)) == 0


async def trouble(store: Store) -> None:
    """Return at the next change of what the store says of itself."""
    changed = asyncio.Event()
    store.on_trouble = changed.set
    await changed.wait()


async def main(what: str, folder: Path) -> None:
    """See the module."""
    store = opened(folder, "a", sync=what == "sync")
    put_in(store, "a", 10, 1000)
    await store.flush()
    if what == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    else:
        fail(CALLS[platform.machine()][what])
    for _ in range(20):
        put_in(store, "a", 10, 20_000)
    flushing = asyncio.ensure_future(store.flush())
    await trouble(store)
    print("failed" if store.failed else "stuck", store.failed or store.stuck, flush=True)
    assert store.state("a").last == 10
    if what == "limit":
        assert not flushing.done()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await flushing
        assert store.stuck is None
        found = all_of(store, "a")
        right(found, "a")
        print("there", len(found))
    elif store.failed:
        try:
            await flushing
        except RunnerError as error:
            assert error is store.failed
            print("raised")
    else:
        flushing.cancel()
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
