"""The operator at work: real requests to the emulated Azure, agents that keep to the agreement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from integration.fabric.model import Placement
from ipam.operator.record import STALE, UNBELIEVED_SECONDS
from ipam.provision import progress
from ipam.provision.plan import Sizes
from ipam.provision.refusals import Kind
from ipam.provision.timestamps import rfc3339
from ipam.value import replace
from tests.unit.operator.witness import ANY_ADDRESS
from tests.unit.operator.world import World, clock, world

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_a_node_is_given_addresses_and_its_pods_get_them(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 5
    place.soon(lambda: len(agent.held) == 5)
    place.soon(lambda: place.says("node1", progress.IDLE))
    status = place.status("node1")
    assert len(place.azure.names("node1")) == len([e for e in status.configurations if e.is_ours])
    assert status.conditions[0].status == "True"
    assert status.operation is None


def test_a_pool_that_is_too_large_is_made_smaller_and_pods_keep_theirs(place: World) -> None:
    agent = place.agent("node1")
    operator = place.operator()
    agent.pods = 14
    place.soon(lambda: len(agent.held) == 14)
    before = len(place.azure.names("node1"))
    agent.pods = 3
    place.soon(lambda: len(place.azure.names("node1")) < before)
    place.soon(lambda: place.says("node1", progress.IDLE) and not place.status("node1").releasing)
    place.soon(lambda: not agent.spec.releasing)
    assert len(agent.held) == 3
    assert operator.counters["provision_removed"] == before - len(place.azure.names("node1"))


def test_pods_that_are_on_their_way_are_prepared_for(place: World) -> None:
    agent = place.agent("node1", Sizes(low=0, batch=4, high=8))
    place.operator()
    place.soon(lambda: place.says("node1", progress.IDLE))
    for number in range(3):
        place.api.put("Pods", f"pod-{number}", {"spec": {"nodeName": "node1"}, "status": {}})
    place.api.put("Pods", "host", {"spec": {"nodeName": "node1", "hostNetwork": True}, "status": {}})
    place.soon(lambda: agent.spec.pool.free >= 3)
    assert not agent.held


def test_uniform_scale_sets_are_written_through_the_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path, monkeypatch, placement=Placement.UNIFORM, nodes=1) as place:
        node = place.azure.estate.vms[0].computer_name
        agent = place.agent(node)
        place.operator()
        agent.pods = 14
        place.soon(lambda: len(agent.held) == 14)
        agent.pods = 2
        place.soon(lambda: len(place.azure.names(node)) <= 10)
        assert place.status(node).nic.instance


def test_blocks_are_taken_where_the_node_wants_them(place: World) -> None:
    agent = place.agent("node1", Sizes(low=2, batch=16, high=24, prefixes=True))
    place.operator()
    agent.pods = 12
    place.soon(lambda: len(agent.held) == 12)
    assert len(place.azure.names("node1")) == 1


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(place: World) -> None:
    agent = place.agent("node1")
    with agent.lock:
        agent.spec = replace(agent.spec, dry_run=True)
    agent.pods = 5
    place.operator()
    place.soon(lambda: place.says("node1", progress.DRY_RUN))
    assert "would add" in place.status("node1").text
    assert not place.azure.arm.log.entries(kind="PUT")


@pytest.mark.parametrize(
    ("provider_id", "word"),
    [
        ("azure:///subscriptions/s/resourceGroups/g/providers/x/y", "the Node's providerID"),
        ("kind://node1", "the Node's providerID"),
    ],
)
def test_a_machine_that_is_not_that_of_the_node_is_refused(place: World, provider_id: str, word: str) -> None:
    place.agent("node1")
    place.api.put("Nodes", "node1", {"spec": {"providerID": provider_id}})
    place.operator()
    place.soon(lambda: place.says("node1", Kind.REFUSED.value))
    assert word in place.status("node1").text
    assert not place.azure.arm.log.entries()


def test_a_machine_that_two_nodes_claim_stays_with_the_one_that_had_it(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    place.azure.witness.holders = lambda _: agent.guarded()
    other = place.agent("node2", resource_id=place.azure.machine_id("node1"))
    place.api.put("Nodes", "node2", {"spec": {}})
    other.pods = 5
    place.soon(lambda: place.says("node2", Kind.REFUSED.value))
    assert "'node1'" in place.status("node2").text
    agent.pods = 9
    place.soon(lambda: len(agent.held) == 9)


def test_other_resource_groups_are_left_alone(place: World) -> None:
    place.agent("node1")
    place.operator(resource_groups=["another"])
    place.soon(lambda: place.says("node1", Kind.REFUSED.value))
    assert "resource_groups" in place.status("node1").text
    assert not place.azure.arm.log.entries()


def test_an_agent_that_does_not_follow_any_more_is_left_alone(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    agent.is_silent = True
    place.soon(lambda: place.says("node1", STALE))
    writes = place.azure.arm.log.count("PUT")
    place.api.put("Pods", "late", {"spec": {"nodeName": "node1"}, "status": {}})
    agent.is_silent = False
    place.soon(lambda: not place.says("node1", STALE))
    assert place.azure.arm.log.count("PUT") >= writes


def test_what_a_node_that_is_gone_had_is_taken_away_and_it_is_forgotten(place: World) -> None:
    agent = place.agent("node1")
    place.operator(grace_seconds=20)
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    agent.is_silent = True
    del place.agents["node1"]
    place.azure.witness.holders = lambda _: (frozenset(), ANY_ADDRESS)
    place.api.remove("Nodes", "node1")
    place.soon(lambda: not place.api.has("node1"))
    assert not place.azure.names("node1")


def test_a_node_whose_machine_is_gone_as_well_is_forgotten(place: World) -> None:
    agent = place.agent("node2")
    place.operator(grace_seconds=20)
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    agent.is_silent = True
    place.azure.forget_machine("node2")
    place.api.remove("Nodes", "node2")
    place.soon(lambda: not place.api.has("node2"))


def test_a_node_that_comes_back_in_time_keeps_what_it_has(place: World) -> None:
    agent = place.agent("node1")
    place.operator(grace_seconds=600)
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    place.api.remove("Nodes", "node1")
    place.soon(lambda: place.says("node1", STALE))
    place.api.put("Nodes", "node1", {"spec": {}})
    place.soon(lambda: place.says("node1", progress.IDLE))
    assert place.azure.names("node1")


def test_agents_of_other_versions_are_served(place: World) -> None:
    """What an older one does not say has a default, what a newer one says besides is passed over."""
    older, newer = place.agent("node1"), place.agent("node2")
    older.without = ("dryRun", "subnet", "vanished", "releasing")
    newer.extra = {"flavour": {"a": 1}}
    place.operator()
    older.pods = newer.pods = 5
    place.soon(lambda: len(older.held) == len(newer.held) == 5)


def test_a_node_that_says_what_can_not_be_is_told_and_others_are_served(place: World) -> None:
    broken, impossible, good = (place.agent(f"node{number}") for number in (1, 2, 3))
    broken.is_silent = True
    place.api.write_spec("node1", {"seen": "many"})
    impossible.extra = {"sizes": {"batch": 0}}
    place.operator()
    impossible.pods = good.pods = 5
    place.soon(lambda: len(good.held) == 5)
    place.soon(lambda: place.says("node2", Kind.REFUSED.value))
    assert place.status("node2").text == "sizes.batch has to be at least 1"


def test_an_agent_that_does_not_believe_what_was_there_before_it_is_told_again(place: World) -> None:
    """One that was away for long says that it has seen nothing until the NIC was read again."""
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.soon(lambda: len(agent.held) == 3)
    place.soon(lambda: place.says("node1", progress.IDLE))
    agent.is_silent = True
    before, read = place.status("node1").last_read_time, clock()
    place.soon(lambda: rfc3339(time.time()) != before and clock() > read + UNBELIEVED_SECONDS)
    place.api.write_spec("node1", {**place.api.node("node1")["spec"], "seen": 0, "renewTime": "another"})
    place.soon(lambda: place.status("node1").last_read_time != before)


def test_a_node_that_is_another_machine_now_is_told_of_that_ones_nic_alone(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 6
    place.soon(lambda: len(agent.held) == 6)
    place.soon(lambda: place.says("node1", progress.IDLE))
    agent.is_silent = True
    old, generation = place.status("node1").nic, place.api.node("node1")["metadata"]["generation"]
    place.api.put("Nodes", "node1", {"spec": {"providerID": f"azure://{place.azure.machine_id('node2')}"}})
    place.azure.witness.holders = lambda _: (frozenset(), frozenset())
    spec = {**place.api.node("node1")["spec"], "renewTime": "another"}
    machine = {**spec["machine"], "resourceId": place.azure.machine_id("node2"), "vmId": "another"}
    place.api.write_spec("node1", {**spec, "machine": machine, "seen": 0})
    place.soon(lambda: place.status("node1").observed_generation > generation)
    told = [
        each[3]["status"]
        for each in place.api.history
        if each[2] == "AzvnetNodes" and each[3].get("status", {}).get("observedGeneration", 0) > generation
    ]
    assert told
    assert all(each["nic"]["id"] != old.id for each in told)
