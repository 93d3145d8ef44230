"""How the NICs of many nodes are found: one list of them serves all."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ipam.operator import inventory
from ipam.provision import progress, which_nic
from ipam.sources.placement import placement_of
from tests.unit.ipam.node import Clock
from tests.unit.operator.world import world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from ipam.provision.conversation import Conversation

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


def test_a_nic_that_could_not_be_read_is_found_again_at_once_and_in_a_new_list_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/n1"
    place = placement_of(machine, "AzurePublicCloud")
    assert place is not None
    lists = [[(machine.casefold(), {"name": name})] for name in ("first", "second")]
    monkeypatch.setattr(which_nic, "nics_by_machine", lambda *_: lists.pop(0))
    clock = Clock()
    known = inventory.Inventory(clock)

    arm = cast("Conversation", object())

    def names() -> list[str]:
        return [nic["name"] for nic in known.nics(arm, place)]

    assert names() == names() == ["first"]
    clock.now += inventory.FRESH_SECONDS + 1
    assert names() == names() == ["second"]
