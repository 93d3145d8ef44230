"""Fixtures for tests on an emulated Azure network: import them in a conftest.py, or load with ``-p``.

A test that only looks shares ``fabric`` with the tests of its module; a test that changes the cloud,
breaks something or needs another shape makes its own with ``make_fabric``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric.fabric import Fabric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def shared_fabric() -> Iterator[Fabric]:
    """Two nodes with 16 secondary addresses each and one ordinary host, for the whole module."""
    with Fabric() as fabric:
        yield fabric


@pytest.fixture
def fabric(shared_fabric: Fabric) -> Iterator[Fabric]:
    """The module's fabric; whatever faults the test switched on are off afterwards."""
    yield shared_fabric
    shared_fabric.clear_faults()


@pytest.fixture
def make_fabric() -> Iterator[Callable[..., Fabric]]:
    """Bring up a fabric of the test's own, with the arguments of `Fabric`; down afterwards."""
    with contextlib.ExitStack() as undo:

        def make(**arguments: Any) -> Fabric:
            return undo.enter_context(Fabric(**arguments))

        yield make
