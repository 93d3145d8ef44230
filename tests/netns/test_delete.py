"""DEL: success whenever there is nothing left to do, and exactly one interface of one container (row 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.netns.node import BOOT_ID, INTERFACES, Node, pod_addresses
from tests.netns.sandbox import Pod
from tests.waiting import eventually


@dataclass(frozen=True)
class Before:
    """What was there when a DEL comes."""

    node: Node
    pod: Pod
    result: dict[str, Any]

    def host_veth(self) -> str:
        """The host's end of the pod."""
        return str(self.result["interfaces"][0]["name"])


def _changed_netconf(before: Before) -> dict[str, Any]:
    conf = before.node.conf(mode="overlay", strict=True, nonsense=1, master="eth9", mtu="huge")
    return {"conf": {**conf, "ipam": {"type": "azvnet-ipam", "environment": "nowhere", "file": 7}}}


def _document_gone(before: Before) -> dict[str, Any]:
    before.node.sandbox.path(INTERFACES).unlink()
    return {}


SITUATIONS: dict[str, Callable[[Before], dict[str, Any] | None]] = {
    "as it was added": lambda _: {},
    "with prevResult": lambda b: {"conf": b.node.conf(prevResult=b.result)},
    "with an empty prevResult": lambda b: {"conf": b.node.conf(prevResult={})},
    "with a prevResult that is none": lambda b: {"conf": b.node.conf(prevResult=[1])},
    "without CNI_NETNS": lambda _: {"env": {"CNI_NETNS": None}},
    "with an empty CNI_NETNS": lambda _: {"env": {"CNI_NETNS": ""}},
    "without CNI_ARGS": lambda _: {"env": {"CNI_ARGS": None}},
    "after the namespace is gone": lambda b: b.pod.remove(),
    "after the pod's interface is gone": lambda b: b.pod.change("link delete eth0"),
    "after the pod's interface was renamed": lambda b: b.pod.change(
        "link set eth0 down", "link set eth0 name x"
    ),
    "after the pod's interface was moved away": lambda b: b.pod.change("link set eth0 netns fabric"),
    "after the host veth is gone": lambda b: b.node.sandbox.batch(f"link delete {b.host_veth()}"),
    "after the host veth went down": lambda b: b.node.sandbox.batch(f"link set {b.host_veth()} down"),
    "after the host route is gone": lambda b: b.node.sandbox.batch("route flush proto 155"),
    "after the alias is gone": lambda b: b.node.sandbox.batch(f"link set {b.host_veth()} alias ''"),
    "after the address was removed": lambda b: b.pod.change("address flush dev eth0"),
    "with a configuration that was spoilt": _changed_netconf,
    "with a configuration without ipam": lambda b: {"conf": b.node.conf(ipam=None)},
    "in an older version of the spec": lambda b: {"conf": b.node.conf(cniVersion="0.1.0")},
    "after the source is gone": _document_gone,
    "after the uplink is gone": lambda b: b.node.sandbox.batch("link delete eth0"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_pod_goes_away_in_every_situation(busy_node: Node, situation: str) -> None:
    """And once more, and again: nothing to do is success."""
    node = busy_node
    pod, other = node.sandbox.pods("c1", "c2")
    added = node.add(pod)
    kept = node.add(other)
    how = SITUATIONS[situation](Before(node, pod, added.result)) or {}
    for _ in range(3):
        node.delete(pod, **how).done()
        assert node.held() == {kept.address: "c2"}
        assert node.host_routes().keys() <= {kept.address}
        assert len(node.veths()) == 1
    if situation not in ("after the uplink is gone", "after the host route is gone"):
        node.check(other, kept).done()


@pytest.mark.parametrize("ifname", ["eth0", "net1"])
def test_what_was_never_there_is_gone(node: Node, ifname: str) -> None:
    node.delete(node.sandbox.pod("c1"), ifname=ifname).done()
    assert not node.residue()


def test_nothing_of_another_attachment_is_touched(busy_node: Node) -> None:
    node = busy_node
    pod, other = node.sandbox.pods("c1", "c2")
    first, second, third = node.add(pod), node.add(pod, ifname="net1"), node.add(other)
    node.delete(pod, ifname="net2").done()
    node.delete(pod, env={"CNI_CONTAINERID": "c"}).done()
    node.delete(other, ifname="net1").done()
    node.check(pod, first).done()
    node.check(pod, second, ifname="net1").done()
    node.check(other, third).done()
    node.delete(pod, ifname="net1").done()
    node.check(pod, first).done()
    node.check(other, third).done()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo", "eth0"]


def test_interfaces_of_others_on_the_host_are_never_taken_for_ours(busy_node: Node) -> None:
    """Also where their names look alike."""
    node = busy_node
    node.sandbox.batch("link add azv00000000000 type ifb", "link add azvfoo type veth peer name azvbar")
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    node.delete(pod).done()
    node.gc([]).done()
    assert {"azv00000000000", "azvfoo", "azvbar"} <= {link["ifname"] for link in node.sandbox.ip("link")}


def test_the_namespace_stays_and_the_pod_can_be_added_again(busy_node: Node) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    for _ in range(3):
        added = node.add(pod)
        node.check(pod, added).done()
        node.delete(pod).done()
        assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
        assert not pod.ip("-4", "route", "show")
        assert not pod.ip("neighbour", "show", "nud", "permanent")
        assert not node.residue()


def test_an_address_is_free_whether_or_not_a_device_was_there(busy_node: Node) -> None:
    """Row 1 (a), (b): freeing never depends on a device."""
    node = busy_node
    free = 8
    for number in range(4):
        pod = node.sandbox.pod(f"c{number}")
        added = node.add(pod)
        if number % 2:
            pod.remove()
        else:
            node.sandbox.batch(f"link delete {added.result['interfaces'][0]['name']}")
        node.delete(pod, env={"CNI_NETNS": "" if number > 1 else pod.netns}).done()
        counts = node.counts()
        assert counts["free"] + counts["cooling"] == free
        assert counts["assigned"] == 0


def test_a_failed_add_is_followed_by_a_del_that_finds_nothing(busy_node: Node) -> None:
    node = busy_node
    pod = Pod("c1", "/run/netns/missing", node.sandbox)
    assert node.add(pod).code == 8
    node.delete(pod).done()
    assert not node.residue()


@pytest.mark.alone("no agent lives through a reboot; see test_agent_work")
def test_after_a_reboot_old_pods_go_and_new_ones_come(busy_node: Node) -> None:
    """Row 5: links and namespaces are gone, the state directory may have stayed; the runtime cleans up."""
    node = busy_node
    pods = node.sandbox.pods("c1", "c2", "c3")
    for pod in pods:
        node.add(pod).done()
    for pod in pods:
        pod.remove()
        node.sandbox.write(pod.netns, "a plain file is left where the namespace was")
    eventually(lambda: not node.veths(), "the kernel takes links away with their namespace")
    node.set_boot_id("11111111-2222-3333-4444-555555555555")
    new = node.sandbox.pod("new")
    added = node.add(new)
    node.delete(pods[0]).done()
    node.delete(pods[1], env={"CNI_NETNS": ""}).done()
    assert node.held() == {added.address: "new"}
    node.check(new, added).done()
    assert node.counts()["assigned"] == 1


def test_the_same_boot_is_the_same_boot_whatever_the_clocks_say(busy_node: Node) -> None:
    """Row 5: no decision is taken from a file's time or the wall clock."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    added = node.add(pod)
    for date in ("1970-01-02", "2037-12-31"):
        node.sandbox.run("find", "/run/azvnet", "-type", "f", "-exec", "touch", "-d", date, "{}", "+")
        node.add(node.sandbox.pod(f"p{date}")).done()
        node.check(pod, added).done()
    assert len(node.held()) == 3
    assert node.sandbox.run("cat", BOOT_ID).stdout.strip()


def test_the_same_del_in_parallel_succeeds_each_time(busy_node: Node) -> None:
    node = busy_node
    pods = node.sandbox.pods(*(f"c{number}" for number in range(4)))
    for pod in pods:
        node.add(pod).done()
    running = [node.start("DEL", pod) for pod in pods for _ in range(5)]
    for each in running:
        each.finish().done()
    assert not node.residue()


def test_several_networks_of_one_pod_come_and_go_in_parallel(busy_node: Node) -> None:
    """containerd sets the networks of a pod up at the same time."""
    node = busy_node
    pod = node.sandbox.pod("c1")
    names = ("eth0", "net1", "net2", "net3")
    running = [node.start("ADD", pod, ifname=name, conf=node.conf(name=f"network-{name}")) for name in names]
    given = [each.finish().address for each in running]
    assert len(set(given)) == len(names)
    assert {address for name in names for address in pod_addresses(pod, name)} == {
        f"{each}/32" for each in given
    }
    running = [node.start("DEL", pod, ifname=name) for name in names]
    for each in running:
        each.finish().done()
    assert not node.residue()
