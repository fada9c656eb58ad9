"""Fixtures of the tests that drive the `connector` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children.build import programs
from tests.conftest import need_image
from tests.e2e.connector import PYTHON_IMAGE, Connector

__all__ = ["programs"]


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    """The command, with a folder of its own."""
    return Connector(tmp_path)


@pytest.fixture(params=["process", "sandbox", pytest.param("container", marks=pytest.mark.engine)])
def in_each_home(request: pytest.FixtureRequest, tmp_path: Path) -> Connector:
    """The command, with `middle` in each home: what a contract says holds in all of them."""
    if request.param == "sandbox":
        request.getfixturevalue("bubblewrap")
    elif request.param == "container":
        request.getfixturevalue("engine")
        need_image(PYTHON_IMAGE)
    return Connector(tmp_path, middle_home=request.param)
