"""`python -m runner` is the `connector` command."""

from __future__ import annotations

import os
import sys


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
    from runner.cli import main as command

    command()


if __name__ == "__main__":
    main()
