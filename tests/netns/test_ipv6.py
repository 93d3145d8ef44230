"""Pods with IPv6 addresses: beside IPv4 and alone, in every verb, and what they can't do."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.cni.errors import KernelRefused
from cni_plugin.host import forwarding_v6, packets, traffic
from cni_plugin.host.traffic import PodNetwork
from cni_plugin.kernel import nftables
from cni_plugin.kernel.nftables import Chain
from cni_plugin.node import Node as Engine
from integration.fabric import syscalls as sc
from tests.netns.calls import Executable, Outcome
from tests.netns.conftest import NewAgent
from tests.netns.damage import checked_after
from tests.netns.node import (
    ADDRESS,
    FABRIC,
    FIRST_POD_ADDRESS,
    GATEWAY,
    INTERFACES,
    MAC,
    RUN_DIR,
    SUBNET,
    Node,
    ping,
)
from tests.netns.sandbox import Pod, Sandbox
from tests.waiting import eventually

PREFIX = "fd00:10:0:1::"
SUBNET_V6, ADDRESS_V6 = f"{PREFIX}/64", f"{PREFIX}4"
FIRST_V6 = IPv6Address(f"{PREFIX}5")
ROUTER = "fe80::1234:5678:9abc"
OUTSIDE_V6 = "2001:db8:7::7"
"""A host beyond the router, as OUTSIDE is one of IPv4."""
DUAL, ONLY_V6 = ["IPv4", "IPv6"], ["IPv6"]
PORT = 5300
INVALID = 7


def list_both(node: Node, count: int, count_v6: int) -> None:
    """Have the source list addresses for pods, of each family so many."""

    def subnet(prefix: str, own: str, first: Any, number: int) -> dict[str, Any]:
        pods = [{"Address": str(first + each), "IsPrimary": False} for each in range(number)]
        return {"Prefix": prefix, "IPAddresses": [{"Address": own, "IsPrimary": True}, *pods]}

    subnets = [
        subnet(SUBNET, ADDRESS, FIRST_POD_ADDRESS, count),
        subnet(SUBNET_V6, ADDRESS_V6, FIRST_V6, count_v6),
    ]
    interface = {"MacAddress": MAC.replace(":", "").upper(), "IsPrimary": True, "IPSubnets": subnets}
    node.sandbox.write(INTERFACES, json.dumps({"Interfaces": [interface]}))


def wire_v6(node: Node) -> None:
    """IPv6 on the node's uplink, with a router as Azure's fabric has one."""
    own_link_local = "fe80::20d:3aff:fe00:1"
    node.sandbox.batch(
        f"address add {ROUTER}/64 dev wire nodad",
        f"address add {OUTSIDE_V6}/128 dev lo nodad",
        f"route add {SUBNET_V6} via {own_link_local} dev wire",
        namespace=FABRIC,
    )
    node.sandbox.batch(
        f"address replace {own_link_local}/64 dev eth0 nodad",
        f"address add {ADDRESS_V6}/128 dev eth0 nodad",
        f"route add default via {ROUTER} dev eth0",
    )


@pytest.fixture
def dual(busy_node: Node) -> Node:
    """A node whose network gives its pods addresses of both families."""
    return with_both(busy_node)


def with_both(node: Node) -> Node:
    """The node, on a dual-stack network."""
    wire_v6(node)
    list_both(node, 8, 8)
    node.netconf["ipam"]["families"] = DUAL
    return node


def ips(result: Mapping[str, Any]) -> list[str]:
    return [each["address"] for each in result["ips"]]


def attached(node: Node, container: str = "c1", **conf: object) -> tuple[Pod, list[str]]:
    pod = node.sandbox.pod(container)
    return pod, [each.partition("/")[0] for each in ips(node.add(pod, conf=node.conf(**conf)).result)]


def refused(outcome: Outcome, code: int | None, text: str) -> None:
    """The call failed, with that code if one is given, and says so."""
    assert outcome.error["code"] == (code or outcome.error["code"])
    assert text in outcome.error["msg"] + outcome.error["details"]


def routes_v6(sandbox: Sandbox) -> dict[str, str]:
    """The host's routes to pods: address and link."""
    found = sandbox.ip("-6", "route", "show", "proto", "155")
    return {each["dst"]: each["dev"] for each in found}


def setting(pod: Pod, name: str) -> str:
    return pod.run("cat", f"/proc/sys/net/ipv6/conf/{name}").stdout.strip()


SERVER = """
import socket, sys
place = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
place.bind((sys.argv[2], int(sys.argv[3])))
open(sys.argv[1], "w").write("ready")
while True:
    _, peer = place.recvfrom(100)
    place.sendto(peer[0].encode(), peer)
"""


@contextmanager
def server(sandbox: Sandbox, namespace: str, address: str) -> Iterator[None]:
    """One that says who asks, until the end of the block."""
    ready = f"/run/ready6-{namespace or 'node'}"
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*inside, "python3", "-c", SERVER, ready, address, str(PORT)]
    process = sandbox.popen(argv, stdout=None, stderr=None)
    try:
        eventually(sandbox.path(ready).exists, "the server listens")
        yield
    finally:
        process.kill()
        process.wait()
        sandbox.path(ready).unlink(missing_ok=True)


def asked(pod: Pod, address: str, source: str = "", seconds: float = 10) -> str:
    """Who the far end saw; empty: nothing came back."""

    def work() -> str:
        fd = os.open(pod.netns, os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
            asking.settimeout(seconds)
            if source:
                asking.bind((source, 0))
            try:
                asking.connect((address, PORT))
                asking.send(b"?")
                return asking.recv(100).decode()
            except OSError:
                return ""

    return pod.sandbox.ask(work)


# What a pod gets


def test_a_pod_gets_an_address_of_each_family_and_both_work_when_add_returns(dual: Node) -> None:
    pod = dual.sandbox.pod("c1")
    added = dual.add(pod)
    assert ips(added.result) == ["10.10.0.5/32", f"{FIRST_V6}/128"]
    assert [each["gateway"] for each in added.result["ips"]] == ["169.254.1.1", "fe80::1"]
    assert {each["dst"] for each in added.result["routes"]} == {
        "169.254.1.1/32",
        "0.0.0.0/0",
        "fe80::1/128",
        "::/0",
    }
    assert ping(pod, str(FIRST_V6)), "the pod reaches itself"
    assert ping(pod, OUTSIDE_V6)
    assert ping(pod, GATEWAY)
    assert dual.sandbox.run("ping", "-6", "-c1", "-W5", str(FIRST_V6)).returncode == 0
    assert set(routes_v6(dual.sandbox)) == {str(FIRST_V6)}


def test_no_address_is_detected_and_no_router_but_the_node_is_listened_to(dual: Node) -> None:
    pod, _ = attached(dual)
    (link,) = pod.ip("address", "show", "dev", "eth0")
    (address,) = [each for each in link["addr_info"] if each["local"] == str(FIRST_V6)]
    assert (address["nodad"], address["noprefixroute"]) == (True, True)
    assert not address.get("tentative")
    assert setting(pod, "eth0/accept_ra") == "0"
    (neighbour,) = pod.ip("-6", "neighbour", "show", "fe80::1")
    assert (neighbour["lladdr"], neighbour["state"]) == ("aa:aa:aa:aa:aa:aa", ["PERMANENT"])


@pytest.mark.parametrize(
    ("families", "first"), [(["IPv6", "IPv4"], "v6"), (DUAL, "v4")], ids=["IPv6 first", "IPv4 first"]
)
def test_the_first_family_is_the_pods_primary_one(dual: Node, families: list[str], first: str) -> None:
    _, addresses = attached(dual, ipam={"families": families})
    assert (":" in addresses[0]) is (first == "v6")
    assert len(addresses) == 2


def test_a_pod_may_have_ipv6_alone(dual: Node) -> None:
    pod, addresses = attached(dual, ipam={"families": ONLY_V6})
    assert addresses == [str(FIRST_V6)]
    (link,) = pod.ip("-4", "address", "show", "dev", "eth0") or [{"addr_info": []}]
    assert link.get("addr_info", []) == []
    assert ping(pod, OUTSIDE_V6)
    assert not ping(pod, GATEWAY)


def test_without_families_a_pod_gets_ipv4_alone_and_no_ipv6_on_its_veth(dual: Node) -> None:
    pod, addresses = attached(dual, ipam={"families": None})
    assert addresses == ["10.10.0.5"]
    (name,) = dual.veths()
    assert dual.sandbox.run("cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").stdout.strip() == "1"
    assert routes_v6(dual.sandbox) == {}
    assert pod.ip("-6", "route", "show", "default") == []


def test_a_pod_whose_namespace_disables_ipv6_gets_it_all_the_same(dual: Node) -> None:
    pod = dual.sandbox.pod("c1")
    for name in ("all", "default"):
        pod.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    dual.add(pod).done()
    assert ping(pod, OUTSIDE_V6)
    assert ping(pod, str(FIRST_V6))


def test_a_second_interface_has_its_own_addresses_and_the_first_stays_in_use(dual: Node) -> None:
    pod, _ = attached(dual)
    second = dual.add(pod, ifname="net1")
    assert ips(second.result) == ["10.10.0.6/32", f"{FIRST_V6 + 1}/128"]
    ways = pod.ip("-6", "route", "show", "default")
    assert [each["dev"] for each in sorted(ways, key=lambda way: way["metric"])] == ["eth0", "net1"]
    assert ping(pod, OUTSIDE_V6)
    answered = dual.sandbox.run("ping", "-6", "-c1", "-W5", "-I", ADDRESS_V6, str(FIRST_V6 + 1))
    assert answered.returncode == 0, "replies of the second one leave by it"


def test_a_node_that_disables_ipv6_on_new_links_forwards_it_all_the_same(dual: Node) -> None:
    dual.sandbox.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    pod, _ = attached(dual)
    assert ping(pod, OUTSIDE_V6)


# All or none


@pytest.mark.parametrize(
    ("count", "count_v6", "named"), [(1, 8, "IPv4"), (8, 1, "IPv6")], ids=["IPv4", "IPv6"]
)
def test_one_family_exhausted_is_an_error_and_holds_nothing_of_the_other(
    dual: Node, count: int, count_v6: int, named: str
) -> None:
    list_both(dual, count, count_v6)
    attached(dual)
    failed = dual.add(dual.sandbox.pod("c2"))
    refused(failed, None, f"no free {named} address")
    assert len(dual.held()) == 2
    refused(dual.status(), 50, f"no free {named} address")


def test_a_nic_without_ipv6_addresses_refuses_a_pod_that_should_get_one(dual: Node) -> None:
    dual.list_addresses(8)
    failed = dual.add(dual.sandbox.pod("c1"))
    refused(failed, None, "for IPv6")
    assert dual.held() == {}


# What is asked for


def test_addresses_of_both_families_can_be_requested(dual: Node) -> None:
    wanted = ["10.10.0.9", f"{FIRST_V6 + 3}"]
    conf = dual.conf(runtimeConfig={"ips": wanted}, capabilities={"ips": True})
    pod = dual.sandbox.pod("c1")
    assert [each.partition("/")[0] for each in ips(dual.add(pod, conf=conf).result)] == wanted


def test_a_requested_address_of_one_family_leaves_the_other_free(dual: Node) -> None:
    pod = dual.sandbox.pod("c1")
    added = dual.add(pod, args=f"IgnoreUnknown=1;IP={FIRST_V6 + 3}")
    assert ips(added.result) == ["10.10.0.5/32", f"{FIRST_V6 + 3}/128"]


def test_an_address_of_a_family_that_pods_do_not_get_is_refused(dual: Node) -> None:
    conf = dual.conf(ipam={"families": None, "ipAddress": str(FIRST_V6)})
    refused(dual.add(dual.sandbox.pod("c1"), conf=conf), None, "pods get IPv4 addresses")
    conf = dual.conf(
        ipam={"ipAddress": f"{FIRST_V6}"}, args={"cni": {"ips": [str(FIRST_V6), f"{FIRST_V6 + 1}"]}}
    )
    refused(dual.add(dual.sandbox.pod("c2"), conf=conf), INVALID, "of each family")


def test_a_family_that_does_not_exist_is_refused(dual: Node) -> None:
    refused(
        dual.add(dual.sandbox.pod("c1"), conf=dual.conf(ipam={"families": ["IPv5"]})), INVALID, "families"
    )
    refused(dual.add(dual.sandbox.pod("c2"), conf=dual.conf(ipam={"families": []})), INVALID, "families")


def test_another_plugin_is_given_addresses_of_both_families(dual: Node) -> None:
    given = dual.add(dual.sandbox.pod("c1"), as_ipam=True).result
    assert ips(given) == ["10.10.0.5/16", f"{FIRST_V6}/64"], "with the prefix lengths of their subnets"
    assert {each["dst"] for each in given["routes"]} == {"0.0.0.0/0", "::/0"}
    assert [each["gateway"] for each in given["ips"]] == [GATEWAY, f"{PREFIX}1"]


# Verbs


def test_delete_frees_both_and_leaves_nothing(dual: Node) -> None:
    pod, _ = attached(dual)
    dual.delete(pod).done()
    assert dual.held() == {}
    assert dual.residue() == []
    assert routes_v6(dual.sandbox) == {}
    dual.delete(pod).done()


def test_check_finds_what_is_missing_of_either_family(dual: Node) -> None:
    pod = dual.sandbox.pod("c1")
    added = dual.add(pod)
    dual.check(pod, added).done()
    pod.change(f"address del {FIRST_V6}/128 dev eth0")
    refused(dual.check(pod, added), None, f"address {FIRST_V6}/128 is missing")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("route del default dev eth0", "route to ::/0"),
        ("neighbour replace fe80::1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent", "neighbour fe80::1"),
    ],
    ids=["the route", "the neighbour"],
)
def test_check_names_what_was_changed_in_the_pod(dual: Node, change: str, named: str) -> None:
    pod = dual.sandbox.pod("c1")
    added = dual.add(pod)
    pod.run("ip", "-6", *change.split())
    refused(dual.check(pod, added), None, named)


def test_check_finds_a_host_route_that_is_gone(dual: Node) -> None:
    pod = dual.sandbox.pod("c1")
    added = dual.add(pod)
    checked_after(
        dual,
        lambda: dual.sandbox.run("ip", "-6", "route", "del", str(FIRST_V6)),
        lambda: dual.check(pod, added),
        [f"host route to {FIRST_V6}"],
    )


def test_gc_frees_both(dual: Node) -> None:
    attached(dual)
    kept, addresses = attached(dual, "c2")
    dual.gc([(kept, "eth0")]).done()
    assert set(dual.held()) == set(addresses)
    assert list(routes_v6(dual.sandbox)) == [addresses[1]]


def test_a_lost_store_is_rebuilt_with_both(dual: Node) -> None:
    _, addresses = attached(dual)
    for name in ("azvnet.db", "azvnet.db-wal", "azvnet.db-shm"):
        dual.sandbox.path(f"{RUN_DIR}/{name}").unlink(missing_ok=True)
    _, others = attached(dual, "c2")
    assert set(dual.held()) == {*addresses, *others}
    assert len({*addresses, *others}) == 4


# What pods can't do, and who sees what


def test_a_pod_sends_from_its_own_addresses_alone(dual: Node) -> None:
    pod, addresses = attached(dual)
    pod.run("ip", "-6", "address", "add", f"{FIRST_V6 + 6}/128", "dev", "eth0", "nodad")
    with server(dual.sandbox, "", ADDRESS_V6):
        assert asked(pod, ADDRESS_V6, addresses[1]) == addresses[1]
        assert asked(pod, ADDRESS_V6, f"{FIRST_V6 + 6}", seconds=1) == ""


def test_a_pod_whose_mac_is_changed_finds_its_gateway_again(dual: Node) -> None:
    pod, _ = attached(dual)
    pod.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:09")
    assert ping(pod, OUTSIDE_V6)


def test_pods_are_seen_under_their_own_address_inside_and_under_the_nodes_outside(dual: Node) -> None:
    pod, addresses = attached(dual)
    other, there = attached(dual, "c2")
    dual.sandbox.batch("address add fd00:10:0:7::7/128 dev lo nodad", namespace=FABRIC)
    with server(dual.sandbox, Path(other.netns).name, there[1]):
        assert asked(pod, there[1]) == addresses[1]
    with server(dual.sandbox, FABRIC, "fd00:10:0:7::7"):
        assert asked(pod, "fd00:10:0:7::7") == addresses[1]
    with server(dual.sandbox, FABRIC, OUTSIDE_V6):
        assert asked(pod, OUTSIDE_V6) == ADDRESS_V6


def test_a_network_of_ipv4_alone_leaves_the_table_without_ipv6(dual: Node) -> None:
    attached(dual, ipam={"families": None})
    table = dual.sandbox.run("nft", "list", "table", "inet", "azvnet").stdout
    assert "ip6" not in table
    assert "fib" not in table
    attached(dual, "c2")
    table = dual.sandbox.run("nft", "list", "table", "inet", "azvnet").stdout
    assert "fib saddr . iif" in table
    assert "ip6 daddr" in table


def test_a_pod_is_no_router_of_its_host_and_leaves_no_neighbour_there(dual: Node) -> None:
    pod, addresses = attached(dual)
    forged = f"{FIRST_V6 + 6}"
    pod.run("ip", "-6", "address", "add", f"{forged}/128", "dev", "eth0", "nodad")
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    solicitation = struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address("fe80::1").packed
    source_link = b"\1\1" + bytes.fromhex("020000000009")

    def send() -> None:
        fd = os.open(pod.netns, os.O_RDONLY)
        sc.setns(fd, sc.CLONE_NEWNET)
        index = socket.if_nametoindex("eth0")
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            for option in (socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS):
                raw.setsockopt(socket.IPPROTO_IPV6, option, 255)
            raw.sendto(advertisement + source_link, ("ff02::1", 0, 0, index))
            raw.bind((forged, 0))
            raw.sendto(solicitation + source_link, ("fe80::1", 0, 0, index))

    pod.sandbox.do(send)
    assert ping(pod, ADDRESS_V6, "-I", addresses[1]), "what was sent before has arrived"
    (name,) = dual.veths()
    assert dual.sandbox.ip("-6", "route", "show", "default", "dev", name) == []
    known = dual.sandbox.ip("-6", "neighbour", "show", "dev", name)
    assert {each["dst"] for each in known} == {addresses[1]}


def test_explain_says_which_way_ipv6_takes_and_who_is_seen(dual: Node, executable: Executable) -> None:
    _, addresses = attached(dual)

    def explained(start: str, to: str) -> dict[str, Any]:
        argv = ("explain", "--from", start, "--to", to, "--output", "json")
        read: dict[str, Any] = json.loads(executable.command(dual.sandbox, *argv).stdout)
        return read

    for target, seen in ((OUTSIDE_V6, ADDRESS_V6), ("fd00:10:0:7::7", addresses[1])):
        told = explained(addresses[1], target)
        assert (told["verdict"], told["source"]) == ("delivered", seen)
    assert explained(OUTSIDE_V6, addresses[1])["verdict"] == "delivered"
    dual.sandbox.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/force_forwarding")
    lost = explained(OUTSIDE_V6, addresses[1])
    assert (lost["verdict"], "force_forwarding" in lost["reason"]) == ("dropped", True)


def test_status_names_both_addresses_of_a_pod_and_what_keeps_ipv6_from_it(
    dual: Node, executable: Executable
) -> None:
    _, addresses = attached(dual)

    def status() -> dict[str, Any]:
        read: dict[str, Any] = json.loads(
            executable.command(dual.sandbox, "status", "--output", "json").stdout
        )
        return read

    (seen,) = status()["attachments"]
    assert (seen["addresses"], seen["state"]) == (addresses, "ok")
    families = status()["pool"]["families"]
    assert {name: (each["assigned"], each["total"]) for name, each in families.items()} == {
        "ipv4": (1, 8),
        "ipv6": (1, 8),
    }
    dual.sandbox.run("ip", "-6", "route", "del", "default")
    assert "there is no IPv6 default route" in json.dumps(status()["problems"])


# The node


def test_forwarding_is_switched_on_for_the_links_concerned_and_for_no_other(dual: Node) -> None:
    attached(dual)

    def read(name: str) -> str:
        return dual.sandbox.run("cat", f"/proc/sys/net/ipv6/conf/{name}").stdout.strip()

    assert read("eth0/force_forwarding") == "1"
    assert {read(f"{each}/forwarding") for each in ("all", "default", "eth0")} == {"0"}
    (name,) = dual.veths()
    assert read(f"{name}/accept_ra") == "0"


def test_forwarding_is_as_before_when_it_is_restored(dual: Node) -> None:
    attached(dual)
    engine = Engine({})
    place = Path("/proc/sys/net")
    dual.sandbox.do(lambda: forwarding_v6.restore(engine, forwarding_v6.recorded(engine), place))
    read = dual.sandbox.run("cat", "/proc/sys/net/ipv6/conf/eth0/force_forwarding").stdout.strip()
    assert read == "0"
    assert not dual.sandbox.path(f"{RUN_DIR}/{forwarding_v6.BEFORE}").exists()


def test_on_a_kernel_that_forwards_for_all_links_or_none_the_operator_decides(dual: Node) -> None:
    """Before Linux 6.17: no setting of the link. IPv4 does not suffer from it."""
    dual.sandbox.run("mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6/conf/eth0")
    refused(dual.add(dual.sandbox.pod("c1")), 106, "the node does not forward IPv6")
    assert dual.held() == {}
    assert dual.residue() == []
    attached(dual, "c2", name="other", ipam={"families": None})
    dual.sandbox.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    pod, _ = attached(dual, "c3")
    assert ping(pod, OUTSIDE_V6)


def test_the_agent_puts_back_what_was_taken_away(bare_node: Callable[..., Node], new_agent: NewAgent) -> None:
    dual = with_both(bare_node())
    agent = new_agent(dual, reconcile_seconds=0.2)
    pod, _ = attached(dual)
    dual.sandbox.run("ip", "-6", "route", "del", str(FIRST_V6))
    eventually(lambda: str(FIRST_V6) in routes_v6(dual.sandbox), "the route is back")
    (name,) = dual.veths()
    dual.sandbox.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    eventually(lambda: ping(pod, OUTSIDE_V6), "IPv6 is back on the veth, with its route")
    dual.sandbox.run("nft", "flush", "ruleset")
    eventually(lambda: "fib" in dual.sandbox.run("nft", "list", "ruleset").stdout, "the source check is back")
    agent.stop()


def test_a_kernel_that_can_not_check_sources_of_ipv6_refuses_those_networks_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without nft_fib, say: a pod of IPv4 needs nothing of that."""
    replace = nftables.replace_table

    def without_fib(table: str, chains: Sequence[Chain]) -> None:
        if any("not the pod's address" in rule.comment for chain in chains for rule in chain.rules):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        replace(table, chains)

    monkeypatch.setattr(nftables, "replace_table", without_fib)
    node.sandbox.path(RUN_DIR).mkdir(exist_ok=True)

    def tries() -> list[str]:
        said = []
        for name, ipv6 in (("six", True), ("four", False)):
            try:
                packets.ensure_for(name, PodNetwork(masqueraded=True, ipv6=ipv6), Engine({}))
                said.append("")
            except KernelRefused as error:
                said.append(str(error))
        return [*said, *traffic.read_networks(Path(RUN_DIR))]

    refused, fine, *known = node.sandbox.ask(tries)
    assert "No such file" in refused
    assert not fine
    assert known == ["four"]
