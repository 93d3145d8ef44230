"""docs/operator.md says what the code does: its tables are held against models, states and metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.operator import settings_models
from ipam.operator.line import AGEING
from ipam.operator.metrics import OperatorExposition
from ipam.operator.record import STALE
from ipam.provision.progress import PHASES, QUEUED
from tests.unit.operator.world import World

if TYPE_CHECKING:
    from pydantic import BaseModel

PAGE = (Path(__file__).parents[3] / "docs/operator.md").read_text()


def rows(header: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(f"\n{header}\n") + 1 :].splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def named(header: str) -> set[str]:
    return {word for row in rows(header) for word in re.findall(r"`([^`]+)`", row[0])}


def keys(model: type[BaseModel], before: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and hasattr(kind, "model_fields"):
            found |= keys(kind, f"{before}{name}.")
        else:
            found.add(f"{before}{name}")
    return found


def test_every_setting_is_listed_and_no_other() -> None:
    assert named("| key | default | is |") == keys(settings_models.Settings)


def test_states_that_the_page_adds_are_states() -> None:
    assert named("| state | means | what to do |") <= {STALE, *PHASES}
    assert {QUEUED, STALE} <= named("| state | means | what to do |")


def test_the_defaults_and_numbers_are_those_of_the_code() -> None:
    models = settings_models
    assert f"| {models.Budget().share} |" in PAGE
    assert f"| {models.Budget().first_poll_seconds:.0f} |" in PAGE
    assert f"| {models.Settings().workers} |" in PAGE
    assert f"| {models.Settings().grace_seconds:.0f} |" in PAGE
    assert f"waited {AGEING:.0f} s longer" in PAGE


def test_every_metric_is_listed_and_no_other(place: World) -> None:
    agent = place.agent("node1")
    operator = place.operator()
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    text = OperatorExposition(operator).encode("")[1].decode()  # type: ignore[arg-type]
    exposed = set(re.findall(r"^# TYPE (azvnet_\S+)", text, re.MULTILINE))
    listed = {re.sub(r"\{.*", "", each) for each in named("| metric | is |")}
    assert exposed == listed
    assert 'azvnet_operator_writes_total{outcome="ok"}' in text
