"""What is left on the NICs of nodes that are gone: it is taken away where the NIC is nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.fabric.documents import vm_id
from integration.fabric.model import Placement
from ipam.provision import progress
from ipam.value import replace
from tests.unit.operator.witness import ANY_ADDRESS
from tests.unit.operator.world import World, clock, world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.operator.agent import Agent

pytestmark = pytest.mark.slow

GRACE = 60.0


class Gone:
    """A node that had addresses: its agent is silent, and its pods are gone with it."""

    def __init__(self, place: World, agent: Agent) -> None:
        self.place, self.name = place, agent.name
        agent.pods = 6
        place.soon(lambda: len(agent.held) == 6)
        place.soon(lambda: place.says(agent.name, progress.IDLE))
        self.foreign = [each["name"] for each in self._entries() if each["name"] not in self.ours()]
        assert len(self.foreign) == 3, "the primary one, and two that somebody else made"
        assert self.ours()
        agent.is_silent = True
        del place.agents[agent.name]
        place.azure.witness.holders = lambda node: (
            (frozenset(), ANY_ADDRESS) if node == self.name else place._holders(node)
        )
        self.writes = place.azure.arm.log.count("PUT")

    def ours(self) -> list[str]:
        return self.place.azure.names(self.name)

    def forget(self) -> None:
        """Delete the Node, and wait until the operator has forgotten it."""
        since = clock()
        self.place.api.remove("Nodes", self.name)
        self.place.soon(lambda: not self.place.api.has(self.name))
        assert clock() - since >= GRACE

    def left(self) -> list[str]:
        return [each["name"] for each in self._entries()]

    @property
    def was_written(self) -> bool:
        return self.place.azure.arm.log.count("PUT") > self.writes

    def _entries(self) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.place.azure.nic(self.name)["properties"]["ipConfigurations"]
        return entries


def test_a_nic_that_was_kept_when_its_machine_was_deleted_is_cleared_after_the_grace_period(
    place: World,
) -> None:
    agent = place.agent("node1")
    place.operator(grace_seconds=GRACE)
    gone = Gone(place, agent)
    place.azure.change_machine("node1", is_deleted=True)
    gone.forget()
    assert "virtualMachine" not in place.azure.nic("node1")["properties"]
    assert gone.left() == gone.foreign


def test_a_nic_that_is_another_machines_now_is_left_alone(place: World) -> None:
    """Its IP configurations have names of ours, and pods that another operator knows may use them."""
    agent = place.agent("node1")
    operator = place.operator(grace_seconds=GRACE)
    gone = Gone(place, agent)
    before = gone.left()
    place.azure.change_machine("node1", name="another")
    gone.forget()
    assert gone.left() == before
    assert not gone.was_written
    assert any("is attached to" in text and "another" in text for _, text in operator.told)


def test_a_node_whose_nic_was_deleted_is_forgotten(place: World) -> None:
    agent = place.agent("node1")
    other = place.agent("node2")
    place.operator(grace_seconds=GRACE)
    gone = Gone(place, agent)
    place.azure.change_machine("node1", nics=())
    gone.forget()
    assert not gone.was_written
    other.pods = 5
    place.soon(lambda: len(other.held) == 5)


def test_an_instance_of_a_scale_set_that_was_deleted_is_forgotten_and_no_other_one_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path, monkeypatch, placement=Placement.UNIFORM, nodes=2) as place:
        first, second = (vm.computer_name for vm in place.azure.estate.vms)
        agent, other = place.agent(first), place.agent(second)
        place.operator(grace_seconds=GRACE)
        other.pods = 3
        place.soon(lambda: len(other.held) == 3 and place.says(second, progress.IDLE))
        gone = Gone(place, agent)
        place.azure.forget_machine(first)
        gone.forget()
        assert not gone.was_written
        assert len(other.held) == 3
        other.pods = 8
        place.soon(lambda: len(other.held) == 8)


def test_the_kept_nic_of_a_machine_that_was_replaced_is_cleared_and_the_new_one_is_served(
    place: World,
) -> None:
    """A Node keeps its name, and is another machine with another NIC now."""
    agent = place.agent("node1")
    place.operator(grace_seconds=GRACE)
    gone = Gone(place, agent)
    place.azure.change_machine("node1", is_deleted=True)
    estate = place.azure.estate
    new = estate.vm("node2")
    place.api.put("Nodes", "node1", {"spec": {"providerID": f"azure://{vm_id(estate, new)}"}})
    machine = replace(agent.spec.machine, resource_id=vm_id(estate, new), vm_id=new.vm_id)
    with agent.lock:
        agent.pods = 0
        agent.held.clear()
        agent.marked.clear()
        agent.spec = replace(agent.spec, machine=machine, seen=0, releasing=())
    holds = place.azure.witness.holders
    place.azure.witness.holders = lambda node: agent.guarded() if node == "node2" else holds(node)
    place.agents["node1"] = agent
    agent.is_silent = False
    place.soon(lambda: not gone.ours())
    assert gone.left() == gone.foreign
    place.soon(lambda: place.status("node1").nic.id.endswith("/node2-nic0"))
    agent.pods = 6
    place.soon(lambda: len(agent.held) == 6)
    assert place.azure.names("node2")


def test_a_node_that_is_gone_while_azure_is_away_is_cleared_when_it_is_back(place: World) -> None:
    agent = place.agent("node1")
    operator = place.operator(grace_seconds=GRACE)
    gone = Gone(place, agent)
    place.azure.is_away = True
    place.api.remove("Nodes", "node1")
    place.soon(lambda: any("unreachable" in text for _, text in operator.told))
    assert place.api.has("node1")
    place.azure.is_away = False
    place.soon(lambda: not place.api.has("node1"))
    assert gone.left() == gone.foreign
