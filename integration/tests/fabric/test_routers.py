"""The fabric's routers of IPv6: nodes learn their default routes from real router advertisements."""

from __future__ import annotations

import json
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

import pytest

from integration.fabric import Fabric
from integration.fabric.model import FABRIC_MAC, FABRIC_ROUTER
from integration.fabric.routers import LIFETIME
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

OTHER = IPv6Address("fe80::99")


@pytest.fixture(scope="module")
def azure() -> Iterator[Fabric]:
    with Fabric(nodes=1, nics=2, addresses=2, ipv6=2) as fabric:
        yield fabric


@pytest.fixture
def node(azure: Fabric) -> Iterator[Machine]:
    """The node, whose routers are the usual ones again afterwards."""
    yield azure.nodes["node1"]
    for nic in range(2):
        azure.move_router("node1", FABRIC_ROUTER, nic=nic)


def routers(node: Machine) -> dict[str, dict[str, Any]]:
    """The node's default routes, by link."""
    listed = json.loads(node.run(["ip", "-6", "-j", "route", "show", "default"]).stdout)
    return {each["dev"]: each for each in listed}


def test_a_node_has_learned_a_router_on_every_nic_when_it_is_up(node: Machine) -> None:
    learned = routers(node)
    assert {each: learned[each]["gateway"] for each in learned} == dict.fromkeys(
        ("eth0", "eth1"), str(FABRIC_ROUTER)
    )
    assert {each["protocol"] for each in learned.values()} == {"ra"}
    assert all(LIFETIME - 120 < each["expires"] <= LIFETIME for each in learned.values())
    neighbours = json.loads(node.run(["ip", "-6", "-j", "neighbour", "show", str(FABRIC_ROUTER)]).stdout)
    assert {each["lladdr"] for each in neighbours if "lladdr" in each} == {FABRIC_MAC}


def test_nothing_but_the_router_is_announced(node: Machine) -> None:
    """No prefix: an address is a /128, and no node makes one of its own."""
    listed = json.loads(node.run(["ip", "-6", "-j", "address", "show", "scope", "global"]).stdout)
    given = {
        info["local"]: info["prefixlen"] for each in listed for info in each.get("addr_info", []) if info
    }
    assert given == {str(nic.ipv6[0]): 128 for nic in node.nics}


def test_a_link_that_comes_up_asks_and_is_answered(node: Machine) -> None:
    node.run_batch(["link set eth1 down"])
    assert "eth1" not in routers(node)
    node.run_batch(["link set eth1 up"])
    eventually(lambda: "eth1" in routers(node), "the router has answered the solicitation")
    node.run_batch([f"address add {node.nics[1].ipv6[0]}/128 dev eth1 nodad"])  # gone with the link


def test_another_router_takes_the_place_of_the_one_before(azure: Fabric, node: Machine) -> None:
    azure.move_router("node1", OTHER, nic=1)
    eventually(lambda: routers(node)["eth1"]["gateway"] == str(OTHER), "the other one")
    target = str(azure.machines["vm1"].nics[0].ipv6[0])
    node.run(["ip", "-6", "route", "replace", f"{target}/128", "via", str(OTHER), "dev", "eth1"])
    own = str(node.nics[1].ipv6[0])
    assert node.run(["ping", "-6", "-c1", "-W5", "-I", own, target], check=False).returncode == 0


def test_a_router_that_ends_leaves_no_route(azure: Fabric, node: Machine) -> None:
    azure.move_router("node1", FABRIC_ROUTER, nic=1, lifetime=0)
    eventually(lambda: set(routers(node)) == {"eth0"}, "the route of eth1 is gone")


def test_after_a_reboot_it_is_learned_again(azure: Fabric, node: Machine) -> None:
    azure.reboot("node1")
    assert set(routers(node)) == {"eth0", "eth1"}
