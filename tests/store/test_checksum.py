"""The checksum in C is zlib's, byte for byte."""

from __future__ import annotations

import platform
import random
import zlib
from pathlib import Path

import pytest

from runner.launch.shim.build import build_library
from runner.store import checksum
from runner.store.checksum import Checksum


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Checksum:
    built = build_library("store/checksum.c", platform.machine(), tmp_path_factory.mktemp("bin"))
    found = checksum.load(built)
    if found is None:
        pytest.skip("this processor has no instructions for it")
    return found


def test_the_same_as_zlib(in_c: Checksum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "_WORTH_A_CALL_BYTES", 0)
    chance = random.Random(1)
    for size in [*range(600), 4096, 65_535, 262_144, *(chance.randrange(10_000) for _ in range(100))]:
        data, before = chance.randbytes(size), chance.getrandbits(32)
        due = zlib.crc32(data, before)
        assert in_c(data, before) == due
        assert in_c(memoryview(b"x" + data)[1:], before) == due, "a view, and no aligned one"
        half = size // 2
        assert in_c(data[half:], in_c(data[:half], before)) == due


def test_without_the_library(tmp_path: Path) -> None:
    assert checksum.load(tmp_path / "none.so") is None
    (tmp_path / "other.so").write_bytes(b"no library")
    assert checksum.load(tmp_path / "other.so") is None
