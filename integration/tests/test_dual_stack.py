"""Two nodes whose pods have addresses of both families, on an emulated Azure that speaks both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from integration import calls, plugins, witness
from integration.fabric import Fabric
from integration.fabric.ruleset import OUTBOUND
from integration.fabric.ruleset_v6 import OUTBOUND_V6
from integration.tests.conftest import shipped
from integration.tests.pods import WITNESS_PORT, Pod, attached, listening, use

if TYPE_CHECKING:
    from integration.fabric import Machine

V6 = 4
"""Secondary IPv6 addresses of each node."""


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """Two nodes, and a host of their network, of a peering, of a network not peered, and of the Internet."""
    shape = {"peered_hosts": 1, "stranger_hosts": 1, "internet": True, "imds_limit": None}
    with Fabric(nodes=2, addresses=8, ipv6=V6, **shape) as fabric, contextlib.ExitStack() as undo:  # type: ignore[arg-type]
        for node in fabric.nodes.values():
            plugins.install_ours(node)
            use(node, dual_stack())
        for machine in fabric.machines.values():
            for address in ("0.0.0.0", "[::]"):
                undo.enter_context(listening(machine, address))
        yield fabric


def dual_stack() -> dict[str, Any]:
    conf: dict[str, Any] = shipped("10-azvnet.conflist")["plugins"][0]
    return {**conf, "ipam": {**conf["ipam"], "families": ["IPv4", "IPv6"]}}


def addresses(pod: Pod) -> tuple[str, str]:
    """Those of eth0: IPv4, IPv6."""
    (link,) = [each for each in json.loads(pod.run("ip", "-j", "address", "show", "dev", "eth0")) if each]
    given = [each for each in link["addr_info"] if each["scope"] == "global"]
    (v4,) = [each["local"] for each in given if each["family"] == "inet"]
    (v6,) = [each["local"] for each in given if each["family"] == "inet6"]
    return v4, v6


def saw(pod: Pod, *places: str) -> list[str]:
    """What the far ends say over TCP, one after the other."""
    return pod.run("python3", "-c", witness.ASK, "tcp", *places).splitlines()


def both(machine: Machine) -> list[str]:
    nic = machine.vm.primary_nic
    return [f"{nic.primary_ip}:{WITNESS_PORT}", f"[{nic.ipv6[0]}]:{WITNESS_PORT}"]


def test_pods_are_seen_under_their_own_addresses_inside_and_under_the_nodes_outside(azure: Fabric) -> None:
    node, other = azure.machines["node1"], azure.machines["node2"]
    (pod,), (peer,) = attached(node, "web"), attached(other, "db")
    v4, v6 = addresses(pod)
    assert v6 in {str(each) for each in node.vm.primary_nic.ipv6[1:]}
    there = addresses(peer)
    with contextlib.ExitStack() as undo:
        for address in ("0.0.0.0", "[::]"):
            undo.enter_context(listening(other, address, peer.netns))
        assert saw(pod, f"{there[0]}:{WITNESS_PORT}", f"[{there[1]}]:{WITNESS_PORT}") == [v4, v6]
    assert saw(pod, *both(azure.machines["vm1"])) == [v4, v6]
    assert saw(pod, *both(azure.machines["peer1"])) == [v4, v6]
    assert saw(pod, *both(azure.machines["internet"])) == [str(OUTBOUND), str(OUTBOUND_V6)]
    assert saw(pod, *both(node)) == [v4, v6]
    assert azure.drop_counters().spoofed_total == 0


def test_what_is_sent_from_an_address_of_nobody_is_dropped_by_azure(azure: Fabric) -> None:
    node = azure.machines["node1"]
    node.run_batch(["address add fd00:10:10::dead/128 dev eth0 nodad"])
    target = str(azure.machines["vm1"].vm.primary_nic.ipv6[0])
    done = node.run(["ping", "-6", "-c1", "-W1", "-I", "fd00:10:10::dead", target], check=False)
    assert done.returncode != 0
    assert azure.drop_counters().spoofed["node1"] > 0
    own = str(node.vm.primary_nic.ipv6[0])
    assert node.run(["ping", "-6", "-c1", "-W5", "-I", own, target], check=False).returncode == 0


def test_networks_that_are_not_peered_do_not_see_each_other(azure: Fabric) -> None:
    target = str(azure.machines["stranger1"].vm.primary_nic.ipv6[0])
    vm = azure.machines["vm1"]
    assert vm.run(["ping", "-6", "-c1", "-W1", target], check=False).returncode != 0
    assert azure.drop_counters().general["not_peered_v6"] > 0


def test_the_pool_ends_with_the_scarcer_family_and_says_which(azure: Fabric) -> None:
    node = azure.machines["node1"]
    attached(node, *(f"pod{number}" for number in range(V6)))
    with pytest.raises(calls.CallError, match="no free IPv6 address"):
        attached(node, "one-too-many")


@pytest.mark.parametrize("known", [True, False])
def test_a_wireserver_that_lists_ipv6_gives_pods_both_families_and_another_refuses_them(known: bool) -> None:
    """It is not known which of them Azure's is."""
    with Fabric(nodes=1, addresses=2, ipv6=2, vnet_hosts=1, wireserver_ipv6=known) as fabric:
        node, far = fabric.machines["node1"], fabric.machines["vm1"]
        plugins.install_ours(node)
        conf = dual_stack()
        use(node, {**conf, "ipam": {**conf["ipam"], "environment": "wireserver"}})
        if not known:
            with pytest.raises(calls.CallError, match="IPv6"):
                attached(node, "web")
            return
        with listening(far, "0.0.0.0"), listening(far, "[::]"):
            (pod,) = attached(node, "web")
            assert saw(pod, *both(far)) == list(addresses(pod))
            pod.delete()


def test_pods_of_ptp_get_our_addresses_of_both_families(azure: Fabric) -> None:
    """It sets ``all.forwarding``: the kernel then drops default routes that were announced, unless
    ``accept_ra`` is 2.
    """
    node = azure.machines["node1"]
    node.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=2"])
    plugins.install_reference(node)
    use(node, {"type": "ptp", "ipam": {"type": "azvnet-ipam", "families": ["IPv4", "IPv6"]}})
    (pod,) = attached(node, "web")
    assert saw(pod, *both(azure.machines["vm1"])) == list(addresses(pod))
    pod.delete()
