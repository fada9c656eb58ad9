"""Copies stdin to stdout and each line of the named port LOOKUP into FILE; even lines also go to the port ERRORS.

usage: lookup.py FILE
"""

import os
import sys
import threading
from pathlib import Path

from messages import number_of


def copy_lookup() -> None:
    with Path(os.environ["CONNECTOR_READER_LOOKUP"]).open("rb") as lookup, Path(sys.argv[1]).open("wb") as out:
        out.writelines(lookup)


thread = threading.Thread(target=copy_lookup)
thread.start()
with Path(os.environ["CONNECTOR_WRITER_ERRORS"]).open("wb") as errors:
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line)
        if number_of(line) % 2 == 0:
            errors.write(line)
thread.join()
