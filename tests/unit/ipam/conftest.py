"""Fixtures of the tests of ``ipam``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.ipam.node import Node

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
