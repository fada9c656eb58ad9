"""The docker command."""

from __future__ import annotations

import subprocess

LIMIT_S = 120.0


def docker(*arguments: str, host: str | None = None, stdin: bytes = b"", code: int | None = 0) -> str:
    """What it says, asked of this machine's engine or that at `host`. It ends with `code`; None: with any."""
    command = ["docker", *(("--host", host) if host else ()), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=LIMIT_S)
    said = done.stdout.decode(errors="replace")
    if code is not None and done.returncode != code:
        raise AssertionError(
            f"{' '.join(command)}: exit {done.returncode}\n{said}{done.stderr.decode(errors='replace')}"
        )
    return said.strip()
