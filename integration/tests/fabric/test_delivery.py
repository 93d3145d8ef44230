"""The host network delivers by address, answers every ARP request, and lets no wrong source pass."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from integration.tests.fabric.packets import arp, pod, reaches, send_udp
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Fabric

AZURE_MAC = "12:34:56:78:9a:bc"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("10.10.0.1", id="gateway"),
        pytest.param("10.10.0.21", id="another node"),
        pytest.param("10.10.0.6", id="own secondary address"),
        pytest.param("10.10.9.99", id="address that nobody has"),
        pytest.param("10.77.0.1", id="address outside the network"),
    ],
)
def test_every_arp_request_is_answered_with_the_one_mac_of_azure(fabric: Fabric, target: str) -> None:
    assert arp(fabric.nodes["node1"], IPv4Address(target)) == AZURE_MAC


def test_eth0_has_the_mac_of_the_nic_and_the_primary_address_alone(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    printed = node.run(["ip", "-4", "-o", "address", "show", "dev", "eth0"]).stdout
    assert node.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip() == node.uplink_mac
    assert [line.split()[3] for line in printed.splitlines()] == [f"{node.primary_ip}/20"]


def test_routes_of_a_node_are_those_that_dhcp_gives(fabric: Fabric) -> None:
    printed = fabric.nodes["node1"].run(["ip", "-4", "route"]).stdout.split("\n")
    routes = {" ".join(line.split()[:5]) for line in printed if line}
    assert routes == {
        "default via 10.10.0.1 dev eth0",
        "10.10.0.0/20 dev eth0 proto kernel",
        "168.63.129.16 via 10.10.0.1 dev eth0",
        "169.254.169.254 via 10.10.0.1 dev eth0",
    }


def test_machines_reach_each_other(fabric: Fabric) -> None:
    one, two, host = fabric.nodes["node1"], fabric.nodes["node2"], fabric.vnet_hosts["vm1"]
    assert reaches(one, two.primary_ip)
    assert reaches(one, host.primary_ip)
    assert reaches(host, two.primary_ip)


def test_a_frame_for_a_secondary_address_arrives_although_nobody_answers_arp_for_it(fabric: Fabric) -> None:
    """The node does not proxy ARP and the address is on no link of it: only the host's knowledge of
    the NIC's addresses can bring the packet there.
    """
    node, other = fabric.nodes["node1"], fabric.nodes["node2"]
    address, far = node.pod_addresses[0], other.pod_addresses[0]
    with pod(node, "near", address), pod(other, "far", far):
        assert reaches(other, address)
        assert reaches(other, address, netns="far")
        assert reaches(fabric.vnet_hosts["vm1"], address)


def test_pods_of_one_node_reach_each_other_without_the_fabric(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    one, two = node.pod_addresses[:2]
    with pod(node, "one", one), pod(node, "two", two):
        assert reaches(node, two, netns="one")


def test_a_source_that_the_nic_does_not_own_is_dropped_and_counted_with_its_name(fabric: Fabric) -> None:
    node, host = fabric.nodes["node1"], fabric.vnet_hosts["vm1"]
    before = fabric.drop_counters()
    stolen = str(fabric.nodes["node2"].pod_addresses[3])
    for _ in range(3):
        send_udp(node, str(host.primary_ip), source=stolen)
    after = fabric.drop_counters()
    assert after.spoofed["node1"] - before.spoofed["node1"] == 3
    assert after.spoofed["node2"] == before.spoofed["node2"]
    assert ("node1", stolen, str(host.primary_ip), 3) in {
        (s.machine, s.source, s.destination, s.packets) for s in after.spoofs
    }


def test_traffic_of_owned_addresses_moves_no_drop_counter(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric()
    node = fabric.nodes["node1"]
    with pod(node, "near", node.pod_addresses[0]):
        assert reaches(node, fabric.vnet_hosts["vm1"].primary_ip, netns="near")
    counters = fabric.drop_counters()
    assert counters.spoofed_total == 0
    assert counters.platform_total == 0
    assert not counters.general["unassigned"]


def test_the_gateway_routes_but_does_not_answer_echo(fabric: Fabric) -> None:
    before = fabric.drop_counters().general["gateway"]
    assert not reaches(fabric.nodes["node1"], "10.10.0.1", wait="0.3")
    assert fabric.drop_counters().general["gateway"] == before + 1


def test_a_packet_to_an_address_that_nobody_owns_disappears_without_an_icmp_error(fabric: Fabric) -> None:
    before = fabric.drop_counters().general["unassigned"]
    printed = fabric.nodes["node1"].run(["ping", "-n", "-c1", "-W0.3", "10.10.9.99"], check=False).stdout
    assert "100% packet loss" in printed
    assert "nreachable" not in printed
    assert fabric.drop_counters().general["unassigned"] == before + 1


@pytest.mark.parametrize("target", ["255.255.255.255", "10.10.15.255", "224.0.0.251"])
def test_broadcast_and_multicast_are_dropped(fabric: Fabric, target: str) -> None:
    before = fabric.drop_counters().general["broadcast"]
    send_udp(fabric.nodes["node1"], target)
    assert fabric.drop_counters().general["broadcast"] == before + 1


def test_the_port_that_azure_reserves_is_not_carried(fabric: Fabric) -> None:
    before = fabric.drop_counters().general["protocol"]
    send_udp(fabric.nodes["node1"], str(fabric.nodes["node2"].primary_ip), source_port=65330)
    assert fabric.drop_counters().general["protocol"] == before + 1


def test_tunnels_that_azure_does_not_carry_are_dropped(fabric: Fabric) -> None:
    node, other = fabric.nodes["node1"], fabric.nodes["node2"]
    before = fabric.drop_counters().general["protocol"]

    def send_ipip() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as raw:
            raw.sendto(b"E" + b"\0" * 19, (str(other.primary_ip), 0))

    node.in_network(send_ipip)
    assert fabric.drop_counters().general["protocol"] == before + 1


def test_networks_see_each_other_only_when_they_are_peered(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(peered_hosts=1, stranger_hosts=1)
    node, hosts = fabric.nodes["node1"], fabric.vnet_hosts
    assert reaches(node, hosts["peer1"].primary_ip)
    assert reaches(hosts["peer1"], node.primary_ip)
    assert not reaches(node, hosts["stranger1"].primary_ip, wait="0.3")
    assert fabric.drop_counters().general["not_peered"] == 1


def test_the_internet_is_reached_from_primary_addresses_alone(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(internet=True)
    node, internet = fabric.nodes["node1"], fabric.vnet_hosts["internet"]
    assert reaches(node, internet.primary_ip)
    with pod(node, "near", node.pod_addresses[0]):
        assert not reaches(node, internet.primary_ip, netns="near", wait="0.3")
    assert fabric.drop_counters().general["no_egress"] == 1
    assert not reaches(internet, node.primary_ip, wait="0.3")
    assert fabric.drop_counters().general["inbound"] == 1


def test_mtu_is_1500_or_what_was_asked_for(fabric: Fabric, make_fabric: Callable[..., Fabric]) -> None:
    assert fabric.nodes["node1"].run(["cat", "/sys/class/net/eth0/mtu"]).stdout.strip() == "1500"
    jumbo = make_fabric(mtu=3900)
    node = jumbo.nodes["node1"]
    assert node.run(["cat", "/sys/class/net/eth0/mtu"]).stdout.strip() == "3900"
    large = ["ping", "-n", "-c1", "-W1", "-M", "do", "-s", "3872", str(jumbo.nodes["node2"].primary_ip)]
    assert node.run(large, check=False).returncode == 0


def test_addresses_given_and_taken_at_run_time_change_delivery_and_filter(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=2, addresses=2)
    node, host = fabric.nodes["node1"], fabric.vnet_hosts["vm1"]
    (new,) = fabric.add_addresses("node1", 1)
    with pod(node, "near", new):
        assert reaches(host, new)
        fabric.remove_addresses("node1", [new])
        assert not reaches(node, host.primary_ip, netns="near", wait="0.3")
        assert not reaches(host, new, wait="0.3")
    assert fabric.drop_counters().spoofed["node1"] == 1


def test_an_address_moves_from_one_nic_to_another(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=2, addresses=2)
    one, two = fabric.nodes["node1"], fabric.nodes["node2"]
    moving = one.pod_addresses[0]
    fabric.remove_addresses("node1", [moving])
    fabric.add_addresses("node2", [moving])
    with pod(two, "near", moving):
        assert reaches(one, moving)


def test_all_addresses_of_a_block_are_delivered(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=0, blocks=1)
    node = fabric.nodes["node1"]
    assert len(node.pod_addresses) == 16
    with pod(node, "near", node.pod_addresses[-1]):
        assert reaches(fabric.vnet_hosts["vm1"], node.pod_addresses[-1])


def test_a_configuration_that_is_not_finished_carries_no_packet(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=1)
    node, host = fabric.nodes["node1"], fabric.vnet_hosts["vm1"]
    address = node.pod_addresses[0]
    fabric.set_state("node1", [address], "Updating")
    with pod(node, "near", address):
        assert not reaches(host, address, wait="0.3")
        fabric.set_state("node1", [address], "Succeeded")
        assert reaches(host, address)


def test_the_filter_learns_of_a_change_after_its_lag(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, addresses=0)
    node, host = fabric.nodes["node1"], fabric.vnet_hosts["vm1"]
    fabric.lag("fabric", float("inf"))
    (new,) = fabric.add_addresses("node1", 1)
    with pod(node, "near", new):
        assert not reaches(node, host.primary_ip, netns="near", wait="0.1")
        fabric.lag("fabric", 0.3)
        assert reaches_within(fabric, host.name, new, seconds=10)


def reaches_within(fabric: Fabric, machine: str, target: IPv4Address, *, seconds: float) -> bool:
    return found_within(seconds, lambda: reaches(fabric.machines[machine], target, wait="0.1"))
