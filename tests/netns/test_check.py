"""CHECK: passes as long as all is well, changes nothing, and names every kind of damage."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.netns.calls import Outcome
from tests.netns.damage import checked_after
from tests.netns.node import Node
from tests.netns.sandbox import Pod

CHECK_FAILED, INVALID_NETNS, UNKNOWN_OR_DECODING = 107, 8, (6, 7)


@dataclass(frozen=True)
class Healthy:
    """An attachment that is as it was made."""

    node: Node
    pod: Pod
    result: dict[str, Any]

    @property
    def veth(self) -> str:
        return str(self.result["interfaces"][0]["name"])

    def host(self, *lines: str) -> None:
        self.node.sandbox.batch(*lines)


Damage = Callable[[Healthy], object]
HOST_ROUTE_GOES = "route delete 10.10.0.5/32"
DAMAGE: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "interface deleted": (lambda h: h.pod.change("link delete eth0"), ("eth0", "missing")),
    "interface renamed": (
        lambda h: h.pod.change("link set eth0 down", "link set eth0 name other"),
        ("eth0", "missing"),
    ),
    "interface down": (lambda h: h.pod.change("link set eth0 down"), ("eth0", "down")),
    "interface down behind routes that look alike": (
        lambda h: h.pod.change(
            "link set eth0 down", "route add blackhole default", "route add blackhole 169.254.1.1"
        ),
        ("eth0 is down",),
    ),
    "interface replaced": (
        lambda h: h.pod.change("link delete eth0", "link add eth0 type ifb", "link set eth0 up"),
        ("host veth",),
    ),
    "address removed": (lambda h: h.pod.change("address delete 10.10.0.5/32 dev eth0"), ("10.10.0.5",)),
    "address replaced": (
        lambda h: h.pod.change("address delete 10.10.0.5/32 dev eth0", "address add 10.10.0.77/32 dev eth0"),
        ("10.10.0.5", "10.10.0.77"),
    ),
    "address with another prefix length": (
        lambda h: h.pod.change("address delete 10.10.0.5/32 dev eth0", "address add 10.10.0.5/24 dev eth0"),
        ("10.10.0.5/32", "10.10.0.5/24"),
    ),
    "default route removed": (lambda h: h.pod.change("route delete default"), ("0.0.0.0/0", "missing")),
    "default route elsewhere": (
        lambda h: h.pod.change(
            "link add ifb0 type ifb", "link set ifb0 up", "route replace default dev ifb0 scope link"
        ),
        ("0.0.0.0/0", "missing"),
    ),
    "gateway route removed": (
        lambda h: h.pod.change("route delete 169.254.1.1 dev eth0"),
        ("169.254.1.1/32", "missing"),
    ),
    "all routes flushed": (lambda h: h.pod.change("route flush table main"), ("0.0.0.0/0", "169.254.1.1/32")),
    "neighbour removed": (
        lambda h: h.pod.change("neighbour delete 169.254.1.1 dev eth0"),
        ("neighbour", "169.254.1.1"),
    ),
    "neighbour with another MAC": (
        lambda h: h.pod.change(
            "neighbour replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
        ),
        ("neighbour", "02:00:00:00:00:01"),
    ),
    "neighbour not permanent": (
        lambda h: h.pod.change("neighbour replace 169.254.1.1 lladdr aa:aa:aa:aa:aa:aa dev eth0 nud stale"),
        ("permanent neighbour",),
    ),
    "MAC changed": (
        lambda h: h.pod.change("link set eth0 address 02:00:00:00:00:01"),
        ("MAC", "02:00:00:00:00:01"),
    ),
    "MTU changed in the pod": (lambda h: h.pod.change("link set eth0 mtu 1300"), ("eth0", "MTU 1300")),
    "MTU changed on the host": (
        lambda h: h.host(f"link set {h.veth} mtu 1300"),
        ("host veth", "MTU 1300"),
    ),
    "host veth deleted": (lambda h: h.host(f"link delete {h.veth}"), ("missing",)),
    "host veth down": (lambda h: h.host(f"link set {h.veth} down"), ("host veth", "down")),
    "host veth with another MAC": (
        lambda h: h.host(f"link set {h.veth} address 02:00:00:00:00:01"),
        ("host veth", "MAC"),
    ),
    "host route removed": (lambda h: h.host(HOST_ROUTE_GOES), ("host route", "10.10.0.5")),
    "host route elsewhere": (
        lambda h: h.host("route replace 10.10.0.5/32 dev eth0 scope link"),
        ("host route", "10.10.0.5"),
    ),
    "all our routes flushed": (lambda h: h.host("route flush proto 155"), ("host route", "10.10.0.5")),
    "reservation lost": (
        lambda h: h.node.pool(lambda pool: pool.release(_attachment(h.pod))),
        ("no address is reserved",),
    ),
}


def _attachment(pod: Pod) -> Any:
    from ipam.model import Attachment

    return Attachment(pod.container_id, "eth0")


@pytest.fixture
def healthy(busy_node: Node) -> Healthy:
    pod = busy_node.sandbox.pod("c1")
    return Healthy(busy_node, pod, busy_node.add(pod).result)


def _check_after(healthy: Healthy, damage: Damage, words: tuple[str, ...]) -> Outcome:
    return checked_after(
        healthy.node,
        lambda: damage(healthy),
        lambda: healthy.node.check(healthy.pod, healthy.result),
        words,
    )


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(healthy: Healthy, kind: str) -> None:
    damage, words = DAMAGE[kind]
    healthy.node.check(healthy.pod, healthy.result).done()
    failed = _check_after(healthy, damage, words)
    assert failed.code == CHECK_FAILED
    assert all(word in failed.msg for word in words), failed.msg
    assert failed.error["details"]


def test_several_kinds_of_damage_are_all_named(healthy: Healthy) -> None:
    def damage(healthy: Healthy) -> None:
        healthy.pod.change("link set eth0 mtu 1300")
        for change, line in ((healthy.pod.change, "route delete default"), (healthy.host, HOST_ROUTE_GOES)):
            with suppress(subprocess.CalledProcessError, AssertionError):
                change(line)

    words = ("0.0.0.0/0", "MTU 1300", "host route")
    said = _check_after(healthy, damage, words).msg
    assert all(word in said for word in words)


@pytest.mark.parametrize(("mtu", "well"), [(1300, True), (1500, True), (1600, False)])
def test_before_1_1_0_a_result_says_no_mtu_and_a_later_plugin_may_lower_it(
    busy_node: Node, mtu: int, well: bool
) -> None:
    """As tuning does."""
    pod, conf = busy_node.sandbox.pod("c1"), busy_node.conf(cniVersion="1.0.0")
    added = busy_node.add(pod, conf=conf)
    pod.change(f"link set eth0 mtu {mtu}")
    checked = busy_node.check(pod, added, conf=conf)
    assert checked.ok is well
    if not well:
        assert f"less than the pod's {mtu}" in checked.msg


def test_it_passes_again_and_again_and_changes_nothing(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    added = node.add(pod)

    def facts() -> tuple[object, ...]:
        host = node.sandbox.ip("-details", "link"), node.sandbox.ip("route"), node.sandbox.ip("neighbour")
        return (
            *host,
            node.held(),
            node.counts(),
            pod.ip("-4", "address"),
            pod.ip("route"),
            pod.ip("neighbour"),
        )

    before = facts()
    for _ in range(3):
        checked = node.check(pod, added).done()
        assert checked.stdout == b""
        assert checked.stderr == ""
    assert facts() == before


@pytest.mark.parametrize("previous", [None, {}])
def test_without_a_result_to_hold_against_it_is_an_error(healthy: Healthy, previous: object) -> None:
    conf = healthy.node.conf(prevResult=previous)
    failed = healthy.node.call("CHECK", healthy.pod, conf=conf)
    assert failed.code in UNKNOWN_OR_DECODING
    assert "prevResult" in failed.msg


@pytest.mark.parametrize(
    "garbage", [[1], "text", 7, {"ips": 1}, {"ips": [{"address": "x"}]}, {"interfaces": [1]}]
)
def test_a_result_that_can_not_be_read_is_an_error(healthy: Healthy, garbage: object) -> None:
    failed = healthy.node.call("CHECK", healthy.pod, conf=healthy.node.conf(prevResult=garbage))
    assert failed.code in UNKNOWN_OR_DECODING


WRONG_RESULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another address": lambda r: {**r, "ips": [{**r["ips"][0], "address": "10.10.0.99/32"}]},
    "another prefix length": lambda r: {**r, "ips": [{**r["ips"][0], "address": "10.10.0.5/24"}]},
    "another sandbox": lambda r: {
        **r,
        "interfaces": [r["interfaces"][0], {**r["interfaces"][1], "sandbox": "/run/netns/other"}],
    },
    "another interface": lambda r: {
        **r,
        "interfaces": [r["interfaces"][0], {**r["interfaces"][1], "name": "eth1"}],
    },
    "another MAC": lambda r: {
        **r,
        "interfaces": [r["interfaces"][0], {**r["interfaces"][1], "mac": "02:00:00:00:00:77"}],
    },
    "another MTU": lambda r: {**r, "interfaces": [r["interfaces"][0], {**r["interfaces"][1], "mtu": 1234}]},
    "a route that is not there": lambda r: {
        **r,
        "routes": [*r["routes"], {"dst": "172.31.0.0/16", "gw": "169.254.1.1"}],
    },
}


@pytest.mark.parametrize("what", WRONG_RESULTS)
def test_a_result_that_says_otherwise_is_damage(healthy: Healthy, what: str) -> None:
    failed = healthy.node.check(healthy.pod, WRONG_RESULTS[what](healthy.result))
    assert failed.code == CHECK_FAILED
    assert failed.msg


def test_a_pod_that_was_never_added_is_not_well(busy_node: Node) -> None:
    pod, other = busy_node.sandbox.pods("c1", "c2")
    made = busy_node.add(other).result
    failed = busy_node.check(pod, made)
    assert failed.code == CHECK_FAILED


def test_a_pod_that_was_deleted_is_not_well(healthy: Healthy) -> None:
    healthy.node.delete(healthy.pod).done()
    assert healthy.node.check(healthy.pod, healthy.result).code == CHECK_FAILED


def test_a_namespace_that_is_gone_or_another_is_not_well(healthy: Healthy) -> None:
    healthy.pod.remove()
    assert healthy.node.check(healthy.pod, healthy.result).code == INVALID_NETNS
    healthy.node.sandbox.new_pods(["c1"])
    assert healthy.node.check(healthy.pod, healthy.result).code == CHECK_FAILED


def test_one_interface_is_checked_and_not_its_neighbour(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    first, second = busy_node.add(pod), busy_node.add(pod, ifname="net1")
    pod.change("link set net1 down")
    busy_node.check(pod, first).done()
    assert busy_node.check(pod, second, ifname="net1").code == CHECK_FAILED


def test_what_was_repaired_by_hand_is_well_again(healthy: Healthy) -> None:
    healthy.host("route delete 10.10.0.5/32")
    healthy.pod.change("neighbour delete 169.254.1.1 dev eth0")
    assert healthy.node.check(healthy.pod, healthy.result).code == CHECK_FAILED
    healthy.host(f"route add 10.10.0.5/32 dev {healthy.veth} scope link proto 155")
    healthy.pod.change("neighbour add 169.254.1.1 lladdr aa:aa:aa:aa:aa:aa dev eth0 nud permanent")
    healthy.node.check(healthy.pod, healthy.result).done()
