"""Messages, cursors and small tables on the disk, committed together or not at all (see `store.py`)."""

from runner.store.cursor import Cursor
from runner.store.damage import Damage, DamageError
from runner.store.inspection import TABLES, Inspection
from runner.store.opening import check_store
from runner.store.record import Record
from runner.store.store import ChannelState, Store
from runner.store.transaction import Transaction

__all__ = [
    "TABLES",
    "ChannelState",
    "Cursor",
    "Damage",
    "DamageError",
    "Inspection",
    "Record",
    "Store",
    "Transaction",
    "check_store",
]
