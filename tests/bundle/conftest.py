"""The frozen bundle as ``make build`` leaves it, and places to run it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.places import ROOT, Bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    found = Bundle(ROOT / "dist" / "azvnet")
    if not found.python.exists():
        pytest.fail("there is no dist/azvnet: run make build")
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A short path: some of the tests make sockets and mounts below it."""
    return tmp_path
