"""Fixtures of the tests of what others see of the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent.work import Front, Place, Work, new_settings

NewFront = Callable[..., Front]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.node.ipam.close()


@pytest.fixture
def work(place: Place) -> Work:
    return Work(source=place.source)


@pytest.fixture
def new_front(place: Place, work: Work, tmp_path: Path) -> Iterator[NewFront]:
    """Starts what others see of the agent, with these settings."""
    with ExitStack() as undo:

        def start(**settings: Any) -> Front:
            settings.setdefault("log_file", tmp_path / "agent.log")
            front = Front(place, work, new_settings(**settings))
            front.start()
            undo.callback(front.stop)
            return front

        yield start
