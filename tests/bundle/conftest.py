"""The frozen bundles as ``make build`` and ``make operator`` leave them, and places to run them in."""

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


@pytest.fixture(scope="session")
def operator_bundle() -> Bundle:
    found = Bundle(ROOT / "dist" / "azvnet-operator")
    if not found.python.exists():
        pytest.fail("there is no dist/azvnet-operator: run make operator")
    return found


@pytest.fixture(params=["bundle", "operator_bundle"])
def each_bundle(request: pytest.FixtureRequest) -> Bundle:
    """Both, one after the other."""
    found: Bundle = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A short path: some of the tests make sockets and mounts below it."""
    return tmp_path
