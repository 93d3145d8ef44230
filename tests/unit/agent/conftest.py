"""Fixtures of the tests of what the agent tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.agent.telling import Telling
from tests.unit.agent.work import Place, Work, new_settings

NewTelling = Callable[..., Telling]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.node.ipam.close()


@pytest.fixture
def work(place: Place) -> Work:
    return Work(source=place.source)


@pytest.fixture
def new_telling(place: Place, work: Work, tmp_path: Path) -> Iterator[NewTelling]:
    """Starts what the agent tells, with these settings."""
    with ExitStack() as undo:

        def start(**settings: Any) -> Telling:
            settings.setdefault("log_file", tmp_path / "agent.log")
            telling = Telling(place.node, new_settings(**settings), work)
            telling.start()
            undo.callback(telling.stop)
            return telling

        yield start
