"""A node with two NICs on the emulated Azure, whose source filter counts what leaves by the wrong one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from integration import plugins
from integration.fabric import Fabric
from integration.fabric.ruleset import OUTBOUND
from integration.tests.conftest import shipped
from integration.tests.pods import WITNESS_PORT, Pod, attached, dropped, listening, machine, unreached
from integration.tests.test_masquerade import saw
from tests.waiting import eventually

if TYPE_CHECKING:
    from integration.fabric import Machine


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """Two nodes with two NICs each, and the networks that Azure connects."""
    shape = {"peered_hosts": 1, "on_premises_hosts": 1, "internet": True, "imds_limit": None}
    with Fabric(nodes=2, addresses=4, nics=2, **shape) as fabric, contextlib.ExitStack() as undo:  # type: ignore[arg-type]
        for node in fabric.nodes.values():
            plugins.install_ours(node)
            plugin = shipped("10-azvnet.conflist")["plugins"][0]
            for network, keys in (("azvnet", {}), ("second", {"master": "eth1"})):
                chain = {"cniVersion": "1.0.0", "name": network, "plugins": [{**plugin, **keys}]}
                path = f"/etc/cni/net.d/10-{network}.conflist"
                node.run(["sh", "-c", f"mkdir -p /etc/cni/net.d && cat > {path}"], input=json.dumps(chain))
        for machine in fabric.machines.values():
            undo.enter_context(listening(machine, "0.0.0.0"))
        yield fabric


def route_the_node(node: Machine) -> None:
    """What the node itself sends leaves by its right NIC too: as cloud-init does it on Azure."""
    for number, nic in enumerate(node.nics):
        via = f"via {nic.subnet.gateway} dev eth{number} table {200 + number}"
        lines = [f"route add default {via}", f"rule add from {nic.primary_ip} lookup {200 + number}"]
        node.run_batch(lines)


def seen_as(pod: Pod, others: list[Pod], fabric: Fabric) -> dict[str, str]:
    """Under which address everybody should see a pod."""
    own, hosts = str(pod.endpoint.address), fabric.vnet_hosts
    every = [str(nic.primary_ip) for node in fabric.nodes.values() for nic in node.nics]
    every += [str(each.endpoint.address) for each in others]
    every += [str(hosts[name].primary_ip) for name in ("vm1", "peer1", "onpremises1")]
    return {**dict.fromkeys(every, own), str(hosts["internet"].primary_ip): str(OUTBOUND)}


def pods_of(fabric: Fabric) -> list[Pod]:
    """On each node a pod of either NIC, and one more of the second."""
    made = []
    for name, node in fabric.nodes.items():
        made += attached(node, f"{name}-first")
        made += attached(node, f"{name}-second", f"{name}-third", network="second")
    return made


@pytest.mark.timeout(300)
def test_pods_of_both_nics_reach_everybody_and_the_fabric_drops_nothing(azure: Fabric) -> None:
    """Also after the agent has taken over, which decides about the same routes."""
    for node in azure.nodes.values():
        route_the_node(node)
    pods = pods_of(azure)
    node = azure.nodes["node1"]
    second = [str(nic.subnet.prefix) for nic in node.nics]
    assert second[0] != second[1]

    def everybody() -> None:
        with contextlib.ExitStack() as undo:
            for each in pods:
                undo.enter_context(listening(each.node, str(each.endpoint.address), each.netns))
            for pod in pods:
                wanted = seen_as(pod, [each for each in pods if each is not pod], azure)
                found = saw(pod, "tcp", [f"{address}:{WITNESS_PORT}" for address in wanted])
                assert dict(zip(wanted, found, strict=True)) == wanted, pod.name
        for pod in pods:
            assert "vm1" in pod.run("busybox", "nslookup", "vm1", "168.63.129.16")
        assert dropped(azure) == {}

    everybody()
    before = node.run(["ip", "rule"]).stdout
    assert f"from {node.nics[1].secondaries[0].block.network_address}" in before
    agent = node.popen(["/opt/cni/bin/azvnet", "agent"])
    try:
        node.run(["ip", "rule", "flush", "proto", "155"])
        eventually(lambda: node.run(["ip", "rule"]).stdout == before, "the agent has put the rules back")
        everybody()
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.timeout(300)
def test_each_interface_of_a_pod_is_reached_and_answers_by_its_own_nic(azure: Fabric) -> None:
    """One interface on each NIC, as Multus makes them: several connections, since routes may take turns."""
    one, two = azure.nodes.values()
    (first,) = attached(one, "pod-1")
    net1 = Pod(one, "pod-1", network="second", ifname="net1")
    net1.add()
    (asking,) = attached(two, "pod-2")
    ends = [str(each.endpoint.address) for each in (first, net1)]
    with listening(one, "0.0.0.0", first.netns):
        assert saw(asking, "tcp", [f"{each}:{WITNESS_PORT}" for each in ends * 4]) == [
            str(asking.endpoint.address)
        ] * len(ends * 4)
    vm1 = f"{azure.vnet_hosts['vm1'].primary_ip}:{WITNESS_PORT}"
    assert saw(first, "tcp", [vm1] * 4) == [ends[0]] * 4
    for each in (*ends, "eth0", "net1"):
        first.run("ping", "-n", "-c3", "-i0.2", "-W2", "-I", each, vm1.partition(":")[0])
    assert dropped(azure) == {}
    net1.delete()
    assert saw(first, "tcp", [vm1]) == [ends[0]]


@pytest.mark.timeout(300)
def test_explain_says_by_which_rule_and_table_and_what_the_far_end_sees(azure: Fabric) -> None:
    (pod,) = attached(azure.nodes["node1"], "pod-1", network="second")
    node, own = pod.node, str(pod.endpoint.address)
    hosts = azure.vnet_hosts
    for target, source in ((hosts["vm1"], own), (hosts["internet"], str(node.nics[1].primary_ip))):
        argv = ["azvnet", "explain", "--from", own, "--to", str(target.primary_ip), "--output", "json"]
        read = json.loads(node.run(argv).stdout)
        assert (read["verdict"], read["source"]) == ("delivered", source), read
        assert read["hops"][1]["rule"].startswith("30155: from "), read
        assert " lookup 155" in read["hops"][1]["rule"]
        assert read["hops"][2]["interface"] == "eth1"


@pytest.mark.timeout(300)
def test_the_node_is_as_it_was_when_the_last_pods_are_gone(azure: Fabric) -> None:
    node = azure.nodes["node1"]

    def state() -> list[str]:
        every = (["ip", "-4", "rule"], ["ip", "-4", "route", "show", "table", "all"])
        return [node.run(argv).stdout for argv in every]

    before = state()
    pods = [*attached(node, "pod-1"), *attached(node, "pod-2", "pod-3", network="second")]
    assert state() != before
    for pod in pods:
        pod.delete()
    assert state() == before


@pytest.mark.timeout(300)
def test_the_shipped_conflist_for_a_second_nic_gives_pods_its_addresses(azure: Fabric) -> None:
    """It names neither link nor MAC, so it is the same on every machine of a scale set."""
    conflist = shipped("second-nic.conflist")
    pods = []
    for name, node in azure.nodes.items():
        plugins.install_reference(node)  # portmap
        plugins.write_conflist(node, conflist, name="20-second-nic.conflist")
        pods += attached(node, f"{name}-a", f"{name}-b", network=conflist["name"])
        owned = {str(each.block.network_address) for each in node.nics[1].secondaries}
        assert {str(pod.endpoint.address) for pod in pods[-2:]} <= owned
    ends = [pod.endpoint for pod in pods]
    assert unreached([*ends, machine(azure.vnet_hosts["vm1"])], ends) == []
    assert dropped(azure) == {}
