"""`python -m runner` is the `connector` command."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line and exit with its code.

    The question for a sidecar's health, which containers ask all the time, is answered without loading the rest.
    """
    if sys.argv[1:] == ["sidecar", "--check-health"] and "CONNECTOR_HEALTH" not in os.environ:
        from runner.health import DEFAULT, check

        host, _, port = DEFAULT.rpartition(":")
        why = check(host, int(port))
        if why is not None:
            sys.stderr.write(f"connector: {why}\n")
        sys.exit(0 if why is None else 1)
    if os.getpid() == 1:  # which no signal ends that it has no handler for: not while it starts, either
        signal.signal(signal.SIGTERM, _end)
    from runner.cli import main as command

    command()


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
