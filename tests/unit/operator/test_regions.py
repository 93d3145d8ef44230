"""One operator, several subscriptions, regions and clouds: each has a budget of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipam.operator.turns import Region, Sort
from ipam.provision import progress
from ipam.provision.refusals import Kind
from tests.unit.operator.world import World, world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.operator.agent import Agent
    from tests.unit.operator.azure_service import AzureService

pytestmark = pytest.mark.slow

OTHER_SUBSCRIPTION = "0b5c0000-0000-4000-8000-00000000beef"
HERE, NORTH, OTHER = "node1", "node2", "node3"


class Places:
    """A node here, one in another region of the subscription, and one in another subscription."""

    def __init__(self, place: World) -> None:
        azure = place.azure
        self.services: dict[str, AzureService] = {
            HERE: azure,
            NORTH: azure.neighbour(location="northeurope", resource_group="rg-north"),
            OTHER: azure.neighbour(subscription=OTHER_SUBSCRIPTION),
        }
        self.agents: dict[str, Agent] = {}
        for name, service in self.services.items():
            service.witness.holders = place._holders
            self.agents[name] = place.agent(
                name,
                resource_id=service.machine_id(name),
                vm_id=service.estate.vm(name).vm_id,
                location=service.estate.location,
            )

    def region(self, name: str) -> Region:
        estate = self.services[name].estate
        return Region(estate.subscription.casefold(), estate.location.casefold())

    def unharmed(self) -> bool:
        """Whether nothing foreign was changed anywhere; the fixture looks at the first one."""
        return not any(each.witness.broken for each in self.services.values())


def test_nodes_of_all_subscriptions_and_regions_are_served(place: World) -> None:
    places = Places(place)
    operator = place.operator()
    for agent in places.agents.values():
        agent.pods = 5
    for name, agent in places.agents.items():
        place.soon(lambda agent=agent: len(agent.held) == 5)  # type: ignore[misc]
        place.soon(lambda name=name: place.says(name, progress.IDLE))  # type: ignore[misc]
        assert places.services[name].names(name)
    assert operator.term is not None
    accounts = dict(operator.term.turns.accounts())
    assert accounts.keys() == {places.region(name) for name in places.agents}
    for name, service in places.services.items():
        used = accounts[places.region(name)].meters[Sort.WRITE].used
        assert used == service.arm.log.count("PUT") >= 1
    assert places.unharmed()


def test_a_region_that_throttles_does_not_hold_another_one_up(place: World) -> None:
    places = Places(place)
    place.operator()
    places.services[HERE].arm.faults.throttle(100, 3600, ("PUT", "GET", "poll"))
    places.agents[HERE].pods = 5
    place.soon(lambda: place.says(HERE, Kind.THROTTLED.value))
    for name in (NORTH, OTHER):
        places.agents[name].pods = 5
        place.soon(lambda name=name: len(places.agents[name].held) == 5)  # type: ignore[misc]
    assert not places.agents[HERE].held
    assert place.says(HERE, Kind.THROTTLED.value)
    assert places.unharmed()


@pytest.mark.parametrize("environment", ["AzureChinaCloud", "AzureUSGovernmentCloud"])
def test_nodes_of_the_clouds_with_their_own_endpoints_are_served_with_tokens_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    with world(tmp_path, monkeypatch, environment=environment) as place:
        agent = place.agent("node1")
        place.operator()
        agent.pods = 5
        place.soon(lambda: len(agent.held) == 5)
        place.soon(lambda: place.says("node1", progress.IDLE))


@pytest.mark.parametrize(
    ("environment", "word"),
    [("AzureChinaCloud", "https://management.chinacloudapi.cn"), ("AzureGermanCloud", "wrong audience")],
)
def test_a_node_of_another_cloud_than_the_operators_identity_is_told_and_others_are_served(
    place: World, environment: str, word: str
) -> None:
    place.agent("node2", environment=environment)
    good = place.agent("node1")
    operator = place.operator()
    place.soon(lambda: place.says("node2", Kind.NO_IDENTITY.value))
    assert word in place.status("node2").text
    assert "its own cloud only" in place.status("node2").remedy
    good.pods = 5
    place.soon(lambda: len(good.held) == 5)
    assert not [text for _, text in operator.told if "internal error" in text]
    assert place.azure.arm.log.count("PUT") >= 1


def test_the_endpoint_of_a_cloud_that_nobody_knows_has_to_be_set(place: World) -> None:
    place.agent("node1", environment="AzureStackHub")
    place.operator(arm={"credential": "managed-identity", "ca_file": str(place.azure.ca_file)})
    place.soon(lambda: place.says("node1", Kind.NO_IDENTITY.value))
    assert "the endpoint of cloud" in place.status("node1").text
    assert "arm.base_url" in place.status("node1").text
    assert not place.azure.arm.log.entries()
