"""The wireserver: the interface document, and who may ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lxml import etree

from integration.tests.fabric.asking import INTERFACES, wireserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Fabric


def test_interface_document_lists_every_nic_with_its_primary_address_marked(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, nics=2, addresses=2)
    node = fabric.nodes["node1"]
    answer = wireserver(node)
    assert answer.status == 200
    interfaces = etree.fromstring(answer.body)
    assert interfaces.tag == "Interfaces"
    assert [dict(i.attrib) for i in interfaces] == [
        {"MacAddress": nic.mac.replace(":", "").upper(), "IsPrimary": flag}
        for nic, flag in zip(node.nics, ("true", "false"), strict=True)
    ]
    for interface, nic in zip(interfaces, node.nics, strict=True):
        (subnet,) = interface
        assert subnet.tag == "IPSubnet"
        assert subnet.get("Prefix") == str(nic.subnet.prefix)
        assert [(a.tag, a.get("Address"), a.get("IsPrimary")) for a in subnet] == [
            ("IPAddress", str(entry.address), "true" if entry.primary else "false")
            for entry in nic.configurations
        ]


@pytest.mark.parametrize("known", [True, False])
def test_ipv6_addresses_are_listed_in_their_subnet_if_it_is_told_to(
    make_fabric: Callable[..., Fabric], known: bool
) -> None:
    """No recording shows whether Azure's lists them."""
    node = make_fabric(nodes=1, addresses=2, ipv6=2, wireserver_ipv6=known).nodes["node1"]
    (interface,) = etree.fromstring(wireserver(node).body)
    nic = node.vm.primary_nic
    listed = {subnet.get("Prefix"): [dict(each.attrib) for each in subnet] for subnet in interface}
    assert [str(nic.subnet.prefix), *([str(nic.subnet.prefix_v6)] if known else [])] == list(listed)
    if known:
        flags = ["true", "false", "false"]
        expected = [{"Address": str(a), "IsPrimary": f} for a, f in zip(nic.ipv6, flags, strict=True)]
        assert listed[str(nic.subnet.prefix_v6)] == expected


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/machine/plugins?comp=nmagent&type=getinterfaceinfov1", 200),
        ("/machine/plugins/?comp=nmagent&type=GetInterfaceInfoV1", 200),
        ("/machine/plugins?comp=nmagent&type=GetSupportedApis", 200),
        ("/?comp=versions", 200),
        ("/machine/plugins?comp=nmagent&type=somethingelse", 400),
        ("/machine/plugins", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_served(fabric: Fabric, path: str, status: int) -> None:
    answer = wireserver(fabric.nodes["node1"], path)
    assert answer.status == status
    assert etree.fromstring(answer.body) is not None


def test_no_limit_of_five_requests_holds_here(fabric: Fabric) -> None:
    assert {wireserver(fabric.nodes["node1"]).status for _ in range(12)} == {200}


def test_a_secondary_address_is_answered_as_the_primary_one_is(fabric: Fabric) -> None:
    """So a node has to keep its pods away from it."""
    node = fabric.nodes["node2"]
    source = str(node.pod_addresses[0])
    node.run(["ip", "address", "add", f"{source}/32", "dev", "lo"])
    assert wireserver(node, INTERFACES, source=source).body == wireserver(node).body


def test_imds_and_wireserver_learn_of_a_change_each_in_its_own_time(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, addresses=1)
    fabric.lag("wireserver", float("inf"))
    (new,) = fabric.add_addresses("node1", 1)
    assert str(new).encode() not in wireserver(fabric.nodes["node1"]).body
    fabric.lag("wireserver", 0)
    assert str(new).encode() in wireserver(fabric.nodes["node1"]).body
