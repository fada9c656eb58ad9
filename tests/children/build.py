"""Programs of this folder that must be built first; each is built once per session, into a folder of its own.

Fixtures that ask for a toolchain skip with a reason where it is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PYTHON = sys.executable
BUILD_LIMIT_S = 120


def script(name: str, *arguments: object) -> list[str]:
    """The command of a Python program in this folder."""
    return [PYTHON, str(HERE / f"{name}.py"), *map(str, arguments)]


def misbehave(what: str, *arguments: object) -> list[str]:
    """The command of one of the programs in misbehave.py."""
    return script("misbehave", what, *arguments)


def source(count: int | None, *arguments: object, size: int = 100) -> list[str]:
    """The command of a source of numbered messages."""
    return script("source", *(() if count is None else ("--count", count)), "--size", size, *arguments)


def sink(file: Path, *arguments: object) -> list[str]:
    """The command of a sink that appends what it gets to `file`."""
    return script("sink", file, *arguments)


@dataclass
class Programs:
    """The programs of this folder in other languages; `folder` holds what was built."""

    folder: Path
    built: dict[str, list[str]] = field(default_factory=dict)

    def tool(self, name: str) -> str:
        """The path of a program of this machine, or a skip that says it is missing."""
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    def c(self, name: str) -> list[str]:
        """`name`.c, compiled; its command."""
        target = self.folder / name
        if name not in self.built:
            _run([self.tool("cc"), "-O2", "-D_GNU_SOURCE", "-o", str(target), str(HERE / f"{name}.c")])
            self.built[name] = [str(target)]
        return self.built[name]

    def go(self) -> list[str]:
        """echo.go, compiled; its command."""
        target = self.folder / "echo-go"
        if "go" not in self.built:
            cache = {"GOCACHE": str(self.folder / "go-cache"), "GO111MODULE": "off", "HOME": str(self.folder)}
            _run([self.tool("go"), "build", "-o", str(target), str(HERE / "echo.go")], cache)
            self.built["go"] = [str(target)]
        return self.built["go"]

    def java(self) -> list[str]:
        """Echo.java, compiled; its command."""
        if "java" not in self.built:
            java = self.tool("java")
            options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
            _run([self.tool("javac"), "-d", str(self.folder), str(HERE / "Echo.java")])
            self.built["java"] = [java, *options, "-cp", str(self.folder), "Echo"]
        return self.built["java"]

    def node(self) -> list[str]:
        """echo.mjs."""
        return [self.tool("node"), str(HERE / "echo.mjs")]

    def echo(self, language: str) -> list[str]:
        """The command of the program that answers each line with itself, in one of LANGUAGES."""
        if language == "python":
            return script("echo")
        if language == "c":
            return self.c("echo")
        if language in ("node", "java", "go"):
            return list(getattr(self, language)())
        tool = self.tool(language)
        return {
            "cat": [tool],
            "awk": [tool, "{ print; fflush() }"],
            "sed": [tool, "-u", ""],
            "jq": [tool, "-c", "--unbuffered", "."],
        }[language]


LANGUAGES = ("cat", "python", "node", "java", "c", "go", "awk", "jq", "sed")


def _run(command: list[str], more_environment: dict[str, str] | None = None) -> None:
    environment = os.environ | (more_environment or {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False, env=environment)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """All programs of this folder."""
    return Programs(tmp_path_factory.mktemp("programs"))
