"""Public IPs of IP configurations: what shows them, and what the fabric translates, both ways."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric.changes import RefusedChange
from integration.fabric.ruleset import FIRST_PUBLIC_IP, OUTBOUND
from integration.fabric.ruleset_v6 import FIRST_PUBLIC_IP_V6, OUTBOUND_V6
from integration.tests.fabric.asking import imds
from integration.tests.fabric.packets import pod
from integration.tests.pods import WITNESS_PORT, listening
from integration.witness import ASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Fabric, Machine

BALANCED = "/metadata/loadbalancer?api-version=2020-10-01"


@pytest.fixture
def azure(make_fabric: Callable[..., Fabric]) -> Fabric:
    return make_fabric(nodes=1, addresses=4, internet=True, ipv6=2, imds_limit=None)


@contextlib.contextmanager
def reachable(azure: Fabric) -> Iterator[tuple[Machine, Machine]]:
    """The node and a machine of the Internet, which both answer with the address that they see."""
    node, internet = azure.nodes["node1"], azure.machines["internet"]
    with contextlib.ExitStack() as undo:
        for machine in (node, internet):
            for anywhere in ("0.0.0.0", "[::]"):
                undo.enter_context(listening(machine, anywhere))
        yield node, internet


def saw(asking: Machine, kind: str, target: Any, netns: str = "") -> str:
    place = f"[{target}]:{WITNESS_PORT}" if target.version == 6 else f"{target}:{WITNESS_PORT}"
    inside = ["ip", "netns", "exec", netns] if netns else []
    return asking.run([*inside, "python3", "-c", ASK, kind, place]).stdout.strip()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_public_ip_is_translated_one_to_one_both_ways(azure: Fabric, kind: str) -> None:
    with reachable(azure) as (node, internet):
        outside = internet.vm.primary_nic
        own = node.vm.primary_nic
        assert saw(node, kind, outside.primary_ip) == str(OUTBOUND)
        assert saw(node, kind, outside.ipv6[0]) == str(OUTBOUND_V6)
        public = azure.give_public("node1", own.primary_ip)
        public_v6 = azure.give_public("node1", own.ipv6[0])
        assert (public, public_v6) == (FIRST_PUBLIC_IP, FIRST_PUBLIC_IP_V6)
        assert saw(node, kind, outside.primary_ip) == str(public)
        assert saw(node, kind, outside.ipv6[0]) == str(public_v6)
        assert saw(internet, kind, public) == str(outside.primary_ip)
        assert saw(internet, kind, public_v6) == str(outside.ipv6[0])


def test_a_secondary_address_with_a_public_ip_leaves_and_one_without_does_not(azure: Fabric) -> None:
    with reachable(azure) as (node, internet):
        first, second = node.pod_addresses[:2]
        public = azure.give_public("node1", first)
        outside = internet.vm.primary_nic.primary_ip
        with pod(node, "with", first), pod(node, "without", second):
            assert saw(node, "tcp", outside, "with") == str(public)
            before = azure.drop_counters().general["no_egress"]
            assert saw(node, "udp", outside, "without") == "no answer"
            assert azure.drop_counters().general["no_egress"] > before


def test_without_it_the_internet_does_not_get_in(azure: Fabric) -> None:
    with reachable(azure) as (node, internet):
        public = azure.give_public("node1", node.primary_ip)
        azure.take_public("node1", node.primary_ip)
        assert saw(internet, "udp", public) == "no answer"
        assert saw(node, "tcp", internet.vm.primary_nic.primary_ip) == str(OUTBOUND)


def test_imds_has_the_standard_sku_in_the_document_of_load_balancers_alone(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    first, second = node.pod_addresses[:2]
    assert imds(node, BALANCED).status == 404
    public = azure.give_public("node1", first)
    shown = {"frontendIpAddress": str(public), "privateIpAddress": str(first)}
    assert imds(node, BALANCED).document["loadbalancer"]["publicIpAddresses"] == [shown]
    basic = azure.give_public("node1", second, basic=True)
    assert imds(node, BALANCED).document["loadbalancer"]["publicIpAddresses"] == [shown]
    (interface,) = imds(node).document["interface"]
    public_of = {e["privateIpAddress"]: e["publicIpAddress"] for e in interface["ipv4"]["ipAddress"]}
    assert {private: each for private, each in public_of.items() if each} == {str(second): str(basic)}
    assert imds(node, "/metadata/loadbalancer?api-version=2019-06-01").status == 400


def test_arm_names_it_in_the_configuration(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    azure.give_public("node1", node.pod_addresses[0])
    (nic,) = azure.estate.vm("node1").nics
    (named,) = [each.settings["publicIPAddress"]["id"] for each in nic.configurations if each.settings]
    assert named.endswith(f"/Microsoft.Network/publicIPAddresses/public-{FIRST_PUBLIC_IP}")


def test_each_configuration_has_at_most_one_and_an_address_that_is_free(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    first, second, *_ = node.pod_addresses
    assert azure.give_public("node1", first) == FIRST_PUBLIC_IP
    assert azure.give_public("node1", second) == FIRST_PUBLIC_IP + 1
    for address in (first, IPv4Address("10.10.0.99"), IPv6Address("fd00::1")):
        with pytest.raises(RefusedChange):
            azure.give_public("node1", address)
    azure.take_public("node1", first)
    with pytest.raises(RefusedChange):
        azure.take_public("node1", first)
    assert azure.give_public("node1", first) == FIRST_PUBLIC_IP


def test_an_instance_of_a_uniform_set_gets_none(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, vnet_hosts=0, placement="uniform")
    with pytest.raises(RefusedChange, match="Uniform"):
        fabric.give_public("node1", fabric.nodes["node1"].pod_addresses[0])
