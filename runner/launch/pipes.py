"""Pipes that are handed to a program of another user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from runner.plan.containers import User


def open_to(descriptors: Iterable[int], user: User | None) -> None:
    """Let the program's user open the pipes that it gets again, by /dev/fd (else EACCES).

    `user` None: it may be anybody. What belongs to another program's user is opened to both.
    """
    for descriptor in descriptors:
        about = os.fstat(descriptor)
        if not stat.S_ISFIFO(about.st_mode):
            continue
        if user is not None and about.st_uid in {os.geteuid(), user.uid}:
            try:
                os.fchown(descriptor, user.uid, user.gid)
                continue
            except PermissionError:  # no root, or one without the capability for it
                pass
        os.fchmod(descriptor, 0o666)
