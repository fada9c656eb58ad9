"""`python -m bench [NAME…]`: measure, and print a table for docs/benchmarks.md.

usage: python -m bench [--quick] [--rounds N] [--stored-gb N] [--json FILE] [NAME…]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path

from bench.acknowledged import ACKNOWLEDGED
from bench.brokers import BROKERS
from bench.compose import COMPOSE
from bench.durable import DURABLE
from bench.figures import FIGURES
from bench.homes import HOMES
from bench.links import LINKS
from bench.measure import build
from bench.ratios import QUICK, RATIOS, Row, Size
from bench.stored import STORED
from bench.zeromq import ZEROMQ


def main() -> int:
    """Measure what is asked for; 1 where a target was missed."""
    every = RATIOS | FIGURES | HOMES | DURABLE | BROKERS | STORED | ACKNOWLEDGED | ZEROMQ | LINKS | COMPOSE
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of the connector runner.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(every)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller counts, for a quick look")
    parser.add_argument("--rounds", type=int, default=None, help="how often each pair is run")
    parser.add_argument("--stored-gb", type=float, default=None, help="how much is in the store of durable-start")
    parser.add_argument("--json", type=Path, default=None, help="write every sample to this file")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in every]:
        parser.error(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(every)}")
    size = QUICK if options.quick else Size()
    if options.rounds is not None:
        size = dataclasses.replace(size, rounds=options.rounds)
    if options.stored_gb is not None:
        size = dataclasses.replace(size, stored_bytes=int(options.stored_gb * 1e9))
    build()
    rows: list[Row] = []
    for name, measure in every.items():
        if not options.names or name in options.names:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            rows += measure(size)
    print(table(rows))
    if options.json is not None:
        document = {"machine": machine(), "size": dataclasses.asdict(size), "rows": [vars(row) for row in rows]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(row.good for row in rows) else 1


def machine() -> dict[str, object]:
    """What this was measured on."""
    return {"system": platform.system(), "release": platform.release(), "cores": os.cpu_count(),
            "python": platform.python_version()}  # fmt: skip


def table(rows: list[Row]) -> str:
    """A Markdown table of all rows."""
    lines = ["| what | against | measured | target | met | median values |", "|---|---|---|---|---|---|"]
    for row in rows:
        met = "yes" if row.good else "NO"
        lines.append(f"| {row.what} | {row.peer or '-'} | {row.shown} | {row.target} | {met} | {row.detail} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
