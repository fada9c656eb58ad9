"""A PostgreSQL server for a test, where one is installed; it listens on a socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import without

START_LIMIT_S = 60


@dataclass(frozen=True)
class Postgres:
    """The server; `psql` is a command that talks to its database."""

    folder: Path
    program: str

    @property
    def psql(self) -> list[str]:
        """Up to the command or script that is to be run; an error ends it with a status that is not 0."""
        where = ["-h", str(self.folder), "-U", "test", "-d", "postgres"]
        return [self.program, "-X", "-q", "-v", "ON_ERROR_STOP=1", *where]

    def query(self, sql: str) -> list[str]:
        """The rows of a query, columns parted by `|`."""
        asked = subprocess.run([*self.psql, "-A", "-t", "-c", sql], capture_output=True, text=True, check=True)
        return asked.stdout.splitlines()


def _tool(name: str) -> str:
    folders = [os.environ.get("PATH", os.defpath), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server with an empty database."""
    initdb, pg_ctl, psql = _tool("initdb"), _tool("pg_ctl"), _tool("psql")
    with tempfile.TemporaryDirectory(prefix="connector-test-") as made:
        folder = Path(made)
        as_user: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            try:
                uid = pwd.getpwnam("postgres").pw_uid
            except KeyError:
                without("there is no user postgres to run PostgreSQL as")
            os.chown(folder, uid, -1)
            as_user = [_tool("setpriv"), f"--reuid={uid}", "--clear-groups"]
        folder.chmod(0o755)
        data = str(folder / "data")
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        _run([*as_user, initdb, "-D", data, "-U", "test", "-A", "trust", "-N", "-E", "UTF8"], environment)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        _run([*as_user, pg_ctl, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start"], environment)
        try:
            yield Postgres(folder, psql)
        finally:
            _run([*as_user, pg_ctl, "-D", data, "-m", "immediate", "stop"], environment)


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_LIMIT_S, check=False, env=environment, cwd="/"
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
