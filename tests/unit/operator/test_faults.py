"""Everything goes wrong: operators are killed, stopped and doubled, Azure and the API server fail.

Whatever happens, nothing that is not ours changes on a NIC, and no pod loses its address (``AzureService``
looks at every change, and the fixture asserts).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric import allocation
from integration.fabric.armoperations import Outcome
from integration.fabric.model import State
from ipam.operator import decide, shared_networks
from ipam.operator.budget import WINDOW
from ipam.operator.errors import ClusterError
from ipam.provision.plan import Sizes
from ipam.provision.refusals import Kind
from ipam.value import replace
from tests.unit.operator.world import FAST, SIZES, World

if TYPE_CHECKING:
    from integration.fabric.model import Estate
    from integration.fabric.web import Request, Response
    from ipam.operator.record import NodeRecord

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("pods", [14, 2], ids=["growing", "shrinking"])
def test_a_leader_that_was_stopped_before_a_write_and_goes_on_after_another_leads_does_no_harm(
    place: World, pods: int
) -> None:
    agent = place.agent("node1")
    stopped = place.operator("stopped")
    agent.pods = 14 - 12 * (pods == 14)
    place.settled(agent)
    gate = stopped.life.gates["PUT"] = threading.Event()
    agent.pods = pods
    place.soon(stopped.life.at_gate.is_set)
    stopped.frozen = True
    other = place.operator("other")
    place.soon(lambda: other.elector.leads)
    assert not stopped.elector.leads
    place.settled(agent)
    gate.set()
    place.soon(lambda: stopped.term is None or stopped.term.turns.working == 0)
    place.settled(agent)


@pytest.mark.parametrize("pods", [14, 2], ids=["growing", "shrinking"])
def test_a_leader_that_loses_the_lease_while_a_write_is_under_way_does_no_harm(
    place: World, pods: int
) -> None:
    """Azure has the write, and the next leader finds it on the NIC before the first one has its answer."""
    agent = place.agent("node1")
    first = place.operator("first")
    agent.pods = 14 - 12 * (pods == 14)
    place.settled(agent)
    answer, arrived, may_answer = place.azure.arm.answer, threading.Event(), threading.Event()

    def slowly(request: Request, estate: Estate) -> Response:
        answered = answer(request, estate)
        if request.method == "PUT" and not arrived.is_set():
            arrived.set()
            may_answer.wait(60)
        return answered

    place.azure.arm.answer = slowly  # type: ignore[method-assign]
    agent.pods = pods
    place.soon(arrived.is_set)
    first.frozen = True
    other = place.operator("other")
    place.soon(lambda: other.elector.leads)
    assert not first.elector.leads
    place.settled(agent)
    may_answer.set()
    place.soon(lambda: first.term is None or first.term.turns.working == 0)
    place.settled(agent)


def test_without_the_api_server_nothing_is_written_and_afterwards_it_goes_on(place: World) -> None:
    agent = place.agent("node1")
    operator = place.operator()
    agent.pods = 3
    place.settled(agent)
    operator.view.is_away = True
    place.soon(lambda: not operator.elector.leads)
    writes = place.azure.arm.log.count("PUT")
    agent.pods = 12
    place.soon(lambda: agent.spec.pool.waiting > 0)
    assert place.azure.arm.log.count("PUT") == writes
    operator.view.is_away = False
    place.settled(agent)


def test_without_azure_the_node_is_told_and_afterwards_it_goes_on(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.settled(agent)
    place.azure.is_away = True
    agent.pods = 12
    place.soon(lambda: place.says("node1", Kind.UNREACHABLE.value))
    place.azure.is_away = False
    place.settled(agent)


def test_a_storm_of_429_pauses_all_and_nobody_is_forgotten(place: World) -> None:
    agents = [place.agent(f"node{number}") for number in (1, 2, 3)]
    operator = place.operator()
    place.azure.arm.faults.throttle(12, 2, ("PUT", "GET", "poll"))
    place.azure.arm.faults.throttle(4, 2, ("PUT",), by_gateway=True)
    for agent in agents:
        agent.pods = 6
    place.settled(*agents)
    assert operator.counters["provision_throttled"] > 0


def test_an_operation_that_fails_late_is_made_again(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    place.azure.arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "no"))
    agent.pods = 6
    place.settled(agent)


def test_somebody_else_may_write_between_reading_and_writing(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    place.azure.witness.looks = False  # what the other one changes is not looked at
    for _ in range(3):
        place.azure.arm.faults.other_writers.append(
            lambda nic: nic.setdefault("tags", {}).update({f"by{len(nic['tags'])}": "other"})
        )
    agent.pods = 6
    place.settled(agent)
    assert len(place.azure.nic("node1")["tags"]) == 3


def test_a_right_that_is_taken_and_given_back_is_noticed(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.settled(agent)
    place.azure.arm.roles.give("reader")
    agent.pods = 12
    place.soon(lambda: place.says("node1", Kind.FORBIDDEN.value))
    place.azure.arm.roles.give("nic-writer")
    place.settled(agent)


def test_an_identity_that_is_removed_and_returned_is_noticed(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.settled(agent)
    principal, place.azure.identity.system_assigned = place.azure.identity.system_assigned, None
    place.azure.arm.issuer.revoke_all()
    agent.pods = 12
    place.soon(lambda: place.says("node1", Kind.NO_IDENTITY.value))
    place.azure.identity.system_assigned = principal
    place.settled(agent)


def test_a_full_subnet_is_said_and_whoever_looks_at_the_node_sees_an_event(place: World) -> None:
    agent = place.agent("node1")
    place.operator()
    agent.pods = 3
    place.settled(agent)
    place.azure.arm.faults.full_subnets.add("nodes")
    agent.pods = 14
    place.soon(lambda: place.says("node1", Kind.SUBNET_FULL.value))
    place.soon(lambda: place.api.events)
    assert {event[:2] for event in place.api.events} == {("node1", "AddressesSubnetFull")}
    assert place.status("node1").conditions[0].status == "False"
    place.azure.arm.faults.full_subnets.clear()
    place.soon(lambda: len(agent.held) == 14)


def test_what_nodes_give_back_in_a_full_virtual_network_goes_to_pods_that_wait_on_others(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a minute, and as soon as another NIC has them no longer."""
    first, second = (place.agent(name, replace(SIZES, shrink_after=3600.0)) for name in ("node1", "node2"))
    operator = place.operator()
    first.pods = 12
    place.settled(first, second)
    configurations = sum(len(nic.configurations) for vm in place.azure.estate.vms for nic in vm.nics)
    monkeypatch.setattr(allocation, "MAX_IN_VNET", configurations + 3)
    second.pods = len(second.held) + second.spec.pool.free + 8
    place.soon(lambda: place.says("node2", Kind.VNET_FULL.value))
    place.soon(lambda: place.api.events)
    assert {event[:2] for event in place.api.events} == {("node2", "AddressesVnetFull")}
    assert "provision.prefixes" in place.status("node2").remedy
    assert operator.term is not None
    record = operator.term.fleet.records["node2"]
    served = second.pods - 8 + 3
    place.soon(lambda: len(second.held) == served)
    monkeypatch.setattr(shared_networks, "PROBE_SECONDS", 1e6)
    place.soon(lambda: operator.term and operator.term.fleet.around(record).room == 0)
    first.pods = 1
    place.soon(lambda: len(second.held) == second.pods)


def test_a_nic_that_is_full_is_said(place: World) -> None:
    agent = place.agent("node1", Sizes(low=2, batch=4, high=8, maximum=1000))
    place.operator()
    agent.pods = 300
    place.soon(lambda: place.says("node1", "nic-full"))
    assert len(agent.held) == 255
    assert "provision.prefixes" in place.status("node1").remedy


def test_an_agent_that_lost_its_marks_keeps_what_was_to_be_removed(place: World) -> None:
    """The leader ends between noting a removal and making it, and the node loses its store meanwhile."""
    agent = place.agent("node1")
    first = place.operator("first")
    agent.pods = 14
    place.settled(agent)
    gate = first.life.gates["PUT"] = threading.Event()
    agent.pods = 2
    place.soon(first.life.at_gate.is_set)
    first.life.is_dead.set()
    agent.lose_marks()
    agent.pods = 14
    place.soon(lambda: len(agent.held) == 14)
    place.operator("second")
    place.settled(agent)
    gate.set()
    place.settled(agent)


def test_nothing_is_removed_where_the_agent_has_not_been_heard_of_lately(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "FRESH_SECONDS", 0.0)
    agent = place.agent("node1")
    place.operator()
    agent.pods = 14
    place.settled(agent)
    before = place.azure.names("node1")
    agent.pods = 2
    place.soon(lambda: place.says("node1", Kind.BUSY.value))
    assert place.azure.names("node1") == before


def test_an_api_server_that_refuses_what_is_told_is_not_asked_all_the_time(place: World) -> None:
    agent = place.agent("node1")
    operator = place.operator()
    agent.pods = 3
    place.settled(agent)
    refusing = operator.view.write_status
    asked: list[str] = []

    def refuse(name: str, changed: object, version: str) -> object:
        asked.append(name)
        raise ClusterError("422 it is invalid")

    operator.view.write_status = refuse  # type: ignore[method-assign]
    agent.pods = 12
    place.soon(lambda: sum("status could not be written" in text for _, text in operator.told) == 2)
    assert len(asked) < 20
    operator.view.write_status = refusing  # type: ignore[method-assign]
    place.settled(agent)


def test_a_defect_about_one_node_is_logged_and_others_are_served(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = place.agent("node1"), place.agent("node2")
    decide_well = decide.decide

    def fails(record: NodeRecord, *more: Any) -> object:
        if record.node.name == "node1":
            raise ZeroDivisionError("oh")
        return decide_well(record, *more)

    monkeypatch.setattr("ipam.operator.fleet.decide", fails)
    operator = place.operator()
    broken.pods = good.pods = 5
    place.soon(lambda: len(good.held) == 5)
    assert ("error", "node1: internal error: ZeroDivisionError: oh") in operator.told
    assert operator.term is not None
    assert not operator.term.ended


def test_requests_stay_within_the_share_of_the_budget(place: World) -> None:
    share = 0.012
    agents = [place.agent(f"node{number}", Sizes(low=1, batch=1, high=2)) for number in (1, 2, 3)]
    place.operator(budget={"share": share})
    for pods in (2, 4, 6):
        for agent in agents:
            agent.pods = pods
        place.soon(lambda: all(len(agent.held) == agent.pods for agent in agents))
    for kinds, allowed in ((("PUT",), 1000 * share), (("GET", "poll"), 10_000 * share)):
        times = sorted(e.at for kind in kinds for e in place.azure.arm.log.entries(kind=kind))
        for end in times:
            # Between its turn and its arrival a request is on its way.
            inside = [at for at in times if end - WINDOW / FAST + 0.5 < at <= end]
            assert len(inside) <= allowed
