"""Bytes under a key are the same with the library and without, however they are cut."""

from __future__ import annotations

import platform
import random
from pathlib import Path

import pytest

from runner.codec import masking
from runner.codec.masking import Masked, masked_in_python
from runner.launch.shim.build import build_library


@pytest.fixture(scope="module", params=["c", "python"])
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Masked:
    if request.param == "python":
        return masked_in_python
    found = masking.load(build_library("codec/mask.c", platform.machine(), tmp_path_factory.mktemp("bin")))
    assert found is not None
    return found


def by_hand(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(data))


@pytest.mark.parametrize("least", [0, 1024])
def test_each_byte_is_under_its_byte_of_the_key(masked: Masked, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_WORTH_A_CALL_BYTES", least)
    chance = random.Random(1)
    for size in [*range(70), 1023, 1024, 1025, 4099, 70_001]:
        data, key = chance.randbytes(size), chance.randbytes(4)
        due = by_hand(data, key)
        assert masked((data,), key, b"") == due
        assert masked((memoryview(b"x" + data)[1:],), key, b"head") == b"head" + due, "a view, and no aligned one"
        assert masked((due,), key, b"") == data
        places = sorted(chance.randrange(size + 1) for _ in range(3))
        parts = tuple(data[start:end] for start, end in zip((0, *places), (*places, size), strict=True))
        assert masked(parts, key, b"") == due
        assert masked(parts, b"\0\0\0\0", b"") == data


def test_without_the_library(tmp_path: Path) -> None:
    assert masking.load(tmp_path / "none.so") is None
    (tmp_path / "other.so").write_bytes(b"no library")
    assert masking.load(tmp_path / "other.so") is None


def test_what_was_masked_before_stays_as_it_is(masked: Masked) -> None:
    data = bytes(range(256)) * 40
    first = masked((data,), b"abcd", b"")
    kept = bytes(bytearray(first))
    second = masked((first,), b"abcd", b"")
    assert (first, second) == (kept, data)
    assert data == bytes(range(256)) * 40
