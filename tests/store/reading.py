"""A child that reads a store whose disk does not read: `python -m tests.store.reading FOLDER LAST`.

It is a process of its own since what is tested is that it survives. It prints what became of messages 1 to LAST of
channel `a`: `whole`, `named` (an error names those that are not), `refused` (an error names the folder and the cause).
"""

from __future__ import annotations

import sys
from pathlib import Path

from runner.errors import MachineError
from runner.store import DamageError, check_store
from tests.store.damaging import covers
from tests.store.stores import message, opened


def main(folder: Path, last: int) -> None:
    """See the module."""
    told = set()
    try:
        store = opened(folder, "a")
    except DamageError:
        told.add("named")
    except MachineError as error:
        assert str(folder) in str(error)
        assert "nput/output error" in str(error), error
        told.add("refused")
    else:
        for number in range(1, last + 1):
            try:
                record = store.read("a", number, 0)
            except DamageError as error:
                assert covers(error, "a", number), f"{number} is not in {error}"
                told.add("named")
                continue
            assert record is not None, number
            line = bytes(record.data).splitlines(keepends=True)[number - record.first]
            assert line == message("a", number, len(line)), (number, line[:40])
            told.add("whole")
        store.close()
    _check(folder, last)
    print(*sorted(told))


def _check(folder: Path, last: int) -> None:
    """`connector state check` names what is not whole, or says that nothing can be read."""
    whole: set[int] = set()
    try:
        damages = check_store(
            folder, each_record=lambda _, record: whole.update(range(record.first, record.last + 1))
        ).damages
    except DamageError as error:
        damages = list(error.damages)
    except MachineError as error:
        assert "nput/output error" in str(error), error
        return
    for number in set(range(1, last + 1)) - whole:
        named = any(covers(DamageError("", [damage]), "a", number) for damage in damages)
        assert named or any(damage.channel is None for damage in damages), (number, [str(each) for each in damages])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
