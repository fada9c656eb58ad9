"""The least that keeps what goes through it: reads, puts into LMDB, commits, hands on.

`lmdb_hop.py FOLDER BYTES DURABILITY`: so many bytes go into each transaction; with "disk" each is synced.
"""

from __future__ import annotations

import os
import struct
import sys

import lmdb

RECORD_BYTES = 512 << 10
KEPT = 6


def taken(size: int) -> list[bytes]:
    """`size` bytes of stdin, in records; fewer at its end."""
    records: list[bytes] = []
    while size > 0:
        parts, missing = [], min(size, RECORD_BYTES)
        while missing and (data := os.read(0, missing)):
            parts.append(data)
            missing -= len(data)
        if not parts:
            break
        records.append(b"".join(parts))
        size -= len(records[-1])
    return records


def main() -> None:
    """See the module."""
    folder, size, durability = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with lmdb.open(folder, map_size=1 << 30, max_dbs=1, sync=durability == "disk") as environment:
        database = environment.open_db(b"records")
        commit = 0
        while records := taken(size):
            with environment.begin(write=True, db=database) as transaction:
                for index, record in enumerate(records):
                    transaction.put(struct.pack(">IH", commit, index), record, append=True)
                    if commit >= KEPT:
                        transaction.delete(struct.pack(">IH", commit - KEPT, index))
            for record in records:
                left = memoryview(record)
                while left:
                    left = left[os.write(1, left) :]
            commit += 1


main()
