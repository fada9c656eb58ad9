"""The runner as a user who may do nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
NOBODY = pwd.getpwnam("nobody").pw_uid


def as_nobody(module: str) -> tuple[str, ...]:
    """The words that start something as nobody, who can import `module`; or a skip."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("only root can become nobody, by setpriv")
    words = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    tried = subprocess.run(
        [*words, sys.executable, "-B", "-c", f"import {module}"],
        env={"PYTHONPATH": str(PROJECT)},
        cwd="/",
        capture_output=True,
        check=False,
        timeout=30,
    )
    if tried.returncode != 0:
        pytest.skip("the user nobody cannot read this Python or this project")
    return words
