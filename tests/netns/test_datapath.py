"""The kernel's state after ADD, exactly; and that nothing of the host's own is ever written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.fabric import syscalls as sc
from tests.netns.conftest import NewNode
from tests.netns.node import ADDRESS, MAC, Node, ping, pod_addresses
from tests.netns.sandbox import Pod
from tests.waiting import eventually

HOST_MAC = "aa:aa:aa:aa:aa:aa"
GATEWAY = "169.254.1.1"
EXISTS, KERNEL_REFUSED = 104, 106


@pytest.fixture
def pod(busy_node: Node) -> Pod:
    return busy_node.sandbox.pod("c1")


def host_name(pod_name: str, namespace: str = "default") -> str:
    """The name that docs/architecture.md gives the host veth of a pod's first interface."""
    return "azv" + hashlib.sha1(f"{namespace}.{pod_name}".encode()).hexdigest()[:11]


def own_name(container_id: str, ifname: str = "eth0") -> str:
    """The name where that one is taken, or the runtime names no pod."""
    return "azv" + hashlib.sha1(f"{container_id}\0{ifname}".encode()).hexdigest()[:11]


def _one(found: list[dict[str, Any]]) -> dict[str, Any]:
    (only,) = found
    return only


def test_the_host_end_is_named_and_marked_for_its_attachment(busy_node: Node, pod: Pod) -> None:
    busy_node.add(pod).done()
    ((name, link),) = busy_node.veths().items()
    assert name == host_name("c1")
    assert link["address"] == HOST_MAC
    whose, call = link["ifalias"].rsplit(" ", 1)
    assert whose == "azvnet1 c1 eth0 azvnet"
    assert re.fullmatch("[0-9a-f]{32}", call), "that of the call that made it"
    assert {"UP", "LOWER_UP"} <= set(link["flags"])
    assert "master" not in link
    assert link["group"] == "155"


def test_the_pod_end_is_up_and_as_any_ethernet_link(busy_node: Node, pod: Pod) -> None:
    busy_node.add(pod).done()
    link = _one(pod.ip("-details", "link", "show", "dev", "eth0"))
    assert set(link["flags"]) == {"BROADCAST", "MULTICAST", "UP", "LOWER_UP"}
    assert link["operstate"] == "UP"
    assert link["linkinfo"]["info_kind"] == "veth"


def test_each_end_has_one_queue_whatever_the_number_of_processors(busy_node: Node, pod: Pod) -> None:
    busy_node.add(pod).done()
    (host,) = busy_node.veths()
    ends = [
        *busy_node.sandbox.ip("-details", "link", "show", "dev", host),
        *pod.ip("-details", "link", "show", "dev", "eth0"),
    ]
    assert [(end["num_tx_queues"], end["num_rx_queues"]) for end in ends] == [(1, 1), (1, 1)]


def test_the_pod_has_its_address_and_no_route_to_its_subnet(busy_node: Node, pod: Pod) -> None:
    """On Azure no neighbour can be reached on layer 2: everything goes through the gateway."""
    busy_node.add(pod).done()
    info = _one(_one(pod.ip("-4", "address", "show", "dev", "eth0"))["addr_info"])
    assert (info["local"], info["prefixlen"], info["scope"]) == ("10.10.0.5", 32, "global")
    assert info["noprefixroute"] is True
    routes = pod.ip("-details", "-4", "route", "show")
    assert sorted((route["dst"], route.get("gateway"), route["scope"]) for route in routes) == [
        (GATEWAY, None, "link"),
        ("default", GATEWAY, "global"),
    ]
    assert {route["dev"] for route in routes} == {"eth0"}
    assert {route["protocol"] for route in routes} == {"155"}


def test_the_gateways_neighbour_is_permanent(busy_node: Node, pod: Pod) -> None:
    busy_node.add(pod).done()
    neighbour = _one(pod.ip("-4", "neighbour", "show", "dev", "eth0"))
    assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (GATEWAY, HOST_MAC, ["PERMANENT"])


def test_the_host_routes_the_address_to_its_veth(busy_node: Node, pod: Pod) -> None:
    busy_node.add(pod).done()
    route = _one(busy_node.sandbox.ip("-details", "route", "show", "10.10.0.5/32"))
    assert (route["dev"], route["scope"], route["protocol"]) == (host_name("c1"), "link", "155")
    assert "gateway" not in route
    assert busy_node.host_routes() == {"10.10.0.5": host_name("c1")}


def test_the_two_ends_are_each_others_peers_under_different_indexes(busy_node: Node, pod: Pod) -> None:
    """Tools take a link whose index equals its peer's for a physical one."""
    busy_node.add(pod).done()
    (host,) = busy_node.veths().values()
    inside = _one(pod.ip("link", "show", "dev", "eth0"))
    assert (host["link_index"], inside["link_index"]) == (inside["ifindex"], host["ifindex"])
    assert host["ifindex"] != inside["ifindex"]


@pytest.mark.alone("an agent switches it on when it starts")
def test_forwarding_is_switched_on_and_nothing_else_of_the_hosts_sysctls(busy_node: Node, pod: Pod) -> None:
    """That the kernel itself no longer accepts redirects then is its doing (inet_forward_change)."""
    sandbox = busy_node.sandbox
    follows = ("forwarding", "accept_redirects")

    def settings() -> list[str]:
        lines = sandbox.run("sysctl", "-a", "--pattern", "^net[.]ipv4[.]conf[.](all|default|eth0)").stdout
        return [line for line in lines.splitlines() if not any(f".{each} " in line for each in follows)]

    # A new namespace has it from the machine's own, where Docker may have switched it on.
    sandbox.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    before = settings()
    busy_node.add(pod).done()
    assert sandbox.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"
    assert settings() == before
    remembered = json.loads(sandbox.run("cat", "/run/azvnet/sysctls-before.json").stdout)
    assert remembered["ipv4/ip_forward"] == "0"


def _advertise_a_router(pod: Pod) -> None:
    """One router advertisement (RFC 4861, 4.2), for a default route and 2001:db8::/64."""
    source, everybody = (socket.inet_pton(socket.AF_INET6, each) for each in ("fe80::1", "ff02::1"))
    prefix = struct.pack("!BBBBIIIQQ", 3, 4, 64, 0xC0, 86400, 86400, 0, 0x20010DB8 << 32, 0)
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    words = source + everybody + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6) + message
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    folded = (total & 0xFFFF) + (total >> 16)
    checksum = ~(folded + (folded >> 16)) & 0xFFFF
    message = message[:2] + struct.pack("!H", checksum) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
    ethernet = bytes.fromhex("33330000000102000000000186dd")

    def send() -> None:
        fd = os.open(pod.netns, os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind(("eth0", 0))
            link.send(ethernet + header + source + everybody + message)

    pod.sandbox.do(send)


@pytest.mark.parametrize("forwarding", ["0", "1"])
def test_a_pod_can_not_make_itself_the_router_of_its_host(busy_node: Node, pod: Pod, forwarding: str) -> None:
    sandbox = busy_node.sandbox
    sandbox.do(lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(forwarding))
    busy_node.add(pod).done()
    veth = host_name("c1")

    def taken() -> list[str]:
        routes = [route["dst"] for route in sandbox.ip("-6", "route", "show", "dev", veth)]
        return [dst for dst in routes if dst != "fe80::/64"]

    _advertise_a_router(pod)
    ping(pod, ADDRESS)  # comes after it on the same link
    assert not taken()
    # And the advertisement is one that the kernel would have believed.
    conf = Path(f"/proc/sys/net/ipv6/conf/{veth}")
    sandbox.do(lambda: (conf / "accept_ra").write_text("2"), lambda: (conf / "disable_ipv6").write_text("0"))
    _advertise_a_router(pod)
    eventually(lambda: taken() == ["2001:db8::/64", "default"], "the advertisement is taken")


def test_an_alias_that_would_be_too_long_leaves_the_network_out(busy_node: Node) -> None:
    """Up to 254 bytes the network is in it, and the kernel takes no more; the attachment is always in it."""
    for length in (200, 201, 240):
        pod = busy_node.sandbox.pod("c" * length, namespace=f"ns{length}")
        conf = busy_node.conf(name="n" * 40)
        busy_node.add(pod, conf=conf).done()
        alias = busy_node.veths()[host_name(pod.container_id)]["ifalias"]
        whole = f"azvnet1 {pod.container_id} eth0 {'n' * 40}"
        assert alias == (whole if length == 200 else whole.rsplit(" ", 1)[0])
        assert len(alias) <= 254
        busy_node.delete(pod, conf=conf).done()
    assert not busy_node.residue()


# Indexes


def _indexes(attachment: str) -> Iterator[tuple[int, int]]:
    """The pairs of interface indexes that are tried, as docs/architecture.md derives them."""
    from cni_plugin.datapath.names import index_pairs, names_of
    from ipam.model import Attachment

    return index_pairs(names_of(Attachment(attachment, "eth0")))


@pytest.mark.parametrize("side", ["host", "pod"])
def test_an_index_that_is_taken_is_passed_over(busy_node: Node, pod: Pod, side: str) -> None:
    pairs = _indexes("c1")
    taken = [next(pairs)[0 if side == "host" else 1] for _ in range(3)]
    links = [f"link add ifb{number} index {index} type ifb" for number, index in enumerate(taken)]
    if side == "host":
        busy_node.sandbox.batch(*links)
    else:
        pod.change(*links)
    added = busy_node.add(pod)
    busy_node.check(pod, added).done()
    ((_, host),) = busy_node.veths().items()
    inside = _one(pod.ip("link", "show", "dev", "eth0"))
    assert (host["ifindex"], inside["ifindex"]) == next(pairs)
    others = busy_node.sandbox.ip("link") if side == "host" else pod.ip("link")
    assert {f"ifb{number}" for number in range(3)} <= {link["ifname"] for link in others}


def test_no_address_or_route_lands_on_the_link_that_has_the_index(busy_node: Node, pod: Pod) -> None:
    """The kernel goes on with a batch after a message in it failed: a foreign link must not be configured."""
    first = next(_indexes("c1"))
    busy_node.sandbox.batch(f"link add ifb0 index {first[0]} type ifb", "link set ifb0 up")
    pod.change(f"link add ifb0 index {first[1] + 2} type ifb", f"link add ifb1 index {first[1]} type ifb")
    busy_node.add(pod).done()
    for link in ("ifb0", "ifb1"):
        assert not pod.ip("-4", "address", "show", "dev", link)
        assert not pod.ip("-4", "route", "show", "dev", link)
        assert "UP" not in pod.ip("link", "show", "dev", link)[0]["flags"]
    assert not busy_node.sandbox.ip("-4", "route", "show", "dev", "ifb0")
    assert "ifalias" not in busy_node.sandbox.ip("link", "show", "dev", "ifb0")[0]


# What exists already


@pytest.mark.parametrize("existing", ["eth0", "lo"])
def test_an_interface_that_is_there_already_is_left_as_it_is(
    busy_node: Node, pod: Pod, existing: str
) -> None:
    if existing == "eth0":
        pod.change("link add eth0 type veth peer name other", "address add 10.99.0.1/24 dev eth0")
    before = pod.ip("-details", "address")
    failed = busy_node.add(pod, ifname=existing)
    assert failed.code == EXISTS
    assert existing in failed.msg
    assert pod.ip("-details", "address") == before
    assert not busy_node.residue()


def test_a_second_add_is_an_error_that_harms_nothing(busy_node: Node, pod: Pod) -> None:
    """Azure CNI takes the running pod's endpoint away here, and gives its address to the next."""
    added = busy_node.add(pod)

    def state() -> tuple[object, ...]:
        # Not IPv6: the kernel itself ends the check for duplicates of the link's own address some time later.
        return busy_node.veths(), busy_node.host_routes(), busy_node.held(), pod.ip("-4", "address")

    before = state()
    for _ in range(3):
        again = busy_node.add(pod)
        assert again.code == EXISTS
        assert "eth0" in again.msg
        assert "c1" in again.msg
    assert state() == before
    assert busy_node.counts() == {"free": 7, "assigned": 1, "cooling": 0, "quarantined": 0}
    busy_node.check(pod, added).done()


def test_a_second_add_with_another_namespace_harms_nothing_either(busy_node: Node, pod: Pod) -> None:
    added = busy_node.add(pod)
    other = Pod("c1", busy_node.sandbox.pod("other").netns, busy_node.sandbox)
    assert busy_node.add(other).code == EXISTS
    assert [link["ifname"] for link in other.ip("link")] == ["lo"]
    busy_node.check(pod, added).done()


def test_one_container_may_have_several_attachments_each_for_itself(busy_node: Node, pod: Pod) -> None:
    first = busy_node.add(pod)
    second = busy_node.add(pod, ifname="net1", conf=busy_node.conf(name="second")).done()
    assert pod_addresses(pod, "net1") == [f"{second.address}/32"]
    assert first.address != second.address
    assert {name: link["ifalias"].rsplit(" ", 1)[0] for name, link in busy_node.veths().items()} == {
        host_name("c1"): "azvnet1 c1 eth0 azvnet",
        own_name("c1", "net1"): "azvnet1 c1 net1 second",
    }
    busy_node.delete(pod, ifname="net1", conf=busy_node.conf(name="second")).done()
    busy_node.check(pod, first).done()
    assert [link["ifname"] for link in pod.ip("link")] == ["lo", "eth0"]
    busy_node.delete(pod).done()
    assert not busy_node.residue()


def test_containers_whose_ids_begin_alike_are_told_apart(busy_node: Node) -> None:
    """Azure CNI keys its endpoints by the first eight characters."""
    first, second = busy_node.sandbox.pods("01234567aa", "01234567bb")
    added = busy_node.add(first)
    other = busy_node.add(second)
    assert added.address != other.address
    busy_node.delete(second).done()
    busy_node.check(first, added).done()


def test_pods_of_the_same_name_in_turn_are_told_apart(busy_node: Node) -> None:
    """A StatefulSet's pod comes back under its name while the old one may still be there."""
    from tests.netns.node import pod_args

    old, new = busy_node.sandbox.pods("old", "new")
    args = {each: pod_args(each, name="web-0") for each in ("old", "new")}
    first = busy_node.add(old, args=args["old"])
    second = busy_node.add(new, args=args["new"])
    assert first.address != second.address
    busy_node.delete(old, args=args["old"]).done()
    busy_node.check(new, second, args=args["new"]).done()


# The host


def _host_facts(node: Node) -> dict[str, str]:
    commands = {
        "eth0": "ip -d link show dev eth0",
        "addresses": "ip address show dev eth0",
        "routes": "ip route show table all",
        "routes6": "ip -6 route show table all",
        "rules": "ip rule",
        "neighbours": "ip neighbour show nud permanent",
        "links": "ip -br link",
        "nft": "nft list ruleset",
        "resolv.conf": "cat /etc/resolv.conf",
        "hosts": "cat /etc/hosts",
        "tc": "tc qdisc show",
    }
    return {name: node.sandbox.run(*command.split()).stdout for name, command in commands.items()}


def _without_ours(facts: dict[str, str]) -> dict[str, str]:
    rules = facts["rules"].splitlines(keepends=True)
    return facts | {
        "rules": "".join(rule for rule in rules if "proto 155" not in rule),
        "nft": re.sub(r"table inet azvnet \{.*?^\}\n", "", facts["nft"], flags=re.DOTALL | re.MULTILINE),
    }


@pytest.mark.timeout(180)
def test_the_hosts_network_is_the_same_after_a_hundred_pods(new_node: NewNode) -> None:
    """Row 19: eth0, its routes, rules, filters and resolver, byte for byte."""
    node = new_node(many=True, addresses=10, mtu=1400)
    sandbox = node.sandbox
    sandbox.batch(
        "route add 169.254.169.254 via 10.10.0.1 dev eth0 proto dhcp metric 100",
        "route add 168.63.129.16 via 10.10.0.1 dev eth0",
        "rule add from 10.20.0.0/16 table 77",
        "neighbour add 10.10.0.9 lladdr 12:34:56:78:9a:bc dev eth0 nud permanent",
    )
    sandbox.run("nft", "-f", "-", stdin="table ip t { chain c { type filter hook forward priority 0; }; }\n")
    before = _host_facts(node)
    assert MAC in before["eth0"]
    pods = sandbox.pods(*(f"c{number}" for number in range(10)))
    for _ in range(10):
        running = [node.start("ADD", each) for each in pods]
        for each in running:
            each.finish().done()
        running = [node.start("DEL", each) for each in pods]
        for each in running:
            each.finish().done()
    after = _host_facts(node)
    # Ours: the rule, since the node has one by source (docs/datapath.md), and the table (docs/traffic.md).
    assert sum("proto 155" in rule for rule in after["rules"].splitlines()) == 1
    assert after["nft"].count("table inet ") == after["nft"].count("table inet azvnet {") == 1
    assert _without_ours(after) == _without_ours(before)
    assert not node.residue()
