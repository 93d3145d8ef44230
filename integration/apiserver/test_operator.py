"""``azvnet operator`` as a process of its own: a real API server, the real SDK, the emulated Azure.

Agents are played, and keep to the agreement. Whatever happens to operators, a witness looks at every change
of every NIC: nothing that is not ours, no address of a pod, none that a pod could be given.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from integration.apiserver.operator_site import (
    AGENT_RULES,
    PATIENCE,
    RULES,
    FollowingNode,
    Site,
    site_with_agents,
)
from integration.cluster.apiserver import ApiServer
from integration.fabric import Fabric
from integration.fabric.armoperations import Outcome
from integration.fabric.model import State
from ipam.provision.progress import IDLE
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_agents(tmp_path) as made:
        yield made


def test_nodes_grow_and_shrink_and_the_pages_say_so(site: Site) -> None:
    operator = site.operator()
    site.scale(9)
    site.settled()
    site.soon(lambda: operator.page("readyz") == "ready\n")
    assert operator.page("healthz") == "ok\n"
    assert 'azvnet_operator_writes_total{outcome="ok"} 3.0' in operator.page("metrics")
    before = {name: len(site.names(name)) for name in site.agents}
    site.scale(1)
    site.soon(lambda: all(len(site.names(name)) < before[name] for name in site.agents))
    site.settled()
    assert operator.end() == 0


def test_operators_that_are_killed_and_stopped_are_followed_without_a_loss(site: Site) -> None:
    running = [site.operator(), site.operator()]
    for pods in (12, 1, 12):
        site.soon(lambda: any(each.leads for each in running))
        leader = next(each for each in running if each.leads)
        writes = site.fabric.arm.log.count("PUT")
        site.scale(pods)
        site.soon(lambda writes=writes: site.fabric.arm.log.count("PUT") > writes)  # type: ignore[misc]
        leader.end(signal.SIGKILL)
        running.remove(leader)
        running.append(site.operator())
        site.settled()


def test_a_leader_that_is_stopped_until_another_leads_does_no_harm_when_it_goes_on(site: Site) -> None:
    first = site.operator()
    site.soon(lambda: first.leads)
    second = site.operator()
    site.scale(12)
    site.settled()
    writes = site.fabric.arm.log.count("PUT")
    site.scale(1)
    site.soon(lambda: site.fabric.arm.log.count("PUT") > writes)
    first.process.send_signal(signal.SIGSTOP)
    site.soon(lambda: second.leads)
    first.process.send_signal(signal.SIGCONT)
    site.settled()
    assert not first.leads
    assert second.end() == 0  # gives the lease back
    site.soon(lambda: first.leads)
    site.scale(12)
    site.settled()


def test_without_the_api_server_nothing_is_written_and_afterwards_it_goes_on(site: Site) -> None:
    operator = site.operator()
    site.scale(3)
    site.settled()
    site.server.stop()
    site.soon(lambda: not operator.leads)
    writes = site.fabric.arm.log.count("PUT")
    site.scale(12)
    assert operator.page("healthz") == "ok\n"
    site.server.start()
    assert site.fabric.arm.log.count("PUT") == writes
    site.settled()


def test_azure_throttles_fails_late_and_is_away(site: Site) -> None:
    operator = site.operator()
    site.scale(3)
    site.settled()
    site.fabric.arm.faults.throttle(8, 1, ("PUT", "GET", "poll"))
    site.fabric.arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "no"))
    site.scale(9)
    site.settled()
    assert 'azvnet_operator_throttled_total{kind="' in operator.page("metrics")
    site.fabric.fault("arm", refused=True)
    site.scale(14)
    site.soon(lambda: all(site.status(name).state == "unreachable" for name in site.agents))
    site.fabric.clear_faults("arm")
    site.settled()


def test_what_a_deleted_node_had_is_taken_away(site: Site) -> None:
    site.operator()
    site.scale(5)
    site.settled()
    site.abandon("node3")
    site.server.api.delete("/api/v1/nodes/node3")
    site.cleared("node3")
    site.settled()


def test_a_frozen_agent_and_a_frozen_operator_give_pods_addresses_and_take_them_back(
    tmp_path: Path,
) -> None:
    """Nothing is played here: pods of a real node, whose agent has no rights in Azure."""
    with contextlib.ExitStack() as undo:
        fabric = undo.enter_context(Fabric(nodes=1, addresses=0, vnet_hosts=1, imds_limit=None))
        fabric.arm.roles.give("nic-writer")
        server = undo.enter_context(ApiServer(fabric.vnet_hosts["vm1"], tmp_path))
        server.define_azvnet_nodes()
        server.give_role("azvnet-operator", RULES, "kube-system", "azvnet-operator")
        server.give_role("azvnet", AGENT_RULES, "kube-system", "azvnet")
        node = FollowingNode(fabric, server)
        undo.callback(node.end)
        site = Site(fabric, server, tmp_path, played=False)
        undo.callback(site.close)
        site.witness.looks = False  # who holds what is known to the agent alone; the drop counter judges
        site.operator()
        for number in range(10):
            eventually(
                lambda name=f"pod-{number}": node.add(name).ok,  # type: ignore[misc]
                lambda: f"{node.status()} {site.status('node1')} {site.operators[0].log.read_text()}",
                patience=PATIENCE,
            )
        assert all(node.reaches_the_network(pod) for pod in node.pods)
        before = len(node.ours)
        for number in range(1, 10):
            node.delete(f"pod-{number}")
        site.soon(lambda: len(node.ours) < before)
        site.soon(lambda: site.status("node1").state == IDLE and not site.status("node1").releasing)
        assert node.reaches_the_network("pod-0")
        assert node.nothing_was_dropped()
        eventually(lambda: node.add("pod-late").ok, "what is left is given out", patience=PATIENCE)
