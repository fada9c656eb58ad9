"""`python -m runner.protocol.conformance [OPTIONS] -- COMMAND...`: what is wrong with a client of the protocol."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from runner.protocol.conformance import checks
from runner.protocol.conformance.peer import Wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; 0 when nothing is wrong, 1 when something is, 2 when called wrongly."""
    options = _options(arguments)
    payloads = [text.encode() for text in options.payload] or [b"1", b"22", b"a line"]
    target = checks.Target(
        options.command,
        payloads,
        writes=options.port or ["stdout"],
        echoes=options.echo,
        limit_s=options.limit,
        zeromq=options.zeromq,
    )
    wrong = 0
    wanted = checks.SOURCE if options.source else checks.PROCESSOR
    if not options.echo:
        wanted = [check for check in wanted if check is not checks.any_payload]
    for check in wanted:
        if options.zeromq and check in checks.ENDS_OF_FILES:
            continue
        if options.only and check.__name__ not in options.only:
            continue
        try:
            check(target)
        except Wrong as found:
            wrong += 1
            print(f"WRONG {check.__name__}: {found}\n      {check.__doc__}", flush=True)
        except OSError as error:
            print(f"{options.command[0]}: {error.strerror}", file=sys.stderr)
            return 2
        else:
            print(f"ok    {check.__name__}", flush=True)
    print("nothing is wrong" if not wrong else f"{wrong} wrong")
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runner.protocol.conformance",
        description="Plays the runner against a processor that speaks connector protocol 1, and says what is wrong.",
    )
    parser.add_argument("--echo", action="store_true", help="it answers each message by itself; tries any payload")
    parser.add_argument("--zeromq", action="store_true", help="it connects a DEALER socket to CONNECTOR_ENDPOINT")
    parser.add_argument("--source", action="store_true", help="it is a source that ends by itself, always alike")
    parser.add_argument("--payload", action="append", default=[], help="a message that it can handle (repeatable)")
    parser.add_argument("--port", action="append", default=[], help="a port that it writes to (stdout; repeatable)")
    parser.add_argument("--only", action="append", default=[], help="a check to run, by name (repeatable)")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for each thing that is waited for (10)")
    parser.add_argument("command", nargs="+", help="the program, after --")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
