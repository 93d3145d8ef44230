"""Fixtures of the tests of the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.operator.world import World, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path, monkeypatch) as made:
        yield made
