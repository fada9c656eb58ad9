"""What a run takes of this machine: open files, and how it is told when there are no more of something."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from runner.errors import MachineError
from runner.spec.model import Pipeline

_DESCRIPTORS_EACH = 10
_DESCRIPTORS_SPARE = 128
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


def make_room_for_descriptors(pipeline: Pipeline) -> None:
    """Raise the soft limit of open files when the pipeline needs more of them."""
    instances = sum(spec.replicas for spec in pipeline.processors.values())
    needed = _DESCRIPTORS_SPARE + _DESCRIPTORS_EACH * instances
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def shortages() -> Iterator[None]:
    """Raises MachineError for an OSError which says that the machine has no more to give."""
    try:
        yield
    except OSError as error:
        if error.errno not in _SHORTAGES:
            raise
        raise MachineError(
            f"this machine has no more to give: {os.strerror(error.errno or 0)}",
            remedy="raise this user's limits (ulimit -n, -u), or run fewer processors",
        ) from error
