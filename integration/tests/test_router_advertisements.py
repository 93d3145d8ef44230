"""The gateways of IPv6 come by router advertisement, as on Azure: found, followed, and never a pod's."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import pytest

from integration import calls, plugins
from integration.fabric import Fabric
from integration.fabric import namespaces as ns
from integration.fabric.model import FABRIC_ROUTER
from integration.tests.pods import WITNESS_PORT, Pod, attached, dropped, listening
from integration.tests.test_dual_stack import addresses, dual_stack, saw
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

pytestmark = pytest.mark.timeout(300)
OTHER = IPv6Address("fe80::99")
SETTINGS = {"source": "imds", "reconcile_seconds": 0.3, "refresh_seconds": 0.5}


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """A node with two NICs, each with a network of its own, and hosts inside and outside."""
    with (
        Fabric(nodes=1, nics=2, addresses=4, ipv6=4, internet=True, imds_limit=None) as fabric,
        contextlib.ExitStack() as undo,
    ):
        node = fabric.nodes["node1"]
        plugins.install_ours(node)
        for name, keys in (("azvnet", {}), ("second", {"master": "eth1"})):
            chain = {"cniVersion": "1.0.0", "name": name, "plugins": [{**dual_stack(), **keys}]}
            plugins.write_conflist(node, chain, name=f"10-{name}.conflist")
        for machine in fabric.machines.values():
            undo.enter_context(listening(machine, "[::]"))
        yield fabric


@pytest.fixture
def agent(azure: Fabric) -> Iterator[None]:
    node = azure.nodes["node1"]
    path = "/etc/azvnet/agent.json"
    node.run(["sh", "-c", f"mkdir -p /etc/azvnet && cat > {path}"], input=json.dumps(SETTINGS))
    running = node.popen(["/opt/cni/bin/azvnet", "agent", "--config", path], stderr=subprocess.DEVNULL)
    yield
    running.terminate()
    running.wait()


def places(fabric: Fabric) -> list[str]:
    """A host of the virtual network, one of the Internet, and the node by both NICs."""
    hosts = [fabric.machines[name].nics[0].ipv6[0] for name in ("vm1", "internet")]
    own = [nic.ipv6[0] for nic in fabric.nodes["node1"].nics]
    return [f"[{each}]:{WITNESS_PORT}" for each in (*hosts, *own)]


def reaches(pod: Pod, fabric: Fabric) -> bool:
    """Whether it reaches everybody, who sees it under its own address inside."""
    own = addresses(pod)[1]
    told = saw(pod, *places(fabric))
    return [told[0], *told[2:]] == [own] * 3 and told[1] not in {"", own}


def routers(node: Machine) -> dict[str, str]:
    listed = json.loads(node.run(["ip", "-6", "-j", "route", "show", "default"]).stdout)
    return {each["dev"]: each["gateway"] for each in listed}


def table_of_eth1(node: Machine) -> str:
    index = json.loads(node.run(["ip", "-j", "link", "show", "dev", "eth1"]).stdout)[0]["ifindex"]
    return node.run(["ip", "-6", "route", "show", "table", str(15500 + index)]).stdout


def test_pods_of_both_nics_leave_by_the_routers_that_announced_themselves(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    assert routers(node) == dict.fromkeys(("eth0", "eth1"), str(FABRIC_ROUTER))
    (first,), (second,) = attached(node, "web"), attached(node, "db", network="second")
    assert f"default via {FABRIC_ROUTER} dev eth1" in table_of_eth1(node)
    assert [reaches(pod, azure) for pod in (first, second)] == [True, True]
    assert dropped(azure) == {}


def test_routers_of_the_same_preference_do_not_take_turns_with_pods(azure: Fabric) -> None:
    """The kernel goes round robin among routers that it does not know to be reachable (RFC 4861, 6.3.6)."""
    node = azure.nodes["node1"]
    for link in ("eth0", "eth1"):
        node.run(["sysctl", "-qw", f"net.ipv6.conf.{link}.ra_defrtr_metric=1024"])
        azure.move_router("node1", FABRIC_ROUTER, nic=int(link[-1]), lifetime=0)
        azure.move_router("node1", FABRIC_ROUTER, nic=int(link[-1]))
    eventually(lambda: len(routers(node)) == 2, "both are learned again")
    (first,), (second,) = attached(node, "web"), attached(node, "db", network="second")
    for link in ("eth0", "eth1"):
        node.run(["ip", "-6", "neighbour", "replace", str(FABRIC_ROUTER), "dev", link, "nud", "failed"])
        assert [reaches(pod, azure) for pod in (first, second)] == [True, True]
    assert dropped(azure) == {}


@pytest.mark.usefixtures("agent")
def test_a_router_that_takes_another_ones_place_is_followed(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    (first,), (second,) = attached(node, "web"), attached(node, "db", network="second")
    for nic in range(2):
        azure.move_router("node1", OTHER, nic=nic)
    eventually(lambda: set(routers(node).values()) == {str(OTHER)}, "the node has learned them")
    eventually(lambda: f"default via {OTHER} dev eth1" in table_of_eth1(node), "and the pods' table has it")
    assert [reaches(pod, azure) for pod in (first, second)] == [True, True]


def test_a_pod_takes_no_advertisement(azure: Fabric) -> None:
    """Not even one that the node itself sends by the pod's link."""
    node = azure.nodes["node1"]
    (pod,) = attached(node, "web")
    before = pod.run("ip", "-6", "route")
    (veth,) = [
        each["ifname"]
        for each in json.loads(node.run(["ip", "-j", "link", "show", "type", "veth"]).stdout)
        if each["ifname"].startswith("azv")
    ]
    received = _received(pod)
    ns.in_network(node.namespaces.net, lambda: _announce_on(veth))
    eventually(lambda: _received(pod) > received, "the pod's kernel has got it")
    assert pod.run("ip", "-6", "route") == before
    assert reaches(pod, azure)


def _received(pod: Pod) -> int:
    lines = pod.run("cat", "/proc/net/snmp6").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Icmp6InRouterAdvertisements")))


def _announce_on(link: str) -> None:
    """Send an advertisement of a default route and of a prefix for addresses, as a node's radvd would."""
    index = socket.if_nametoindex(link)
    head = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, IPv6Address("2001:db8:bad::").packed)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.sendto(head + prefix, ("ff02::1", 0, 0, index))


def test_a_node_whose_second_nic_is_announced_no_router_is_told(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    azure.move_router("node1", FABRIC_ROUTER, nic=1, lifetime=0)
    eventually(lambda: set(routers(node)) == {"eth0"}, "the node has learned it")
    with pytest.raises(calls.CallError, match="eth1, the NIC of pods' addresses, has no IPv6 default route"):
        attached(node, "db", network="second")
