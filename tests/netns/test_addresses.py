"""Which address a pod gets, when there is none, and how addresses come back. Store and kernel together."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.netns.conftest import NewAgent, NewNode
from tests.netns.node import ADDRESS, INTERFACES, Node, pod_addresses, pod_args
from tests.netns.ways import Way

EXHAUSTED, SOURCE_FAILED, NOTHING_TO_GIVE, REFUSED = 100, 101, 102, 103
FRESH = {"queryInterval": 0}
"""Has the source read with every call that has to."""


def test_addresses_that_were_never_used_come_first_in_order(busy_node: Node) -> None:
    pods = busy_node.sandbox.pods("c1", "c2", "c3")
    assert [busy_node.add(pod).address for pod in pods] == ["10.10.0.5", "10.10.0.6", "10.10.0.7"]
    busy_node.delete(pods[0]).done()
    assert busy_node.add(pods[0]).address == "10.10.0.8"


def test_the_address_that_rested_longest_is_next(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=3)
    pods = node.sandbox.pods("c1", "c2", "c3")
    first = {pod.container_id: node.add(pod).address for pod in pods}
    for name in ("c2", "c1", "c3"):
        (pod,) = [each for each in pods if each.container_id == name]
        node.delete(pod).done()
    assert [node.add(pod).address for pod in pods] == [first["c2"], first["c1"], first["c3"]]


@pytest.mark.alone("the clock of a running agent can't be advanced from outside")
def test_a_released_address_rests_as_long_as_configured(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=3)
    pod, other = node.sandbox.pods("c1", "c2")
    conf = node.conf(ipam={"cooldown": 100})
    node.add(pod, conf=conf).done()
    node.delete(pod, conf=conf).done()
    assert node.pool(lambda pool: pool.overview(100).counts).cooling == 1
    node.sandbox.clock_ahead = 99
    assert node.pool(lambda pool: pool.overview(100).counts).cooling == 1
    assert node.add(pod, conf=conf).address == "10.10.0.6"
    node.sandbox.clock_ahead = 101
    assert node.pool(lambda pool: pool.overview(100).counts).cooling == 0
    assert node.add(other, conf=conf).address == "10.10.0.7", "one that was never used still comes first"


def test_a_rest_is_shortened_when_there_is_nothing_else(new_node: NewNode) -> None:
    """A short rest beats a pod that can't start; STATUS knows that too."""
    node = new_node(many=True, addresses=1)
    pod = node.sandbox.pod("c1")
    conf = node.conf(ipam={"cooldown": 3600})
    for _ in range(3):
        assert node.add(pod, conf=conf).address == "10.10.0.5"
        node.delete(pod, conf=conf).done()
        node.status(conf=conf).done()


def test_exhaustion_says_how_many_who_and_what_to_do(new_node: NewNode) -> None:
    """Row 36, and row 10: it is one clear document, and others are not touched."""
    node = new_node(addresses=3)
    pods = node.sandbox.pods("c1", "c2", "c3")
    added = [node.add(pod) for pod in pods]
    late = node.sandbox.pod("late")
    for _ in range(2):
        failed = node.add(late)
        assert failed.code == EXHAUSTED
        assert "3 known" in failed.msg
        assert "3 held" in failed.msg
        assert all(f"default/c{number}" in failed.msg for number in (1, 2, 3))
        assert "max-pods" in failed.error["details"]
        assert "ip-config create" in failed.error["details"]
    assert [link["ifname"] for link in late.ip("link")] == ["lo"]
    for pod, each in zip(pods, added, strict=True):
        node.check(pod, each).done()
    node.delete(pods[1]).done()
    assert node.add(late).address == added[1].address


def test_every_address_is_of_use_and_of_use_again(busy_node: Node) -> None:
    pods = busy_node.sandbox.pods(*(f"c{number}" for number in range(8)))
    late = busy_node.sandbox.pod("late")
    for _ in range(2):
        given = {busy_node.add(pod).address for pod in pods}
        assert len(given) == 8
        assert busy_node.add(late).code == EXHAUSTED
        for pod in pods:
            busy_node.delete(pod).done()


# Addresses that something else carries


def test_an_address_that_the_host_carries_is_never_given_out(busy_node: Node) -> None:
    """Row 16: cloud-init puts every IP configuration on eth0."""
    busy_node.sandbox.batch("address add 10.10.0.5/16 dev eth0", "address add 10.10.0.7/32 dev lo")
    given = [busy_node.add(pod).address for pod in busy_node.sandbox.pods("c1", "c2")]
    assert given == ["10.10.0.6", "10.10.0.8"]
    asked = busy_node.add(busy_node.sandbox.pod("c3"), args="IgnoreUnknown=1;IP=10.10.0.5")
    assert asked.code == REFUSED
    busy_node.sandbox.batch("address delete 10.10.0.5/16 dev eth0")
    assert busy_node.add(busy_node.sandbox.pod("c4")).address == "10.10.0.5"


def test_when_the_host_carries_them_all_the_cause_and_its_cure_are_named(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=2)
    node.sandbox.batch("address add 10.10.0.5/16 dev eth0", "address add 10.10.0.6/16 dev eth0")
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code == EXHAUSTED
    assert "10.10.0.5" in failed.msg
    assert "cloud-init" in failed.error["details"]
    assert "apply_network_config_for_secondary_ips" in failed.error["details"]


def test_an_address_with_a_stale_route_is_set_aside_and_the_next_one_taken(busy_node: Node) -> None:
    """Azure CNI takes such a route for its own: packets of the new pod go to the old one's veth."""
    busy_node.sandbox.batch(
        "link add stale type veth peer name stale2", "link set stale up", "route add 10.10.0.5/32 dev stale"
    )
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod)
    assert added.address == "10.10.0.6"
    assert pod_addresses(pod) == ["10.10.0.6/32"]
    assert busy_node.counts()["quarantined"] == 1
    assert busy_node.sandbox.ip("route", "show", "10.10.0.5/32")[0]["dev"] == "stale"
    (status,) = [s for s in busy_node.pool(lambda pool: pool.addresses()) if str(s.address.ip) == "10.10.0.5"]
    assert "route" in status.reason
    assert len(busy_node.veths()) == 1


def test_a_node_that_comes_from_another_plugin_with_its_pods_gives_addresses_at_once(
    new_node: NewNode,
) -> None:
    """Azure CNI's pods live on: their /32 routes are there, and the pool knows nothing of them."""
    node = new_node(many=True, addresses=40)
    node.sandbox.batch(
        "link add azvold type ifb",
        "link set azvold up",
        *(f"route add 10.10.0.{last}/32 dev azvold proto static" for last in range(5, 35)),
    )
    first = node.sandbox.pod("c0")
    assert node.add(first).address == "10.10.0.35"
    assert node.counts()["quarantined"] == 30
    others = node.sandbox.pods("c1", "c2", "c3")
    assert [node.add(pod).address for pod in others] == ["10.10.0.36", "10.10.0.37", "10.10.0.38"]
    node.delete(first).done()
    assert node.counts()["quarantined"] == 30


@pytest.mark.alone("the clock of a running agent can't be advanced from outside")
def test_what_was_set_aside_comes_back_after_a_while(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=2)
    node.sandbox.batch("link add stale type ifb", "link set stale up", "route add 10.10.0.5/32 dev stale")
    pods = node.sandbox.pods("c1", "c2")
    node.add(pods[0]).done()
    assert node.add(pods[1]).code == EXHAUSTED
    node.sandbox.batch("link delete stale")
    node.sandbox.clock_ahead = 301
    assert node.add(pods[1]).address == "10.10.0.5"


def test_stale_routes_without_end_are_an_error_in_the_end(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=12)
    node.sandbox.batch(
        "link add stale type ifb",
        "link set stale up",
        *(f"route add 10.10.0.{last}/32 dev stale" for last in range(5, 17)),
    )
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code in (106, EXHAUSTED)
    assert not node.veths()
    assert not node.held()


# Pods that come again, and pods that nobody takes away


def test_a_pod_that_comes_again_gets_its_dead_predecessors_address_back(new_node: NewNode) -> None:
    """Row 1 (d): the sandbox was made anew under another id, the old one is gone and no DEL ever came."""
    node = new_node(many=True, addresses=1)
    old = node.sandbox.pod("old")
    added = node.add(old, args=pod_args("old", name="web-0"))
    old.remove()
    node.sandbox.run("ip", "link", "delete", added.result["interfaces"][0]["name"], check=False)
    new = node.sandbox.pod("new")
    again = node.add(new, args=pod_args("new", name="web-0"))
    assert again.address == added.address
    assert node.held() == {added.address: "new"}
    node.delete(old, args=pod_args("old", name="web-0")).done()
    assert node.held() == {added.address: "new"}, "a DEL that comes late is about the old one alone"


def test_a_pod_that_comes_again_takes_nothing_from_one_that_lives(new_node: NewNode) -> None:
    """Row 1 (e)."""
    node = new_node(many=True, addresses=2)
    old, new = node.sandbox.pods("old", "new")
    first = node.add(old, args=pod_args("old", name="web-0"))
    second = node.add(new, args=pod_args("new", name="web-0"))
    assert second.address != first.address
    node.check(old, first).done()
    assert len(node.held()) == 2


@pytest.mark.alone("an agent looks by itself, and its clock can't be advanced from outside")
def test_an_address_is_taken_back_after_two_looks_and_never_after_one(new_node: NewNode) -> None:
    """Row 1: a leak mends itself as soon as somebody needs the address."""
    node = new_node(many=True, addresses=1)
    leaked, pod = node.sandbox.pods("leaked", "c1")
    added = node.add(leaked)
    node.sandbox.run("ip", "link", "delete", added.result["interfaces"][0]["name"])
    assert node.add(pod).code == EXHAUSTED, "the first look"
    node.sandbox.clock_ahead = 59
    assert node.add(pod).code == EXHAUSTED, "too soon"
    node.sandbox.clock_ahead = 61
    assert node.add(pod).address == added.address


@pytest.mark.alone("an agent looks by itself, and its clock can't be advanced from outside")
def test_a_pod_that_was_seen_in_between_is_not_taken_for_dead(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=1)
    pod, late = node.sandbox.pods("c1", "late")
    added = node.add(pod)
    name = added.result["interfaces"][0]["name"]
    (mark,) = node.veths()[name]["altnames"]
    node.sandbox.batch(
        f"link property del dev {name} altname {mark}",
        f"link set {name} down",
        f"link set {name} name hidden",
    )
    assert node.add(late).code == EXHAUSTED
    node.sandbox.batch(f"link set hidden name {name}")
    node.sandbox.clock_ahead = 100
    assert node.add(late).code == EXHAUSTED, "it is seen again"
    node.sandbox.batch(f"link set {name} down", f"link set {name} name hidden")
    node.sandbox.clock_ahead = 130
    assert node.add(late).code == EXHAUSTED, "counting begins anew"
    node.sandbox.clock_ahead = 195
    assert node.add(late).address == added.address


# The source


def test_no_source_at_all_is_said_with_what_to_do(
    bare_node: Callable[..., Node], new_agent: NewAgent, way: Way
) -> None:
    node = bare_node()
    node.sandbox.path(INTERFACES).unlink()
    if way is not Way.ALONE:  # only now: an agent reads its source as soon as it is there
        new_agent(node)
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code == SOURCE_FAILED
    assert INTERFACES in failed.msg
    assert failed.error["details"]
    assert not node.residue()


def test_a_nic_without_addresses_for_pods_is_told_apart_from_a_source_that_fails(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=0)
    outcome = node.add(node.sandbox.pod("c1"))
    assert outcome.code == NOTHING_TO_GIVE
    assert "ip-config create" in outcome.error["details"]


GARBAGE = ["", "{", "null", '{"Interfaces": []}', '{"Interfaces": [{"MacAddress": "junk"}]}', "\0" * 100]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_no_document_costs_a_pod_its_address_or_the_pool_its_addresses(busy_node: Node, garbage: str) -> None:
    """Row 15: empty, garbled and partial lists come and go; what is known stays."""
    node = busy_node
    conf = node.conf(ipam=FRESH)
    pod, *more = node.sandbox.pods("c1", "c2", "c3", "c4")
    added = node.add(pod, conf=conf)
    for each in more:
        node.sandbox.write(INTERFACES, garbage)
        node.add(each, conf=conf).done()
    node.check(pod, added, conf=conf).done()
    assert sum(node.counts().values()) == 8


def test_an_address_that_is_listed_anew_is_given_out_as_soon_as_it_is_needed(new_node: NewNode) -> None:
    """An operator adds an IP configuration to a node that is full."""
    node = new_node(many=True, addresses=1)
    conf = node.conf(ipam=FRESH)
    pods = node.sandbox.pods("c1", "c2", "c3")
    node.add(pods[0], conf=conf).done()
    assert node.add(pods[1], conf=conf).code == EXHAUSTED
    node.list_addresses(2)
    assert node.add(pods[1], conf=conf).address == "10.10.0.6"
    assert node.add(pods[2], conf=conf).code == EXHAUSTED


def test_the_hosts_own_address_is_never_a_pods(busy_node: Node) -> None:
    """Also where a document does not call it primary."""
    path = busy_node.sandbox.path(INTERFACES)
    path.write_text(json.dumps(json.loads(path.read_text())).replace("true", "false"))
    pods = busy_node.sandbox.pods(*(f"c{number}" for number in range(8)))
    given = {busy_node.add(pod).address for pod in pods}
    assert ADDRESS not in given
    assert len(given) == 8
