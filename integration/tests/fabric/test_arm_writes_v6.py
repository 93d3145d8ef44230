"""IPv6 configurations written through ARM: what a PUT replaces, allocates and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network
from typing import Any

import pytest

from integration.fabric.armoperations import Outcome
from integration.fabric.model import State
from integration.tests.fabric.cloud import Cloud, Document, addresses, cloud

OWN = "fd00:10:10::4"
V6 = {"privateIPAddressVersion": "IPv6"}
BLOCK = {**V6, "privateIPAddressPrefixLength": 112}


def static(address: str) -> Document:
    """The properties of a configuration whose owner chooses the address."""
    return {**V6, "privateIPAllocationMethod": "Static", "privateIPAddress": address}


@pytest.fixture
def azure() -> Iterator[Cloud]:
    """Two nodes; the first has fd00:10:10::4 and its pods' ::5 and ::6, the second ::7 to ::9."""
    with cloud(nodes=2, addresses=1, vnet_hosts=0, ipv6=2) as made:
        yield made


def of_v6(document: Document) -> dict[str, str]:
    return {name: ip for name, ip in addresses(document).items() if ":" in ip}


def drop(*names: str) -> Any:
    """The edit that leaves configurations out."""

    def edit(document: Document) -> None:
        properties = document["properties"]
        properties["ipConfigurations"] = [e for e in properties["ipConfigurations"] if e["name"] not in names]

    return edit


def test_a_put_adds_the_lowest_free_addresses_and_removes_what_it_leaves_out(azure: Cloud) -> None:
    before = {"ipv6config1": OWN, "ipv6config2": "fd00:10:10::5", "ipv6config3": "fd00:10:10::6"}
    assert of_v6(azure.nic()) == before
    grown = azure.done(azure.adds("one", "two", **V6))
    assert of_v6(grown) == {**before, "one": "fd00:10:10::a", "two": "fd00:10:10::b"}
    shrunk = azure.done(drop("ipv6config2", "one"))
    assert set(of_v6(shrunk)) == {"ipv6config1", "ipv6config3", "two"}
    other = azure.done(azure.adds("more", **V6), name="node2-nic0")
    assert of_v6(other)["more"] == "fd00:10:10::5", "what one NIC gave back another one may get"


def test_what_is_written_back_as_it_was_read_stays_as_it_was(azure: Cloud) -> None:
    before = azure.nic()
    after = azure.done(lambda _: None)
    for document in (before, after):
        document["etag"] = ""
        for entry in document["properties"]["ipConfigurations"]:
            entry["etag"] = ""
    assert after == before


def test_a_nic_has_one_block_of_112_at_most(azure: Cloud) -> None:
    grown = azure.done(azure.adds("block", **BLOCK))
    block = IPv6Network(of_v6(grown)["block"])
    (entry,) = [each for each in grown["properties"]["ipConfigurations"] if each["name"] == "block"]
    assert (block.prefixlen, entry["properties"]["privateIPAddressPrefixLength"]) == (112, 112)
    assert not any(block.overlaps(IPv6Network(ip)) for name, ip in of_v6(grown).items() if name != "block")
    answer = azure.write(azure.adds("another", **BLOCK))
    assert (answer.status, answer.code) == (400, "IpConfigurationsPerNicLimitReached")
    other = azure.done(azure.adds("block", **BLOCK), name="node2-nic0")
    assert not block.overlaps(IPv6Network(of_v6(other)["block"]))


def test_a_nic_has_254_secondary_addresses_at_most(azure: Cloud) -> None:
    full = azure.done(azure.adds(*(f"pods-{number}" for number in range(252)), **V6))
    assert len(of_v6(full)) == 255
    assert azure.write(azure.adds("one-more", **V6)).code == "IpConfigurationsPerNicLimitReached"
    azure.done(azure.adds("block", **BLOCK))


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({**V6, "primary": True}, "IPv6ConfigurationCannotBePrimary"),
        ({**V6, "privateIPAddressPrefixLength": 80}, "InvalidPrivateIPAddressPrefixLength"),
        (static("fd00:99::5"), "PrivateIPAddressNotInSubnet"),
        (static("fd00:10:10::2"), "PrivateIPAddressInReservedRange"),
        (static("fd00:10:10::7"), "PrivateIPAddressIsAllocated"),
        (static("10.10.0.9"), "InvalidIPAddressFormat"),
        ({"privateIPAddressVersion": "IPv5"}, "InvalidRequestFormat"),
    ],
)
def test_what_azure_refuses_changes_nothing(azure: Cloud, properties: Document, code: str) -> None:
    before = azure.nic()
    answer = azure.write(azure.adds("wrong", **properties))
    assert (answer.status, answer.code) == (400, code)
    assert azure.nic() == before


def test_names_are_unique_over_both_families(azure: Cloud) -> None:
    assert azure.write(azure.adds("ipconfig2", **V6)).code == "DuplicateResourceName"


def test_the_nodes_own_address_stays(azure: Cloud) -> None:
    assert azure.write(drop("ipv6config1")).code == "PrimaryAddressChangeNotEmulated"


def test_the_host_has_what_it_had_until_the_operation_succeeds(azure: Cloud) -> None:
    azure.write(azure.adds("one", **V6))
    nic = azure.estate.vm("node1").primary_nic
    assert {each.state for each in nic.configurations_v6} == {State.UPDATING}
    assert [str(each) for each in nic.ipv6] == [OWN, "fd00:10:10::5", "fd00:10:10::6"]
    azure.arm.operations.finish()
    assert [str(each) for each in azure.estate.vm("node1").primary_nic.ipv6][3:] == ["fd00:10:10::a"]


def test_a_failed_operation_leaves_the_host_with_what_it_had(azure: Cloud) -> None:
    azure.arm.operations.outcomes.append(Outcome(State.FAILED, "InternalServerError", "An error occurred."))
    azure.write(azure.adds("one", **V6))
    azure.arm.operations.finish()
    nic = azure.estate.vm("node1").primary_nic
    assert {each.state for each in nic.configurations_v6} == {State.FAILED}
    assert len(nic.ipv6) == 3
    assert len(azure.done(lambda _: None)["properties"]["ipConfigurations"]) == 6
    assert len(azure.estate.vm("node1").primary_nic.ipv6) == 4
