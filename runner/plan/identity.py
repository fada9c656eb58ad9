"""Users of their own for instances that nobody has to trust: numbers, the same at each run, that no account has."""

from __future__ import annotations

import hashlib

IDS = range(1 << 30, (1 << 31) - 2)
"""Above what distributions, containers and subordinate users take; below what 32-bit programs can hold."""

_NOBODY = 65534
_FEWEST = 1024


def instance_uid(pipeline: str, processor: str, replica: int, ids: range = IDS) -> int:
    """The user of one instance, out of `ids`."""
    return _pick(("uid", pipeline, processor, str(replica)), ids)


def instance_gid(pipeline: str, processor: str, ids: range = IDS) -> int:
    """The group of a processor's instances, out of `ids`."""
    return _pick(("gid", pipeline, processor), ids)


def _pick(words: tuple[str, ...], ids: range) -> int:
    digest = hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest()
    return ids[int.from_bytes(digest, "big") % len(ids)]


def usable_ids(id_map: str) -> range | None:
    """Which numbers can be given in a user namespace with this map (/proc/PID/uid_map, user_namespaces(7)).

    `IDS` wherever they are there. In a namespace of few (a rootless engine's) the upper half of the largest stretch
    below "nobody"; None where there are hardly any.
    """
    stretches = [range(int(first), int(first) + int(count)) for first, _, count in map(str.split, id_map.splitlines())]
    if any(IDS[0] in stretch and IDS[-1] in stretch for stretch in stretches):
        return IDS
    largest = max((range(each.start, min(each.stop, _NOBODY)) for each in stretches), key=len, default=range(0))
    upper = largest[len(largest) // 2 :]
    return upper if len(upper) >= _FEWEST else None
