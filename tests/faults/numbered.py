"""A source of numbered messages for runs that are killed as a whole: numbered.py MODE COUNT RATE GO [COUNTER]

MODE as in `resume`: `skip` writes the same again from 1, at full speed up to what it had written; `self` goes on after
CONNECTOR_WRITTEN; `live` writes numbers that were never written before (COUNTER keeps them). COUNT messages in all (of
`live`: in each run), RATE a second until the file GO is there, and then as fast as it can.
"""

import os
import sys
import time
from pathlib import Path

CHUNK = 20
WHOLE = 2000


def main() -> None:
    mode, count, rate, go = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    written = int(os.environ["CONNECTOR_WRITTEN"])
    number = written + 1 if mode == "self" else 1
    last = count
    counter = Path(sys.argv[5]) if mode == "live" else None
    if counter is not None:
        number = int(counter.read_text()) + 1 if counter.exists() else 1
        last = number + count - 1
        fresh = counter.with_suffix(".part")
        fresh.write_text(str(last))
        fresh.rename(counter)
    slow_from = written + 1 if mode == "skip" else number
    began = time.monotonic()
    while number <= last:
        end = min(number + (WHOLE if number + WHOLE <= slow_from or go.exists() else CHUNK), last + 1)
        data = memoryview(b"".join(b"%010d %s\n" % (each, b"x" * (each % 90)) for each in range(number, end)))
        while data:
            data = data[os.write(1, data) :]
        number = end
        ahead = began + (number - slow_from) / rate - time.monotonic()
        if ahead > 0 and not go.exists():
            time.sleep(ahead)


main()
