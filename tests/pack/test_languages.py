"""What tells a processor's language, and how its libraries are installed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from runner.plan.languages import Guess, guess, install


def elf(*, wide: bool, interpreter: bool) -> bytes:
    """The beginning of an ELF file (elf(5)) with two program headers."""
    table, size = (64, 56) if wide else (52, 32)
    head = bytearray(b"\x7fELF" + bytes([2 if wide else 1, 1, 1])).ljust(table, b"\0")
    at, form = (32, "<Q") if wide else (28, "<I")
    struct.pack_into(form, head, at, table)
    struct.pack_into("<HH", head, 54 if wide else 42, size, 2)
    kinds = (1, 3 if interpreter else 2)
    return bytes(head) + b"".join(struct.pack("<I", kind).ljust(size, b"\0") for kind in kinds)


@pytest.mark.parametrize(
    ("program", "language"),
    [
        ("python3", "python"), ("python3.13", "python"), ("/usr/bin/python", "python"), ("node", "node"),
        ("npx", "node"), ("java", "java"), ("jq", None), ("sh", None), ("pythonic", None), ("javac", None),
    ],
)  # fmt: skip
def test_by_the_commands_name(program: str, language: str | None, tmp_path: Path) -> None:
    assert guess(program, tmp_path).language == language


@pytest.mark.parametrize(
    ("content", "language"),
    [
        (b"#!/usr/bin/env python3\n", "python"),
        (b"#!/usr/bin/env -S node --no-warnings\n", "node"),
        (b"#!/usr/bin/python3 -u\n", "python"),
        (b"#!/bin/sh\n", None),
        (b"#!\n", None),
        (b"", None),
        (elf(wide=True, interpreter=False), "static"),
        (elf(wide=False, interpreter=False), "static"),
        (elf(wide=True, interpreter=True), None),
        (elf(wide=False, interpreter=True), None),
    ],
)
def test_by_the_file(content: bytes, language: str | None, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/run").write_bytes(content)
    assert guess("bin/run", tmp_path).language == language


def test_why_not(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(elf(wide=True, interpreter=True))
    assert guess("./run", tmp_path) == Guess(None, '"./run" needs shared libraries')
    assert guess("../run", tmp_path).why_not == '"../run" is not in the folder'
    assert guess("/bin/run", tmp_path).why_not == '"/bin/run" is not in the folder'
    assert "is not there" in guess("./gone", tmp_path).why_not or "no such file" in guess("./gone", tmp_path).why_not


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ("a==1\nb>=2 # why\n", True),
        ("a==1 --hash=sha256:00\n", True),
        ("-r other.txt\n", False),
        ("-e .\n", False),
        ("./wheels/a.whl\n", False),
        ("a @ file:///x\n", False),
        ("--find-links wheels\n", False),
    ],
)
def test_requirements(lines: str, early: bool, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(lines)
    found = install("python", tmp_path)
    assert found is not None
    assert found.early == (("requirements.txt",) if early else ())


def test_what_names_no_libraries_needs_no_installing(tmp_path: Path) -> None:
    for language in ("python", "node", "java", "static"):
        assert install(language, tmp_path) is None
    for text in ('{"type": "module"}', '{"dependencies": {}}', "no JSON", "[]"):
        (tmp_path / "package.json").write_text(text)
        assert install("node", tmp_path) is None, text


def test_npm(tmp_path: Path) -> None:
    package = {"dependencies": {"a": "1.0.0"}}
    (tmp_path / "package.json").write_text(json.dumps(package))
    found = install("node", tmp_path)
    assert found is not None
    assert "npm install --no-package-lock" in found.command
    assert (found.early, found.ignored) == (("package.json",), ("**/node_modules",))
    (tmp_path / "package-lock.json").write_text("{}")
    found = install("node", tmp_path)
    assert found is not None
    assert "npm ci" in found.command
    assert found.early == ("package.json", "package-lock.json")
    for change in ({"scripts": {"postinstall": "node make.js"}}, {"dependencies": {"a": "file:./a"}}):
        (tmp_path / "package.json").write_text(json.dumps(package | change))
        found = install("node", tmp_path)
        assert found is not None
        assert found.early == (), change
