"""The `pipe` channel: one kernel pipe from a program straight to the next, uncounted, at full pipe speed.

The runner creates it, hands its ends to the two programs and closes its own copies; what flows in it is not seen. The
loader allows it only with one writer, one reader, the same codec, contract `stream` and no restarts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable

from runner.channel.base import Channel, Reader, Writer
from runner.codec.base import Codec
from runner.errors import BugError
from runner.spec.model import Channel as ChannelSpec

PIPE_BYTES = 512 << 10
"""As large as pays: a megabyte is no quicker, and leaves the processor's cache sooner (docs/decisions)."""
_LEAST_PIPE_BYTES = 4096


def resize_pipe(descriptor: int, most_bytes: int) -> int:
    """Make a pipe as large as a power of two up to `most_bytes` allows; returns what the kernel gave.

    The kernel refuses more than a user's share (/proc/sys/fs/pipe-user-pages-soft); then half is asked for.
    """
    wanted = 1 << max(_LEAST_PIPE_BYTES, min(PIPE_BYTES, most_bytes)).bit_length() - 1
    while wanted >= _LEAST_PIPE_BYTES:
        with contextlib.suppress(PermissionError, OSError):
            return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, wanted)
        wanted >>= 1
    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)


class PipeChannel(Channel):
    """See the module."""

    kind = "pipe"
    counted = False

    def __init__(self, spec: ChannelSpec) -> None:
        self.name = spec.name
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        resize_pipe(self._write_fd, PIPE_BYTES)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """None that the runner could see."""
        return ()

    def open_reader(self, processor: str, codec: Codec) -> Reader:
        """Not for pipes: see `reading_end`."""
        raise BugError(f"channel `{self.name}` is a pipe: {processor} reads its descriptor ({codec.name})")

    def open_writer(self, processor: str, codec: Codec) -> Writer:
        """Not for pipes: see `writing_end`."""
        raise BugError(f"channel `{self.name}` is a pipe: {processor} writes its descriptor ({codec.name})")

    def reading_end(self) -> int:
        """The descriptor for the reader's port; it stays the channel's until `release_reading_end`."""
        return self._read_fd

    def writing_end(self) -> int:
        """The descriptor for the writer's port; it stays the channel's until `release_writing_end`."""
        return self._write_fd

    def release_reading_end(self) -> None:
        """The reader has its copy (or never will): close ours, so that a write fails once the reader is gone."""
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1

    def release_writing_end(self) -> None:
        """The writer has its copy (or never will): close ours, so that the reader finds its end of input."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def on_readers_left(self, callback: Callable[[], None]) -> None:
        """See `Channel`; the kernel tells the writer by SIGPIPE."""

    def close(self) -> None:
        """See `Channel`."""
        self.release_reading_end()
        self.release_writing_end()
