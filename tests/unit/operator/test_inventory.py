"""How the NICs of many nodes are found: one list of them serves all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest

from ipam.operator import inventory
from ipam.provision import progress, which_nic
from ipam.provision.refusals import Kind, Refusal
from ipam.sources.placement import placement_of
from tests.unit.ipam.node import Clock
from tests.unit.operator.world import world

if TYPE_CHECKING:
    from pathlib import Path

    from ipam.provision.conversation import Conversation

NODES = 6
MACHINE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/n1"


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


def test_all_nodes_that_wait_for_a_list_are_refused_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ARM away, a thousand nodes would otherwise wait for a request each, one after the other."""
    place = placement_of(MACHINE, "AzurePublicCloud")
    assert place is not None
    clock, asked, came = Clock(), [0], threading.Semaphore(0)

    def refuse(*_arguments: object) -> None:
        asked[0] += 1
        for _ in range(NODES):
            came.acquire(timeout=3)
        clock.now += 10
        raise Refusal(Kind.UNREACHABLE, "no answer", 7.0)

    def counted() -> float:
        came.release()
        return clock.now

    monkeypatch.setattr(which_nic, "nics_by_machine", refuse)
    known = inventory.Inventory(counted)

    def look() -> Refusal:
        with pytest.raises(Refusal) as raised:
            known.nics(cast("Conversation", object()), place)
        return raised.value

    with ThreadPoolExecutor(NODES) as pool:
        found = [each.result(10) for each in [pool.submit(look) for _ in range(NODES)]]
    assert asked == [1]
    assert {(each.kind, str(each), each.retry_after) for each in found} == {
        (Kind.UNREACHABLE, "no answer", 7.0)
    }
    assert len({id(each) for each in found}) == NODES, "what several threads raise gets all their tracebacks"
    for _ in range(NODES):
        came.release()
    look()
    assert asked == [2], "who comes later asks again"


def test_a_nic_that_could_not_be_read_is_found_again_at_once_and_in_a_new_list_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = placement_of(MACHINE, "AzurePublicCloud")
    assert place is not None
    lists = [[(MACHINE.casefold(), {"name": name})] for name in ("first", "second")]
    monkeypatch.setattr(which_nic, "nics_by_machine", lambda *_: lists.pop(0))
    clock = Clock()
    known = inventory.Inventory(clock)

    arm = cast("Conversation", object())

    def names() -> list[str]:
        return [nic["name"] for nic in known.nics(arm, place)]

    assert names() == names() == ["first"]
    clock.now += inventory.FRESH_SECONDS + 1
    assert names() == names() == ["second"]
