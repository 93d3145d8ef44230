"""How the NICs of many nodes are found: one list of them serves all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision import progress
from tests.unit.operator.world import world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NODES = 6


def test_all_nodes_of_a_resource_group_are_found_with_one_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path, monkeypatch, nodes=NODES) as place:
        names = [f"node{number + 1}" for number in range(NODES)]
        for name in names:
            place.agent(name)
        place.operator()
        place.soon(lambda: all(place.says(name, progress.IDLE) for name in names))
        asked = [entry.path.casefold() for entry in place.azure.arm.log.entries(kind="GET")]
        assert len([path for path in asked if path.endswith("/networkinterfaces")]) == 1
        assert not [path for path in asked if "/virtualmachines/" in path], "a right that the role has not"
        found = {place.status(name).nic.id.casefold() for name in names}
        assert len(found) == NODES
