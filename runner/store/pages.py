"""The pages of an LMDB 0.9 file, read with pread and believed nothing.

LMDB maps its file and follows whatever it finds: a file cut short ends the process by SIGBUS, an offset that points
nowhere by SIGSEGV. So the file is looked at here first. The format is that of `mdb.c` (MDB_page, MDB_meta, MDB_db,
MDB_node) on a little-endian machine with 64 bits.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

BRANCH, LEAF, OVERFLOW, META = 0x01, 0x02, 0x04, 0x08
BIG, SUBTREE = 0x01, 0x02
INTEGER_KEYS = 0x08
NO_PAGE = (1 << 64) - 1
PAGE_HEAD = Struct("<QHHHH")
PAGE_HEAD_BYTES = PAGE_HEAD.size
_META_HEAD = Struct("<IIQQ")
_TREE = Struct("<IHHQQQQQ")
TREE_BYTES = _TREE.size
_META_TAIL = Struct("<QQ")
META_BYTES = PAGE_HEAD_BYTES + _META_HEAD.size + 2 * TREE_BYTES + _META_TAIL.size
_BOUNDS = Struct("<HH")
_NODE = Struct("<HHHH")
_LONG = Struct("<HHHH8sQ")
_OVERFLOW_HEAD = Struct("<QHHI")
_NUMBER = Struct("<Q")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_MOST_KEY_BYTES = 511
_MOST_DEPTH = 32


class BrokenError(ValueError):
    """A page is not what it has to be; says how."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of pages as its database describes it (MDB_db)."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return self.root == NO_PAGE

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Tree:
        """From the 48 bytes at `offset`."""
        pad, flags, depth, *counts, root = _TREE.unpack_from(data, offset)
        branches, leaves, overflow, entries = counts
        tree = cls(pad, flags, depth, branches, leaves, overflow, entries, root)
        if tree.depth > _MOST_DEPTH or tree.empty != (depth == 0):
            raise BrokenError("the depth of a tree of pages is impossible")
        return tree


@dataclass(frozen=True, slots=True)
class Meta:
    """One of the two pages that say what is committed (MDB_meta)."""

    page_bytes: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int


class Node(NamedTuple):
    """An entry of a leaf. `page` is where the value is when it has pages of its own (0: it is `value`)."""

    key: bytes
    flags: int
    size: int
    value: bytes
    page: int


class PageFile:
    """The file, open for reading; `page_bytes` long pages."""

    def __init__(self, descriptor: int, page_bytes: int) -> None:
        self.descriptor = descriptor
        self.page_bytes = page_bytes
        self.size_bytes = os.fstat(descriptor).st_size
        self.pages = self.size_bytes // page_bytes

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    def expect(self, numbers: Iterable[int]) -> None:
        """These pages are read next: the disk may begin with all of them at once. Nonsense is let pass."""
        for number in numbers:
            if number < self.pages:
                os.posix_fadvise(self.descriptor, number * self.page_bytes, self.page_bytes, os.POSIX_FADV_WILLNEED)

    def _pread(self, size_bytes: int, begin: int) -> bytes:
        """So many bytes, or fewer at the end of the file. Raises BrokenError where the disk cannot read them."""
        try:
            return os.pread(self.descriptor, size_bytes, begin)
        except OSError as error:
            page = begin // self.page_bytes
            raise BrokenError(f"page {page:,} cannot be read: {error.strerror}") from error

    def read(self, number: int, kind: int) -> bytes:
        """Page `number`, which has to be of this kind. Raises BrokenError, OSError."""
        if number < 2 or number >= self.pages:
            raise BrokenError(f"page {number:,} is not in the file ({self.size_bytes:,} bytes): it was cut short")
        page = self._pread(self.page_bytes, number * self.page_bytes)
        if len(page) != self.page_bytes:
            raise BrokenError(f"page {number:,} is cut short")
        own, _, flags, lower, upper = PAGE_HEAD.unpack_from(page)
        if own != number or flags != kind:
            raise BrokenError(f"page {number:,} does not say that it is that page")
        if not PAGE_HEAD_BYTES < lower <= upper <= self.page_bytes or lower % 2:
            raise BrokenError(f"the bounds of page {number:,} are impossible")
        return page

    def meta(self, number: int) -> Meta:
        """Meta page `number`, 0 or 1. Raises BrokenError."""
        page = self._pread(META_BYTES, number * self.page_bytes)
        if len(page) != META_BYTES:
            raise BrokenError(f"meta page {number} is cut short")
        own, _, flags, _, _ = PAGE_HEAD.unpack_from(page)
        magic, version, _, _ = _META_HEAD.unpack_from(page, PAGE_HEAD_BYTES)
        if own != number or flags != META or magic != _MAGIC:
            raise BrokenError(f"meta page {number} does not say that it is one")
        if version != _VERSION:
            raise BrokenError(f"meta page {number} is of format {version}, not {_VERSION}")
        at = PAGE_HEAD_BYTES + _META_HEAD.size
        free, main = Tree.parse(page, at), Tree.parse(page, at + TREE_BYTES)
        last_page, transaction = _META_TAIL.unpack_from(page, at + 2 * TREE_BYTES)
        # The first word of the tree of free pages holds the page size instead, and its flags those of the file.
        if free.pad != self.page_bytes or free.flags != INTEGER_KEYS or main.pad or main.flags:
            raise BrokenError(f"what meta page {number} says of the whole is impossible")
        return Meta(free.pad, free, main, last_page, transaction)

    def overflow_head_fits(self, number: int, size_bytes: int) -> bool:
        """Whether the pages from `number` on say of themselves that they hold a value of `size_bytes`."""
        head = os.pread(self.descriptor, _OVERFLOW_HEAD.size, number * self.page_bytes)
        if len(head) != _OVERFLOW_HEAD.size:
            return False
        own, _, flags, pages = _OVERFLOW_HEAD.unpack(head)
        return (own, flags, pages) == (number, OVERFLOW, pages_of(size_bytes, self.page_bytes))

    def value(self, node: Node) -> bytes:
        """The whole value of `node`, wherever it is. Raises BrokenError."""
        if not node.page:
            return node.value
        begin = node.page * self.page_bytes + PAGE_HEAD_BYTES
        data = self._pread(node.size, begin)
        if len(data) != node.size:
            raise BrokenError(f"page {node.page:,} and those behind it are cut short")
        return data


def overflow_head(number: int, size_bytes: int, page_bytes: int) -> bytes:
    """What LMDB writes before a value of `size_bytes` with pages of its own: it frees as many pages as stand here."""
    return _OVERFLOW_HEAD.pack(number, 0, OVERFLOW, pages_of(size_bytes, page_bytes))


def pages_of(size_bytes: int, page_bytes: int) -> int:
    """How many pages of its own a value of `size_bytes` has."""
    return (PAGE_HEAD_BYTES - 1 + size_bytes) // page_bytes + 1


def leaf_nodes(page: bytes) -> list[Node]:
    """The entries of a leaf, in order. Raises BrokenError."""
    number, _, _, lower, upper = PAGE_HEAD.unpack_from(page)
    nodes = []
    used = 0
    for place in memoryview(page)[PAGE_HEAD_BYTES:lower].cast("H"):
        key_at, low, high, flags, key = _node(page, number, place, upper)
        size = low | high << 16
        stored = _NUMBER.size if flags & BIG else size
        end = key_at + len(key) + stored
        if flags not in {0, BIG, SUBTREE} or end > len(page) or (flags == SUBTREE and size != TREE_BYTES):
            raise BrokenError(f"an entry of page {number:,} is impossible")
        used += (end - place + 1) & ~1
        value = page[end - stored : end]
        own = _NUMBER.unpack(value)[0] if flags & BIG else 0
        nodes.append(Node(key, flags, size, b"" if own else value, own))
    _filled(page, number, used, upper)
    return nodes


def long_values(page: bytes) -> list[tuple[bytes, int, int]] | None:
    """(key, size, page) of each entry, in order, where all keys have 8 bytes, all values pages of their own.

    None for any other page, damaged ones among them: `leaf_nodes` says what it is. That is the leaf of long records,
    of which a large store has many; this takes a fifth of the time.
    """
    lower, upper = _BOUNDS.unpack_from(page, PAGE_HEAD_BYTES - _BOUNDS.size)
    count = (lower - PAGE_HEAD_BYTES) // 2
    if upper + count * _LONG.size != len(page):
        return None
    places = array("H", range(len(page) - _LONG.size, upper - 1, -_LONG.size))
    if page[PAGE_HEAD_BYTES:lower] != places.tobytes():
        return None
    found = []
    for low, high, flags, key_bytes, key, own in _LONG.iter_unpack(page[upper:]):
        if flags != BIG or key_bytes != len(key):
            return None
        found.append((key, low | high << 16, own))
    found.reverse()
    return found


def branch_nodes(page: bytes, least: int) -> list[tuple[bytes, int]]:
    """The entries of a branch, in order: the first key below each page (empty for the first of all), and the page.

    Raises BrokenError, also when there are fewer than `least`.
    """
    number, _, _, lower, upper = PAGE_HEAD.unpack_from(page)
    nodes = []
    used = 0
    for place in memoryview(page)[PAGE_HEAD_BYTES:lower].cast("H"):
        key_at, low, high, flags, key = _node(page, number, place, upper)
        used += (key_at + len(key) - place + 1) & ~1
        nodes.append((key, low | high << 16 | flags << 32))
    _filled(page, number, used, upper)
    if len(nodes) < least:
        raise BrokenError(f"page {number:,} is a branch with no fork")
    return nodes


def _node(page: bytes, number: int, place: int, upper: int) -> tuple[int, int, int, int, bytes]:
    if place < upper or place + _NODE.size > len(page):
        raise BrokenError(f"page {number:,} points outside of itself")
    low, high, flags, key_bytes = _NODE.unpack_from(page, place)
    key_at = place + _NODE.size
    if key_bytes > _MOST_KEY_BYTES or key_at + key_bytes > len(page):
        raise BrokenError(f"a key of page {number:,} is impossible")
    return key_at, low, high, flags, page[key_at : key_at + key_bytes]


def _filled(page: bytes, number: int, used: int, upper: int) -> None:
    """Entries are packed: they fill the page from `upper` to its end, to the byte."""
    if used != len(page) - upper:
        raise BrokenError(f"the entries of page {number:,} do not fill it")
