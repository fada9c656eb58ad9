"""Fixtures of the tests that kill things."""

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the full counts out unless they are asked for by name (`make soak`)."""
    if "soak" in config.option.markexpr:
        return
    full = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=full)
    items[:] = [item for item in items if item not in full]
