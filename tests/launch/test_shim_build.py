"""Building the shim and finding it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.launch.shim import build as building
from runner.launch.shim.locate import shim_path

ARCH = platform.machine()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    try:
        return building.build(ARCH, tmp_path / "bin")
    except building.BuildError as error:
        pytest.skip(f"no compiler here: {error}")


def test_static_and_executable(built: Path) -> None:
    assert built.name == f"connector-shim-{ARCH}"
    assert os.access(built, os.X_OK)
    assert building._is_static(built, ARCH)
    assert not building._is_static(Path("/bin/sh").resolve(), ARCH)  # on any usual machine it asks for the loader
    assert subprocess.run([built], capture_output=True, check=False).returncode == 2
    assert [path.name for path in built.parent.iterdir()] == [built.name]  # nothing half-made is left


def test_built_again_only_when_the_source_changed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built.stat().st_ino
    assert building.build(ARCH, built.parent).stat().st_ino == first
    sources = tmp_path / "sources"
    sources.mkdir()
    for source in building.SOURCES.glob("*.[ch]"):
        shutil.copy(source, sources)
    monkeypatch.setattr(building, "SOURCES", sources)
    assert building.build(ARCH, built.parent).stat().st_ino == first  # the same, wherever it lies
    assert {source.suffix for source in sources.iterdir()} == {".c", ".h"}
    for name in ("probe.c", "tree.h"):
        before = built.stat().st_ino
        (sources / name).write_text((sources / name).read_text() + "/* changed */\n")
        assert building.build(ARCH, built.parent).stat().st_ino != before, name


def test_failed_build_keeps_what_was_there(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built.read_bytes()
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "shim.c").write_text("this is no C\n")
    monkeypatch.setattr(building, "SOURCES", sources)
    with pytest.raises(building.BuildError, match="C compiler with a static libc"):
        building.build(ARCH, built.parent)
    assert built.read_bytes() == before
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_without_any_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(building.BuildError, match="pip install ziglang"):
        building.build(ARCH, tmp_path / "bin")
    assert building.needs_zig((ARCH,))


def test_unknown_architecture(tmp_path: Path) -> None:
    with pytest.raises(building.BuildError, match="no shim for vax"):
        building.build("vax", tmp_path)
    assert building.needs_zig(("vax",))


def test_chosen_shim(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_SHIM", str(built))
    assert shim_path() == built
    built.chmod(0o644)
    with pytest.raises(MachineError, match="not executable"):
        shim_path()
    monkeypatch.setenv("CONNECTOR_SHIM", str(tmp_path / "gone"))
    with pytest.raises(MachineError, match="not there") as caught:
        shim_path()
    assert "CONNECTOR_SHIM" in (caught.value.remedy or "")


def test_shim_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONNECTOR_SHIM", raising=False)
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(MachineError, match="connector-shim-vax is not there") as caught:
        shim_path()
    assert "python -m runner.launch.shim.build" in (caught.value.remedy or "")


def test_the_counting_library_counts(built: Path) -> None:
    library = ctypes.PyDLL(str(building.build_library("codec/count.c", ARCH, built.parent)))
    library.connector_count.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_ubyte)
    library.connector_count.restype = ctypes.c_size_t
    for size in (0, 1, 15, 16, 4079, 4080, 4081, 100_000):
        data = os.urandom(size)
        assert library.connector_count(data, size, 10) == data.count(b"\n")
    assert library.connector_count(b"\n" * 50_000, 50_000, 10) == 50_000
