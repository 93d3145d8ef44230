"""Nodes with two NICs in one subnet on the emulated Azure, and VFs that come and go under their pods."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from integration import plugins
from integration.fabric import Fabric
from integration.fabric.ruleset import OUTBOUND
from integration.fabric.ruleset_v6 import OUTBOUND_V6
from integration.tests.conftest import shipped
from integration.tests.pods import WITNESS_PORT, Pod, attached, dropped, listening
from integration.tests.test_masquerade import saw
from integration.tests.test_several_nics import route_the_node
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Machine

STATE = (
    *(["ip", family, "rule"] for family in ("-4", "-6")),
    *(["ip", "-4", "route", "show", "table", each] for each in ("main", "local")),
)
OURS = (
    *(["ip", family, "route", "show", "table", "all", "proto", "155"] for family in ("-4", "-6")),
    *(["ip", family, "rule"] for family in ("-4", "-6")),
)
SYSCTLS = ["sysctl", "-a", "-r", r"^net\.ipv4\.conf\.(eth0|eth1|all|default)\.(rp_filter|arp_.*|forwarding)$"]


@contextlib.contextmanager
def azure(strict: int = 0, *, vfs: bool = False) -> Iterator[Fabric]:
    """Two nodes, each with two NICs in one subnet. IMDS, the source, does not say which one is primary."""
    shape: dict[str, Any] = {"internet": True, "imds_limit": None, "shuffle_nics": True, "accelerated": vfs}
    shape |= {"sysctls": {f"net/ipv4/conf/{name}/rp_filter": strict for name in ("all", "default")}}
    with Fabric(nodes=2, addresses=4, nics=2, one_subnet=True, ipv6=4, **shape) as fabric:
        for node in fabric.nodes.values():
            plugins.install_ours(node)
            plugin = shipped("10-azvnet.conflist")["plugins"][0]
            for network, primary in (("azvnet", True), ("second", False)):
                more = {"nic": {"primary": primary}, "families": ["IPv4", "IPv6"]}
                ours = {**plugin, "ipam": {**plugin["ipam"], **more}}
                chain = {"cniVersion": "1.0.0", "name": network, "plugins": [ours]}
                path = f"/etc/cni/net.d/10-{network}.conflist"
                node.run(["sh", "-c", f"mkdir -p /etc/cni/net.d && cat > {path}"], input=json.dumps(chain))
        with contextlib.ExitStack() as undo:
            for machine in fabric.machines.values():
                for address in ("0.0.0.0", "::"):
                    undo.enter_context(listening(machine, address))
            yield fabric


def pods_of(fabric: Fabric) -> list[Pod]:
    """On each node a pod of either NIC, and one more of the second."""
    made: list[Pod] = []
    for name, node in fabric.nodes.items():
        made += attached(node, f"{name}-first")
        made += attached(node, f"{name}-second", f"{name}-third", network="second")
    return made


def v6(machine: Machine) -> str:
    """The IPv6 address of a machine."""
    return str(machine.nics[0].ipv6[0])


def node_sends(node: Machine, fabric: Fabric) -> list[str]:
    """How the node's own packets go."""
    targets = (fabric.vnet_hosts[name].primary_ip for name in ("vm1", "internet"))
    every = [["ip", "route", "get", str(each)] for each in targets]
    every += [[*argv, "from", str(nic.primary_ip)] for argv in every for nic in node.nics]
    return [node.run(argv).stdout for argv in every]


def everybody_is_reached(pods: list[Pod], fabric: Fabric, *, nodes: bool) -> None:
    """Over both families, and each far end sees the pod, or what Azure makes of its NIC's address outside."""
    hosts = fabric.vnet_hosts
    beyond = {str(hosts["internet"].primary_ip): str(OUTBOUND), v6(hosts["internet"]): str(OUTBOUND_V6)}
    with contextlib.ExitStack() as undo:
        for each in pods:
            for address in (str(each.endpoint.address), each.ipv6):
                undo.enter_context(listening(each.node, address, each.netns))
        for pod in pods:
            own = {False: str(pod.endpoint.address), True: pod.ipv6}
            others = [each for each in pods if each is not pod]
            every = [address for each in others for address in (str(each.endpoint.address), each.ipv6)]
            every += [str(hosts["vm1"].primary_ip), v6(hosts["vm1"])]
            machines = fabric.nodes.values() if nodes else [pod.node]
            every += [str(nic.primary_ip) for node in machines for nic in node.nics]
            wanted = {**{each: own[":" in each] for each in every}, **beyond}
            places = [
                f"[{each}]:{WITNESS_PORT}" if ":" in each else f"{each}:{WITNESS_PORT}" for each in wanted
            ]
            assert dict(zip(wanted, saw(pod, "tcp", places), strict=True)) == wanted, pod.name


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("strict", "routed"), [(0, False), (1, False), (1, True), (2, True)])
def test_pods_of_both_nics_reach_everybody_and_the_fabric_drops_nothing(strict: int, *, routed: bool) -> None:
    """``routed``: the node has rules for its own addresses, as cloud-init adds them."""
    with azure(strict) as fabric:
        node = fabric.nodes["node1"]
        if routed:
            for each in fabric.nodes.values():
                route_the_node(each)
        node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        before = [*node_sends(node, fabric), node.run(SYSCTLS).stdout]
        state = [node.run(argv).stdout for argv in STATE]
        pods = pods_of(fabric)
        owner = {str(entry.block.network_address): nic.mac for nic in node.nics for entry in nic.secondaries}
        macs = [owner[str(pod.endpoint.address)] for pod in pods[:3]]
        assert macs == [node.nics[0].mac, node.nics[1].mac, node.nics[1].mac]
        everybody_is_reached(pods, fabric, nodes=routed)
        assert dropped(fabric) == {}
        assert [*node_sends(node, fabric), node.run(SYSCTLS).stdout] == before
        for pod in pods:
            pod.delete()
        left = [node.run(argv).stdout for argv in STATE]
        if routed:  # the rule for routes to pods stays as long as the node's own rules do
            left = [re.sub(r"30154:.*\n", "", each) for each in left]
        assert left == state


@pytest.mark.timeout(300)
def test_traffic_goes_on_while_the_vf_of_the_second_nic_comes_and_goes() -> None:
    """Rules and tables stay as they are, and pods are added in every state."""
    with azure(1, vfs=True) as fabric:
        node, (pod,) = fabric.nodes["node1"], attached(fabric.nodes["node1"], "pod-0", network="second")
        quick = {"reconcile_seconds": 0.2}
        node.run(
            ["sh", "-c", "mkdir -p /etc/azvnet && cat > /etc/azvnet/agent.json"], input=json.dumps(quick)
        )
        agent = node.popen(["/opt/cni/bin/azvnet", "agent"])
        vm1 = str(fabric.vnet_hosts["vm1"].primary_ip)
        argv = ["nsenter", f"--net={pod.netns}", "ping", "-n", "-i", "0.02", "-W", "2"]
        pings = [
            node.popen([*argv, each], stdout=subprocess.PIPE) for each in (vm1, v6(fabric.vnet_hosts["vm1"]))
        ]

        def status() -> str:
            return node.run(["/opt/cni/bin/azvnet", "status"], check=False).stdout

        def ours() -> list[str]:
            # Rules, and routes in the tables of NICs: those to pods change.
            every = (line for argv in OURS for line in node.run(argv).stdout.splitlines())
            return [line for line in every if " dev azv" not in line]

        try:
            eventually(
                lambda: not node.run(["test", "-S", "/run/azvnet/agent.sock"], check=False).returncode,
                "it serves",
            )
            before = ours()
            assert any(" dev eth1 " in each for each in before)
            changes: list[Callable[[], None]] = [
                lambda: fabric.add_vf("node1", "eth2", nic=1),
                lambda: fabric.rename_vf("node1", "enP2s1", nic=1),
                lambda: fabric.add_vf("node1", "enP1s1"),
                lambda: fabric.remove_vf("node1", nic=1),
                lambda: fabric.remove_vf("node1"),
                lambda: fabric.add_vf("node1", "enP2s1", nic=1),
            ]
            for number, change in enumerate(changes):
                change()
                (more,) = attached(node, f"more-{number}", network="second")
                assert more.run("ping", "-n", "-c1", "-W2", vm1)
                more.delete()
                assert ours() == before
                # Until the next check, a VF that was not enslaved yet looks like another NIC.
                eventually(lambda: "eth1" not in status(), status)
        finally:
            for each in pings:
                each.send_signal(signal.SIGINT)
            printed = [each.communicate()[0] for each in pings]
            agent.terminate()
            agent.wait()
        counted = [re.findall(r"(\d+) packets transmitted, (\d+) received", each) for each in printed]
        for ((sent, received),) in counted:
            assert int(received) > len(changes), "some for each of the changes"
            assert int(sent) - int(received) <= 1, "only the last may have been on its way"
        # What the bridge that stands in for netvsc's link sends when it gets a port is no pod's.
        assert {reason for reason in dropped(fabric) if reason != "multicast_v6"} == set()
