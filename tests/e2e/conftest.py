"""Fixtures of the tests that drive the `connector` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children.build import programs
from tests.e2e.connector import Connector

__all__ = ["programs"]


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    """The command, with a folder of its own."""
    return Connector(tmp_path)
