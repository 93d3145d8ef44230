"""A host veth is known by its mark, whatever it is called; a link without one is somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipam.model import SourceConfig
from tests.netns.calls import Outcome
from tests.netns.conftest import NewAgent, NewNode
from tests.netns.node import GATEWAY, INTERFACES, RUN_DIR, Node, pod_args
from tests.netns.sandbox import Pod
from tests.netns.test_datapath import host_name, own_name
from tests.waiting import eventually

QUICK = {"reconcile_seconds": 0.3, "refresh_seconds": 0.3, "reclaim_seconds": 0.8}
EXISTS = 104


def _link(node: Node, name: str) -> dict[str, Any]:
    (link,) = node.sandbox.ip("-details", "link", "show", "dev", name)
    return link


def _rename(node: Node, name: str, to: str) -> None:
    node.sandbox.batch(f"link set {name} down", f"link set {name} name {to}", f"link set {to} up")


# What it is called


def test_the_mark_finds_the_veth_and_the_result_says_its_name(busy_node: Node) -> None:
    added = busy_node.add(busy_node.sandbox.pod("c1"))
    mark = "azvnet-369c8d47e56b850a7fbc519a"
    assert _link(busy_node, mark)["ifname"] == host_name("c1")
    assert added.result["interfaces"][0]["name"] == host_name("c1")


def test_a_pod_without_a_name_gets_that_of_its_attachment(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod, args="IgnoreUnknown=1")
    assert list(busy_node.veths()) == [own_name("c1")]
    assert added.result["interfaces"][0]["name"] == own_name("c1")
    busy_node.check(pod, added, args="IgnoreUnknown=1").done()


def test_a_name_that_is_taken_is_left_to_who_has_it(busy_node: Node) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    node.sandbox.batch(f"link add {host_name('c1')} type ifb")
    added = node.add(pod)
    assert added.result["interfaces"][0]["name"] == own_name("c1")
    node.check(pod, added).done()
    node.delete(pod).done()
    assert [link["ifname"] for link in node.sandbox.ip("link", "show", "type", "ifb")] == [host_name("c1")]


def test_a_pod_that_comes_back_under_its_name_before_the_old_one_is_gone(busy_node: Node) -> None:
    """As a StatefulSet's does. The old one's DEL comes late, with the same names in CNI_ARGS."""
    node = busy_node
    old, new = node.sandbox.pods("old", "new")
    args = {each: pod_args(each, name="web-0") for each in ("old", "new")}
    node.add(old, args=args["old"]).done()
    added = node.add(new, args=args["new"])
    aliases = {link.get("ifalias", "").rpartition(" ")[0] for link in node.veths().values()}
    assert aliases == {"azvnet1 old eth0 azvnet", "azvnet1 new eth0 azvnet"}, "the last word is the call's id"
    node.delete(old, args=args["old"]).done()
    node.check(new, added, args=args["new"]).done()
    assert node.add(new, args=args["new"]).code == EXISTS
    assert list(node.veths()) == [own_name("new")]


# Renamed


def _delete(node: Node, pod: Pod) -> Outcome:
    return node.delete(pod)


def _collect(node: Node, pod: Pod) -> Outcome:
    return node.gc([])


@pytest.mark.parametrize("goes", [_delete, _collect])
def test_a_pair_that_was_renamed_is_removed_all_the_same(
    busy_node: Node, goes: Callable[[Node, Pod], Outcome]
) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    node.add(pod).done()
    _rename(node, host_name("c1"), "renamed0")
    goes(node, pod).done()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert "renamed0" not in {link["ifname"] for link in node.sandbox.ip("link")}
    assert not node.residue()


def test_a_pair_that_was_renamed_is_attached_still(busy_node: Node) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    added = node.add(pod)
    _rename(node, host_name("c1"), "renamed0")
    node.sandbox.batch(f"route replace {added.address}/32 dev renamed0 scope link proto 155")
    node.check(pod, added).done()
    assert node.add(pod).code == EXISTS
    assert node.held() == {added.address: "c1"}


def test_a_link_that_takes_the_name_of_a_renamed_one_is_left_alone(busy_node: Node) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    node.add(pod).done()
    _rename(node, host_name("c1"), "renamed0")
    node.sandbox.batch(f"link add {host_name('c1')} type ifb", f"link add {own_name('c1')} type ifb")
    node.delete(pod).done()
    assert {link["ifname"] for link in node.sandbox.ip("link", "show", "type", "ifb")} == {
        host_name("c1"),
        own_name("c1"),
    }


# Made by the version before


def _as_before(node: Node, pod: Pod) -> Outcome:
    """A pod as the version without marks made it: the attachment's name and the alias, and no mark."""
    added = node.add(pod)
    name, own = host_name(pod.container_id), own_name(pod.container_id)
    _rename(node, name, own)
    mark = _link(node, own)["altnames"][0]
    node.sandbox.batch(
        f"link property del dev {own} altname {mark}",
        f"route replace {added.address}/32 dev {own} scope link proto 155",
    )
    return added


@pytest.mark.parametrize("goes", [_delete, _collect])
@pytest.mark.alone("an agent gives it its mark at once; see below")
def test_a_pod_of_the_version_before_lives_on_and_goes(
    busy_node: Node, goes: Callable[[Node, Pod], Outcome]
) -> None:
    node, pod = busy_node, busy_node.sandbox.pod("c1")
    added = _as_before(node, pod)
    assert node.add(pod).code == EXISTS
    assert node.held() == {added.address: "c1"}
    node.sandbox.path(f"{RUN_DIR}/azvnet.db").unlink()
    other = node.add(node.sandbox.pod("c2"))
    assert node.held() == {added.address: "c1", other.address: "c2"}
    node.delete(node.sandbox.pod("c3")).done()
    goes(node, pod).done()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert added.address not in node.held()


@pytest.mark.with_agent("it is the agent's own work")
def test_an_agent_marks_the_pods_of_the_version_before(
    bare_node: Callable[..., Node], new_agent: NewAgent
) -> None:
    node = bare_node()
    pod = node.sandbox.pod("c1")
    added = _as_before(node, pod)
    new_agent(node, **QUICK)
    eventually(lambda: "altnames" in _link(node, own_name("c1")), "it has its mark")
    node.check(pod, added).done()
    node.sandbox.batch(f"route delete {added.address}/32")
    eventually(lambda: added.address in node.host_routes(), "it is repaired")
    node.delete(pod).done()
    assert not node.residue()


# Somebody else's


def _foreign_pod(node: Node, pod: Pod, host_end: str) -> None:
    """As bridge-mode azure-vnet makes one: a veth with our prefix, enslaved to a bridge."""
    node.sandbox.batch(
        f"link add {host_end} type veth peer name eth0 netns {Path(pod.netns).name}",
        "link add azure0 type bridge",
        f"link set {host_end} master azure0 up",
        "link set azure0 up",
    )


@pytest.mark.alone("an agent has asked the namespaces before there is one")
def test_the_address_of_a_living_bridge_mode_pod_is_not_given_out(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=2)
    pod, ours, late = node.sandbox.pods("azure-vnet", "ours", "late")
    _foreign_pod(node, pod, "azv0123abcd")
    pod.change("link set eth0 up", "address add 10.10.0.5/16 dev eth0")
    assert node.add(ours).address == "10.10.0.6"
    assert node.add(late).code == 100
    assert [link["ifname"] for link in node.sandbox.ip("link", "show", "master", "azure0")] == ["azv0123abcd"]


def test_an_alias_of_ours_on_a_link_without_the_mark_is_somebody_elses(busy_node: Node) -> None:
    node = busy_node
    node.sandbox.batch(
        "link add azvfoo type veth peer name azvbar", 'link set azvfoo alias "azvnet1 c1 eth0 azvnet"'
    )
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    node.delete(pod).done()
    node.gc([]).done()
    assert {"azvfoo", "azvbar"} <= {link["ifname"] for link in node.sandbox.ip("link")}


LAYOUTS = {
    "no default route": ("route delete default",),
    "an uplink with a /32": (
        "address flush dev eth0",
        "address add 10.10.0.4/32 dev eth0",
        f"route add {GATEWAY} dev eth0",
        f"route add default via {GATEWAY} dev eth0",
    ),
    "an uplink in another subnet": (
        "address flush dev eth0",
        "address add 10.77.0.4/24 dev eth0",
        "route add default via 10.77.0.1 dev eth0",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.alone("an agent has asked the namespaces before there is one")
def test_a_lost_store_gives_no_address_of_a_delegating_plugins_pod_to_another(
    new_node: NewNode, layout: str
) -> None:
    """``ptp`` with ``azvnet-ipam``: nothing in the store, and nothing of ours in the kernel."""
    node = new_node(many=True, addresses=2)
    pod, first, second = node.sandbox.pods("ptp", "first", "second")
    held = node.add(pod, as_ipam=True).address
    node.sandbox.batch(
        f"link add vethptp type veth peer name eth0 netns {Path(pod.netns).name}", "link set vethptp up"
    )
    pod.change("link set eth0 up", f"address add {held}/32 dev eth0")
    node.sandbox.batch(*LAYOUTS[layout])
    for suffix in ("", "-wal", "-shm"):
        node.sandbox.path(f"{RUN_DIR}/azvnet.db{suffix}").unlink(missing_ok=True)
    given = node.add(first, as_ipam=True).address
    assert given != held
    assert node.add(second, as_ipam=True).code == 100
    node.delete(pod, as_ipam=True).done()
    assert held in node.held(), "as long as its namespace carries it"


def test_a_pod_with_net_admin_can_not_fill_the_pool_of_a_lost_store(busy_node: Node) -> None:
    node = busy_node
    pod, other = node.sandbox.pods("greedy", "other")
    node.add(pod).done()
    for number in range(3):
        pod.change(
            f"link add a{number} type veth peer name b{number}",
            f"link set a{number} up",
            f"address add 10.10.0.{6 + number}/16 dev a{number}",
            f"link add d{number} type ifb",
            f"address add 10.10.0.{9 + number}/16 dev d{number}",
        )
    for suffix in ("", "-wal", "-shm"):
        node.sandbox.path(f"{RUN_DIR}/azvnet.db{suffix}").unlink(missing_ok=True)
    node.add(other).done()
    assert set(node.held().values()) == {"greedy", "other"}


@pytest.mark.alone("the clock of a running agent can't be advanced from outside")
def test_what_a_stranger_does_not_carry_any_more_is_free_after_two_looks(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=1)
    pod, new = node.sandbox.pods("stranger", "new")
    _foreign_pod(node, pod, "veth0")
    pod.change("link set eth0 up", "address add 10.10.0.5/16 dev eth0")
    assert node.add(new).code == 100
    pod.change("address flush dev eth0")
    assert node.add(new).code == 100, "one look is not enough"
    node.sandbox.clock_ahead = 61
    assert node.add(new).address == "10.10.0.5"


@pytest.mark.alone("the source is read when the test says so")
def test_what_a_living_stranger_carries_is_never_given_out_whatever_is_listed(new_node: NewNode) -> None:
    node = new_node(many=True)
    pod, *others = node.sandbox.pods("stranger", "c1", "c2", "c3")
    _foreign_pod(node, pod, "veth0")
    pod.change("link set eth0 up", "address add 10.10.0.5/16 dev eth0")

    def read(*listed: str) -> None:
        node.list_addresses(0, also=listed)
        config = SourceConfig("file", INTERFACES)
        for _ in range(3):
            node.pool(lambda pool: pool.refresh(config, deadline=5, force=True))

    node.list_addresses(0, also=["10.10.0.6"])
    assert node.add(others[0]).address == "10.10.0.6"
    read("10.10.0.6", "10.10.0.7")
    assert set(node.held()) == {"10.10.0.5", "10.10.0.6"}
    assert node.counts()["assigned"] == 1, "it is no address of the pool"
    read("10.10.0.5", "10.10.0.6", "10.10.0.7")
    assert node.add(others[1]).address == "10.10.0.7"
    assert node.add(others[2]).code == 100
