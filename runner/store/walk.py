"""Walks all branches and leaves of an LMDB file, so that LMDB can be let at it, and says what is damaged.

It takes about 1.5 us per record, a tenth of a second for 10 GB of long ones: a leaf names a hundred records of 256 KiB,
whose own pages are not read here but counted, and checked for belonging to nothing else. What the records hold is
verified when they are read.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import lt

from runner.errors import BugError
from runner.store.damage import Damage
from runner.store.pages import (
    BIG,
    BRANCH,
    INTEGER_KEYS,
    LEAF,
    SUBTREE,
    BrokenError,
    Meta,
    Node,
    PageFile,
    Tree,
    branch_nodes,
    leaf_nodes,
    long_values,
    overflow_head,
    pages_of,
)
from runner.store.placed import Placed
from runner.store.record import KEY, KEY_BYTES

MESSAGES = b"m:"
TABLE = b"t:"
HEADS = b"heads"

Lost = Callable[[str, bytes | None, bytes | None], Damage]
"""(why, first key, key behind the last) to what is lost with these keys; None: no bound."""


@dataclass(slots=True)
class Found:
    """What the walk found: every database by its name, where records are, and the damages (none: LMDB may have it)."""

    transaction: int
    databases: set[bytes] = field(default_factory=set)
    placed: dict[str, Placed] = field(default_factory=dict)
    heads: dict[bytes, bytes] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    most_bytes: int = 0


class _Pages:
    """Which pages of the file belong to something."""

    def __init__(self, file: PageFile, last_page: int) -> None:
        self._taken = bytearray(file.pages)
        self._taken[:2] = b"\1\1"
        self._pages = file.pages
        self._last_page = last_page
        self._beyond = max(0, last_page + 1 - file.pages)

    def take(self, first: int, count: int = 1) -> None:
        """`count` pages from `first` on belong to who asks, and to nobody else. Raises BrokenError."""
        end = first + count
        if first < 2 or end > self._pages or end > self._last_page + 1:
            raise BrokenError(f"page {first + count - 1:,} is not in the file: it was cut short")
        if self._taken.find(1, first, end) != -1:
            raise BrokenError(f"page {first:,} belongs to two")
        self._taken[first:end] = b"\1" * count

    def take_each(self, firsts: Sequence[int], counts: Sequence[int]) -> int:
        """The same for many, in order; how many there were before one that `take` would refuse."""
        taken, find, most = self._taken, self._taken.find, min(self._pages, self._last_page + 1)
        done = 0
        for first, count in zip(firsts, counts, strict=True):
            end = first + count
            if first < 2 or end > most or find(1, first, end) != -1:
                break
            taken[first:end] = b"\1" * count
            done += 1
        return done

    def release(self, numbers: array[int]) -> None:
        """These are free. Raises BrokenError when one of them is not."""
        taken, pages, last_page = self._taken, self._pages, self._last_page
        for number in numbers:
            if number < 2 or number > last_page:
                raise BrokenError(f"free page {number:,} is not in the file")
            if number < pages:  # free pages at the end may never have been written
                if taken[number]:
                    raise BrokenError(f"page {number:,} is in use and free")
                taken[number] = 1
            else:
                self._beyond -= 1

    def accounted(self) -> None:
        """Raises BrokenError unless what lies beyond the end of the file is free, page for page."""
        if self._beyond:
            raise BrokenError("the file is shorter than it was")


@dataclass(slots=True)
class _Counted:
    branch_pages: int = 0
    leaf_pages: int = 0
    overflow_pages: int = 0
    entries: int = 0
    broken: bool = False


class Walk:
    """See the module. `each` is called for every entry of a database, with its name; for records only if `records`."""

    def __init__(
        self, file: PageFile, meta: Meta, each: Callable[[bytes, Node], None] | None = None, *, records: bool = False
    ) -> None:
        self._file = file
        self._meta = meta
        self._pages = _Pages(file, meta.last_page)
        self._each = each
        self._records = records
        self.found = Found(meta.transaction)

    def run(self) -> Found:
        """Everything. Raises OSError when the file cannot be read."""
        databases: list[Node] = []
        whole = self._whole
        self._tree(self._meta.main, b"", databases.append, whole)
        for database in databases:
            self._database(database)
        free: list[Node] = []
        self._tree(self._meta.free, None, free.append, whole)
        for node in free:
            self._free(node)
        if not self.found.damages:
            try:
                self._pages.accounted()
            except BrokenError as error:
                self.found.damages.append(Damage(str(error)))
        self.found.most_bytes = (self._meta.last_page + 1) * self._meta.page_bytes
        return self.found

    def _whole(self, why: str, _first: bytes | None, _behind: bytes | None) -> Damage:
        return Damage(why)

    def _database(self, node: Node) -> None:
        name = node.key
        try:
            tree = _tree_of(node)
            channel = name.removeprefix(MESSAGES).decode() if name.startswith(MESSAGES) else None
        except (BrokenError, UnicodeDecodeError) as error:
            self.found.damages.append(Damage(str(error)))
            return
        self.found.databases.add(name)
        if channel is None:
            self._tree(tree, name, self._entry(name), self._whole)
        else:
            self.found.placed[channel] = Placed()
            records = None if self._records else self.found.placed[channel]
            self._tree(tree, name, self._record(channel, name), _lost_of(channel), records)

    def _entry(self, name: bytes) -> Callable[[Node], None]:
        def take(node: Node) -> None:
            if name == HEADS:
                self.found.heads[node.key] = self._file.value(node)
            if node.page:
                self._mend(node)
            if self._each is not None:
                self._each(name, node)

        return take

    def _record(self, channel: str, name: bytes) -> Callable[[Node], None]:
        placed = self.found.placed[channel]

        def take(node: Node) -> None:
            if len(node.key) != KEY_BYTES:
                raise BrokenError("the key of a record is none")
            placed.add(KEY.unpack(node.key)[0], node.size, node.page)
            if self._records and self._each is not None:
                self._each(name, node)

        return take

    def _mend(self, node: Node) -> None:
        mend(self._file, node.page, node.size)

    def _free(self, node: Node) -> None:
        try:
            self._pages.release(_numbers(self._file.value(node)))
        except BrokenError as error:
            self.found.damages.append(Damage(str(error)))

    def _tree(
        self, tree: Tree, name: bytes | None, take: Callable[[Node], None], lost: Lost, records: Placed | None = None
    ) -> None:
        """Walk `tree`; `name` None: that of the free pages, whose keys are numbers.

        `records`: nobody wants more of its entries than where they are.
        """
        counted = _Counted()
        if (tree.flags & INTEGER_KEYS != 0) != (name is None):
            self.found.damages.append(lost("the order of a database is not the one it had", None, None))
            return
        if not tree.empty:
            self._below(tree.root, tree.depth, (None, None), _Visit(name is None, take, lost, counted, records))
        told = (tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries)
        seen = (counted.branch_pages, counted.leaf_pages, counted.overflow_pages, counted.entries)
        if told != seen and not counted.broken:
            self.found.damages.append(lost("there are not as many entries as there were", None, None))

    def _below(self, number: int, depth: int, keys: tuple[bytes | None, bytes | None], visit: _Visit) -> None:
        """The page `number`, whose keys lie from `keys[0]` on before `keys[1]`, and all below it."""
        try:
            self._pages.take(number)
            page = self._file.read(number, BRANCH if depth > 1 else LEAF)
            if depth == 1:
                self._leaf(page, keys, visit)
                return
            children = branch_nodes(page, 1 if visit.integers else 2)
            _ordered([visit.order(key) for key, _ in children[1:]], keys, visit)
        except BrokenError as error:
            visit.counted.broken = True
            self.found.damages.append(visit.lost(str(error), *keys))
            return
        visit.counted.branch_pages += 1
        self._file.expect(child for _, child in children)
        bounds = [keys[0], *(key for key, _ in children[1:]), keys[1]]
        for at, (_, child) in enumerate(children):
            self._below(child, depth - 1, (bounds[at], bounds[at + 1]), visit)

    def _leaf(self, page: bytes, keys: tuple[bytes | None, bytes | None], visit: _Visit) -> None:
        if visit.records is not None and (values := long_values(page)) is not None:
            self._long_records(values, keys, visit, visit.records)
            return
        nodes = leaf_nodes(page)
        _ordered([visit.order(node.key) for node in nodes], keys, visit)
        counted = visit.counted
        counted.leaf_pages += 1
        counted.entries += len(nodes)
        for at, node in enumerate(nodes):
            try:
                if node.flags & BIG:
                    pages = pages_of(node.size, self._file.page_bytes)
                    self._pages.take(node.page, pages)
                    counted.overflow_pages += pages
                visit.take(node)
            except BrokenError as error:
                counted.broken = True
                behind = nodes[at + 1].key if at + 1 < len(nodes) else keys[1]
                self.found.damages.append(visit.lost(str(error), node.key, behind))

    def _long_records(
        self,
        values: list[tuple[bytes, int, int]],
        keys: tuple[bytes | None, bytes | None],
        visit: _Visit,
        records: Placed,
    ) -> None:
        """A leaf of records that all have pages of their own."""
        firsts, sizes, owns = zip(*values, strict=True)
        _ordered(list(firsts), keys, visit)
        page_bytes, counted = self._file.page_bytes, visit.counted
        counts = [pages_of(size, page_bytes) for size in sizes]
        counted.leaf_pages += 1
        counted.entries += len(values)
        at = self._pages.take_each(owns, counts)
        while at < len(values):
            counted.broken = True
            behind = firsts[at + 1] if at + 1 < len(values) else keys[1]
            why = self._refused(owns[at], counts[at])
            self.found.damages.append(visit.lost(why, firsts[at], behind))
            at += 1 + self._pages.take_each(owns[at + 1 :], counts[at + 1 :])
        if not counted.broken:
            counted.overflow_pages += sum(counts)
        records.extend(firsts, sizes, owns)

    def _refused(self, page: int, count: int) -> str:
        """Why these pages cannot be taken."""
        try:
            self._pages.take(page, count)
        except BrokenError as error:
            return str(error)
        raise BugError(f"page {page} can be taken after all")


@dataclass(frozen=True, slots=True)
class _Visit:
    """What is to be done in one tree."""

    integers: bool
    take: Callable[[Node], None]
    lost: Lost
    counted: _Counted
    records: Placed | None

    def order(self, key: bytes) -> bytes:
        """What keys are compared by: numbers from their last byte on, as they are stored the other way round."""
        if not self.integers:
            return key
        if len(key) != KEY_BYTES:
            raise BrokenError("a list of free pages has no number")
        return key[::-1]


def _tree_of(node: Node) -> Tree:
    """The tree of the database that `node` describes."""
    tree = Tree.parse(node.value)
    if node.flags != SUBTREE or tree.flags or tree.pad:
        raise BrokenError(f"the database {node.key!r} is described wrongly")
    if node.key != HEADS and not node.key.startswith((MESSAGES, TABLE)):
        raise BrokenError(f"nobody knows the database {node.key!r}")
    return tree


def _numbers(listed: bytes) -> array[int]:
    """The pages of a list of free ones: their number stands before them."""
    numbers = array("Q")
    numbers.frombytes(listed[: len(listed) & ~7])
    if not numbers or len(listed) % 8 or numbers[0] != len(numbers) - 1:
        raise BrokenError("a list of free pages is cut short")
    return numbers[1:]


def _ordered(keys: list[bytes], bounds: tuple[bytes | None, bytes | None], visit: _Visit) -> None:
    """Raises BrokenError unless `keys` ascend within `bounds`."""
    before = None if bounds[0] is None else visit.order(bounds[0])
    behind = None if bounds[1] is None else visit.order(bounds[1])
    fits = all(map(lt, keys, keys[1:]))
    if keys and before is not None:
        fits = fits and before <= keys[0]
    if keys and behind is not None:
        fits = fits and keys[-1] < behind
    if not fits:
        raise BrokenError("entries are out of order")


def _lost_of(channel: str) -> Lost:
    """The messages of `channel` between two keys."""

    def lost(why: str, first: bytes | None, behind: bytes | None) -> Damage:
        begin = KEY.unpack(first)[0] if first is not None and len(first) == KEY_BYTES else None
        end = KEY.unpack(behind)[0] - 1 if behind is not None and len(behind) == KEY_BYTES else None
        return Damage(why, channel, begin, end)

    return lost


def mend(file: PageFile, page: int, size_bytes: int) -> bool:
    """Put right what stands before the value of `size_bytes` at `page`; whether it was wrong.

    It follows from where the value is and how long it is, and nothing of it is the value's own. But LMDB frees as many
    pages as stand there.
    """
    if file.overflow_head_fits(page, size_bytes):
        return False
    os.pwrite(file.descriptor, overflow_head(page, size_bytes, file.page_bytes), page * file.page_bytes)
    return True


def newest(file: PageFile, *, lax: bool = False) -> Meta:
    """The meta page that counts. Raises BrokenError when it is not sure which, since the other may be newer.

    Each commit writes the one of the two that its number says (even, odd), so their numbers follow each other. `lax`:
    after a machine went down without a sync, one may be older.
    """
    metas = (file.meta(0), file.meta(1))
    last = max(meta.transaction for meta in metas)
    if last == 0:
        return metas[0]
    chosen, other = metas[last & 1], metas[~last & 1]
    apart = last - other.transaction
    if chosen.transaction != last or (apart % 2 == 0 if lax else apart != 1):
        raise BrokenError("the two meta pages do not follow each other")
    return chosen
