"""azvnet under libcni, through the real cnitool: versions, life cycle, garbage, traffic."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from integration import calls, plugins, residue
from integration.tests.conftest import CONF, shipped
from integration.tests.pods import Pod, attached, dropped, machine, unreached

if TYPE_CHECKING:
    from integration.fabric import Fabric, Machine
    from integration.tests.conftest import MakeFabric

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")


def configure(node: Machine, version: str = "1.1.0") -> dict[str, Any]:
    """The shipped conflist in another version."""
    conflist = {**shipped("10-azvnet.conflist"), "cniVersion": version}
    plugins.write_conflist(node, conflist)
    return conflist


@pytest.mark.parametrize("version", VERSIONS)
def test_life_of_an_attachment_in_every_version_libcni_speaks(node: Machine, version: str) -> None:
    configure(node, version)
    pod = Pod.make(node, "pod")
    before = residue.snapshot(node)

    assert pod.cnitool("status").ok
    result = pod.add()
    assert result["cniVersion"] == version
    assert [i["name"] for i in result["interfaces"] if i.get("sandbox") == pod.netns] == ["eth0"]
    assert pod.addresses() == [result["ips"][0]["address"]]
    assert ip_interface(result["ips"][0]["address"]).ip in node.pod_addresses
    assert ("version" in result["ips"][0]) == (version < "1.0.0")

    checked = pod.cnitool("check")
    if version == "0.3.1":
        assert not checked.ok, "libcni lets CHECK through only from 0.4.0 on"
    else:
        assert (checked.exit_code, checked.stdout) == (0, ""), checked
    pod.delete()
    pod.delete()
    assert residue.snapshot(node) == before


def test_the_command_line_is_a_command_on_a_node(node: Machine) -> None:
    configure(node)
    pod = Pod.make(node, "pod")
    address = str(ip_interface(pod.add()["ips"][0]["address"]).ip)

    assert address in node.run(["azvnet", "status"], check=False).stdout
    pod.delete()


def test_second_add_is_refused_and_harms_nothing(fabric: Fabric, node: Machine) -> None:
    configure(node)
    pod = Pod.make(node, "pod")
    result = pod.add()
    before = residue.snapshot(node)

    again = pod.cnitool("add")

    assert not again.ok
    assert "already attached" in again.stderr
    assert residue.snapshot(node) == before
    assert pod.addresses() == [result["ips"][0]["address"]]
    assert pod.cnitool("check").ok
    assert unreached([machine(fabric.vnet_hosts["vm1"])], [pod.endpoint]) == []


def test_two_interfaces_of_one_pod_live_and_go_independently(node: Machine) -> None:
    configure(node)
    (first,) = attached(node, "pod")
    second = Pod(node, "pod", ifname="net1")
    second.add()

    assert set(first.links()) >= {"eth0", "net1"}
    assert first.addresses() != second.addresses()
    second.delete()
    assert "net1" not in first.links()
    assert first.cnitool("check").ok
    assert len(residue.reservations(node)) == 1


def test_vanished_namespace_does_not_keep_the_address(node: Machine) -> None:
    configure(node)
    before = residue.snapshot(node)
    (pod,) = attached(node, "pod")
    pod.destroy()

    assert not pod.cnitool("check").ok
    pod.delete()
    pod.delete()
    assert residue.snapshot(node) == before


def test_namespace_that_never_was_is_named_in_the_error(node: Machine) -> None:
    configure(node)
    before = residue.snapshot(node)

    refused = Pod(node, "nowhere").cnitool("add")

    assert not refused.ok
    assert "/run/netns/nowhere" in refused.stderr
    assert residue.snapshot(node) == before


def test_gc_without_a_list_takes_what_libcni_remembers_and_nothing_else(node: Machine) -> None:
    conflist = configure(node)
    pods = attached(node, "one", "two")
    stranger = Pod.make(node, "stranger")
    netconf = {"cniVersion": "1.1.0", "name": "azvnet", **conflist["plugins"][0]}
    result = calls.call(node, "ADD", netconf, container_id="not-in-the-cache", netns=stranger.netns).result

    pods[0].cnitool("gc").done()

    assert [pod.addresses() for pod in pods] == [[], []]
    assert stranger.addresses() == [result["ips"][0]["address"]]
    assert list(residue.reservations(node).values()) == ["not-in-the-cache/eth0"]


def test_check_names_what_is_damaged(node: Machine) -> None:
    configure(node)
    (pod,) = attached(node, "pod")
    pod.run("ip", "route", "delete", "default")

    damaged = pod.cnitool("check")

    assert not damaged.ok
    assert "route" in damaged.stderr


def test_exhausted_pool_says_so_and_serves_again_after_a_del(make_fabric: MakeFabric) -> None:
    node = make_fabric(addresses=2).nodes["node1"]
    conflist = configure(node)
    conflist["plugins"][0]["ipam"]["cooldown"] = 0
    plugins.write_conflist(node, conflist)
    first, _ = attached(node, "one", "two")
    third = Pod.make(node, "three")

    refused = third.cnitool("add")
    assert not refused.ok
    assert "2 known, 2 held" in refused.stderr
    assert not third.cnitool("status").ok

    first.delete()
    third.add()
    assert third.addresses()


def test_pods_talk_on_one_node_across_nodes_and_with_the_virtual_network(make_fabric: MakeFabric) -> None:
    fabric = make_fabric(nodes=2)
    node1, node2 = fabric.nodes.values()
    for node in (node1, node2):
        configure(node)
    pods = [*attached(node1, "a", "b"), *attached(node2, "c")]
    targets = [pod.endpoint for pod in pods] + [machine(fabric.vnet_hosts["vm1"])]
    sources = [*targets, machine(node1), machine(node2)]

    assert unreached(sources, targets) == []
    assert dropped(fabric) == {}


ONE_NIC = sorted({path.name for path in CONF.glob("*.conflist")} - {"second-nic.conflist"})
"""Conflists for a node with one NIC; the other one has a test in ``test_several_nics``."""


@pytest.mark.parametrize("name", ONE_NIC)
def test_every_shipped_conflist_attaches_pods_that_talk(fabric: Fabric, node: Machine, name: str) -> None:
    conflist = shipped(name)
    plugins.write_conflist(node, conflist)
    write_interfaces_file(node)
    pods = attached(node, "a", "b", network=conflist["name"])
    ends = [pod.endpoint for pod in pods]
    # Pods on a bridge of their own have no way out: that conflist is about addresses.
    routed = conflist["plugins"][0]["type"] == "azvnet"
    others = [machine(fabric.vnet_hosts["vm1"]), machine(node)] if routed else []

    assert {end.address for end in ends} <= set(node.pod_addresses)
    assert unreached([*ends, *others], ends) == []
    for pod in pods:
        pod.delete()
    assert residue.reservations(node) == {}


def write_interfaces_file(node: Machine) -> None:
    """What a bootstrapper writes for ``fileIpam``: the NIC with all its addresses."""
    nic = node.vm.primary_nic
    addresses = [{"Address": str(nic.primary_ip), "IsPrimary": True}]
    addresses += [{"Address": str(address), "IsPrimary": False} for address in node.pod_addresses]
    document = {
        "Interfaces": [
            {
                "MacAddress": nic.mac.replace(":", "").upper(),
                "IsPrimary": True,
                "IPSubnets": [{"Prefix": str(nic.subnet.prefix), "IPAddresses": addresses}],
            }
        ]
    }
    node.run(["tee", "/etc/kubernetes/interfaces.json"], input=json.dumps(document))
