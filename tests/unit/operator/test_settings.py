"""The operator's settings: the defaults, and what is said about impossible ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipam.operator.budget import WRITES, Meter
from ipam.operator.settings import Settings
from ipam.settings_file import SettingsError


def test_nothing_has_to_be_set() -> None:
    found = Settings.read(None)
    assert (found.share, found.workers, found.grace, found.resource_groups) == (0.5, 512, 600.0, ())
    assert found.lease.name == "azvnet-operator"


def test_the_writes_that_are_allowed_in_a_window_do_not_wait_for_a_worker() -> None:
    """An operation may last for most of a window, and its worker waits for its end."""
    found = Settings.read(None)
    assert found.workers >= Meter(WRITES, found.share, 0.0).allowed


def test_resource_groups_are_compared_without_case() -> None:
    assert Settings.of({"resource_groups": ["RG-Nodes"]}).resource_groups == ("rg-nodes",)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"budget": {"share": 0}}, "budget.share"),
        ({"budget": {"share": 1.5}}, "budget.share"),
        ({"workers": 0}, "workers"),
        ({"lease": {"seconds": 0.1}}, "lease.seconds"),
        ({"grace_seconds": -1}, "grace_seconds"),
        ({"resource_groups": [""]}, "resource_groups.0"),
        ({"arm": {"credential": "mine"}}, "arm.credential"),
        ({"worker": 3}, "worker"),
        ([], "list"),
    ],
)
def test_what_is_impossible_is_named(document: object, named: str, tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    path.write_text(json.dumps(document))
    with pytest.raises(SettingsError) as found:
        Settings.read(path)
    assert str(path) in str(found.value)
    assert named in str(found.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00"])
def test_what_is_not_json_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="not valid JSON"):
        Settings.read(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        Settings.read(tmp_path / "none.json")
