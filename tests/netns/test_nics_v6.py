"""A node with two NICs whose pods have IPv6 addresses: these packets too leave by the NIC that owns them."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.node import Node as Engine
from ipam.model import SourceConfig
from tests.netns.calls import Executable
from tests.netns.conftest import NewAgent
from tests.netns.node import FABRIC, INTERFACES, RUN_DIR, Node, ping
from tests.netns.sandbox import NETNS_DIR, Pod
from tests.netns.test_explain_v6 import ip6
from tests.netns.test_ipv6 import ADDRESS_V6, DUAL, FIRST_V6, OUTSIDE_V6, ROUTER, ips, list_both, wire_v6
from tests.netns.test_nics import (
    QUICK,
    SECOND_ADDRESS,
    SECOND_MAC,
    SECOND_SUBNET,
    UPLINK_UNCLEAR,
    BareNode,
    are_reached,
    plug,
    table,
)
from tests.waiting import eventually

SECOND_PREFIX = "fd00:10:0:2::"
SECOND_V6, FIRST_OF_SECOND = f"{SECOND_PREFIX}4", IPv6Address(f"{SECOND_PREFIX}5")
NEIGHBOUR_V6 = f"{SECOND_PREFIX}99"
"""A machine in the second NIC's subnet."""
OTHER_ROUTER = "fe80::5678"
HOST_STATE = (
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "-o", "link"),
    *(
        ("sh", "-c", f"grep -H . $(find /proc/sys/net/ipv6/conf/{link} -type f ! -name stable_secret)")
        for link in ("eth0", "eth1", "all", "default")
    ),
)


def plug_v6(node: Node) -> None:
    """The second NIC, with a router on it. The fabric drops what another NIC than the owner's sends."""
    plug(node)
    own = "fe80::20d:3aff:fe00:2"
    node.sandbox.batch(
        f"address add {ROUTER}/64 dev wire1 nodad",
        f"address replace {NEIGHBOUR_V6}/128 dev lo nodad",
        f"route add {SECOND_PREFIX}/64 via {own} dev wire1",
        namespace=FABRIC,
    )
    node.sandbox.batch(
        f"address replace {own}/64 dev eth1 nodad", f"address add {SECOND_V6}/128 dev eth1 nodad"
    )
    route_v6(node)
    filters = "".join(
        f"chain {wire} {{ ip6 saddr != {{ fe80::/10, {subnet} }} counter drop; }}\n"
        for wire, subnet in (("wire", "fd00:10:0:1::/64"), ("wire1", f"{SECOND_PREFIX}/64"))
    )
    jump = 'iifname vmap { "wire" : jump wire, "wire1" : jump wire1 }'
    hook = f"chain input {{ type filter hook prerouting priority -300; {jump}; }}"
    node.sandbox.run(
        *("ip", "netns", "exec", FABRIC, "nft", f"table ip6 owners {{\n{filters}{hook}\n}}"),
    )


def route_v6(node: Node, router: str = ROUTER) -> None:
    """The default route that the second NIC's router announces, as the kernel sets it (``proto ra``)."""
    ip6(node, f"route add default via {router} dev eth1 proto ra metric 2048")


def list_second_v6(node: Node, count: int = 3) -> None:
    """Have the source list so many addresses of each family of the second NIC, beside those of the first."""
    list_both(node, 8, 8)
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    own = [{"Address": SECOND_ADDRESS, "IsPrimary": True}, {"Address": SECOND_V6, "IsPrimary": True}]
    four = {
        "Prefix": SECOND_SUBNET,
        "IPAddresses": [own[0], *({"Address": f"10.20.0.{5 + n}"} for n in range(count))],
    }
    six = {
        "Prefix": f"{SECOND_PREFIX}/64",
        "IPAddresses": [own[1], *({"Address": str(FIRST_OF_SECOND + n)} for n in range(count))],
    }
    mac = SECOND_MAC.replace(":", "").upper()
    second = {"MacAddress": mac, "IsPrimary": False, "IPSubnets": [four, six]}
    path.write_text(json.dumps({"Interfaces": [document["Interfaces"][0], second]}))


def _prepared(node: Node) -> Node:
    wire_v6(node)
    plug_v6(node)
    list_second_v6(node)
    node.netconf["ipam"]["families"] = DUAL
    return node


@pytest.fixture
def two_nics(busy_node: Node) -> Node:
    node = _prepared(busy_node)
    node.pool(lambda pool: pool.refresh(SourceConfig("file"), deadline=5, force=True))
    return node


@pytest.fixture
def bare_two_nics(bare_node: BareNode) -> Node:
    return _prepared(bare_node())


def second(node: Node, **more: Any) -> dict[str, Any]:
    return node.conf(name="second", master="eth1", **more)


def ours(node: Node) -> list[str]:
    """azvnet's rules of IPv6, as ``ip -6 rule`` prints them."""
    printed = node.sandbox.run("ip", "-6", "rule").stdout.splitlines()
    return [" ".join(line.split()) for line in printed if "proto 155" in line]


def routes(node: Node) -> list[str]:
    """What is in the second NIC's table of IPv6."""
    argv = ("ip", "-6", "route", "show", "table", str(table(node)))
    printed = node.sandbox.run(*argv, check=False).stdout
    return [" ".join(line.split()) for line in printed.splitlines()]


def unreached(pod: Pod, *more: str) -> list[str]:
    """What the pod does not reach of what any pod does."""
    every = (ADDRESS_V6, SECOND_V6, NEIGHBOUR_V6, OUTSIDE_V6, *more)
    return [each for each in every if not ping(pod, each)]


def added(node: Node, pod: Pod, conf: dict[str, Any] | None = None, **how: Any) -> str:
    """The IPv6 address of a new pod."""
    result = node.add(pod, conf=conf, **how).done().result
    return next(each.partition("/")[0] for each in ips(result) if ":" in each)


@pytest.mark.parametrize("families", [DUAL, ["IPv6"]], ids=["both families", "IPv6 alone"])
def test_pods_of_both_nics_reach_everybody(two_nics: Node, families: list[str]) -> None:
    node = two_nics
    conf = {"ipam": {"families": families}}
    first, one, two = node.sandbox.pods("c1", "c2", "c3")
    usual = added(node, first, node.conf(**conf))
    addresses = [added(node, pod, second(node, **conf)) for pod in (one, two)]
    assert usual == str(FIRST_V6)
    assert addresses == [str(FIRST_OF_SECOND), str(FIRST_OF_SECOND + 1)]
    assert unreached(first, *addresses) == []
    assert unreached(one, usual, addresses[1]) == []
    are_reached(node, [usual, *addresses], outside=(NEIGHBOUR_V6, OUTSIDE_V6), own=(ADDRESS_V6, SECOND_V6))


def test_one_table_and_the_fewest_rules_serve_all_pods_of_a_nic(two_nics: Node) -> None:
    node = two_nics
    for pod in node.sandbox.pods("c1", "c2"):
        added(node, pod, second(node))
    assert ours(node) == [
        "30154: from all lookup main suppress_prefixlength 127 suppress_ifgroup default proto 155",
        f"30155: from {SECOND_PREFIX}5 lookup {table(node)} proto 155",
        f"30155: from {SECOND_PREFIX}6/127 lookup {table(node)} proto 155",
        f"30156: from {SECOND_PREFIX}5 unreachable proto 155",
        f"30156: from {SECOND_PREFIX}6/127 unreachable proto 155",
    ], "and none for the node's own address"
    assert routes(node) == [f"default via {ROUTER} dev eth1 proto 155 metric 1024 onlink pref medium"]


@pytest.mark.parametrize("metric", [1024, 2048], ids=["of another preference", "of the same preference"])
def test_with_a_router_on_each_nic_pods_do_not_leave_by_turns(two_nics: Node, metric: int) -> None:
    """The kernel takes another router when one does not answer: what it says at the ADD does not hold."""
    node = two_nics
    ip6(
        node,
        "route del default dev eth0",
        f"route append default via {ROUTER} dev eth0 proto ra metric {metric}",
    )
    pods = node.sandbox.pods("c1", "c2")
    added(node, pods[0])
    added(node, pods[1], second(node))
    tables = {each.partition(" lookup 155")[2].split()[0] for each in ours(node) if " lookup 155" in each}
    assert len(tables) == 2, "each NIC has one, the first one too"
    for link in ("eth0", "eth1"):
        ip6(node, f"neighbour replace {ROUTER} dev {link} nud failed")
        assert [unreached(pod) for pod in pods] == [[], []]


def test_pods_of_the_only_default_route_need_nothing(two_nics: Node) -> None:
    node = two_nics
    ip6(node, "route del default dev eth1")
    before = node.sandbox.run("ip", "-6", "rule").stdout
    pod = node.sandbox.pod("c1")
    added(node, pod)
    assert node.sandbox.run("ip", "-6", "rule").stdout == before
    assert ping(pod, OUTSIDE_V6)


def test_a_nic_without_a_router_is_an_error_that_says_what_is_missing(two_nics: Node) -> None:
    node = two_nics
    ip6(node, "route del default dev eth1")
    failed = node.add(node.sandbox.pod("c1"), conf=second(node))
    assert failed.code == UPLINK_UNCLEAR
    assert "eth1, the NIC of pods' addresses, has no IPv6 default route" in failed.msg
    assert not node.residue()
    status = node.status(conf=second(node))
    assert (status.code, "no IPv6 default route" in status.msg) == (51, True)
    only_v4 = second(node, ipam={"families": ["IPv4"]})
    node.add(node.sandbox.pod("c2"), conf=only_v4).done()
    node.status(conf=only_v4).done()


def test_a_nic_without_an_address_of_ipv6_is_an_error(two_nics: Node) -> None:
    """What leaves the virtual network would leave with an address of the other NIC, which Azure drops."""
    node = two_nics
    node.sandbox.batch(f"address del {SECOND_V6}/128 dev eth1")
    failed = node.add(node.sandbox.pod("c1"), conf=second(node))
    assert (failed.code, "has no IPv6 address" in failed.msg) == (UPLINK_UNCLEAR, True)


def test_on_a_node_that_no_router_leads_out_of_pods_are_made_and_follow_the_router(
    bare_two_nics: Node, new_agent: NewAgent
) -> None:
    node = bare_two_nics
    new_agent(node, **QUICK)
    ip6(node, "route del default dev eth1", "route del default dev eth0")
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    assert ours(node) == []
    ip6(node, f"route add default via {ROUTER} dev eth0 metric 512")
    route_v6(node)
    eventually(lambda: not unreached(pod), "the pod reaches everybody")


def test_another_router_is_followed_by_the_agent(bare_two_nics: Node, new_agent: NewAgent) -> None:
    node = bare_two_nics
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    _another_router(node)
    eventually(lambda: not unreached(pod), "the pod's packets leave by the new router")
    assert routes(node)[0].startswith(f"default via {OTHER_ROUTER} dev eth1 ")


@pytest.mark.alone("an agent follows without an ADD")
def test_another_router_is_followed_by_the_next_add(two_nics: Node) -> None:
    node = two_nics
    pods = node.sandbox.pods("c1", "c2")
    added(node, pods[0], second(node))
    _another_router(node)
    assert not ping(pods[0], OUTSIDE_V6)
    added(node, pods[1], second(node))
    assert [unreached(pod) for pod in pods] == [[], []]


def _another_router(node: Node) -> None:
    """The router of the second NIC has another address from now on."""
    node.sandbox.batch(
        f"address del {ROUTER}/64 dev wire1",
        f"address add {OTHER_ROUTER}/64 dev wire1 nodad",
        namespace=FABRIC,
    )
    ip6(node, "route del default dev eth1")
    route_v6(node, OTHER_ROUTER)
    node.sandbox.run("ip", "-6", "neighbour", "flush", "dev", "eth1")


def test_rules_of_the_operator_that_do_the_same_are_enough(two_nics: Node) -> None:
    node = two_nics
    ip6(
        node,
        f"route add default via {ROUTER} dev eth1 table 200",
        f"rule add from {SECOND_PREFIX}/64 lookup 200",
    )
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    assert [each for each in ours(node) if "from all" not in each] == []
    assert unreached(pod) == []


def test_a_rule_in_front_that_leads_elsewhere_is_an_error(two_nics: Node) -> None:
    node = two_nics
    ip6(
        node,
        f"route add default via {ROUTER} dev eth0 table 200",
        f"rule add from {SECOND_PREFIX}/64 lookup 200 priority 9",
    )
    failed = node.add(node.sandbox.pod("c1"), conf=second(node))
    assert (failed.code, "does not leave by eth1" in failed.msg) == (UPLINK_UNCLEAR, True)
    assert "ip -6 rule" in failed.error["details"]
    assert not node.residue()


def test_a_rule_of_the_node_that_takes_answers_to_pods_is_preceded(two_nics: Node) -> None:
    """As cloud agents make them: what the node sends from its own address follows a table without pods."""
    node = two_nics
    ip6(node, f"route add default via {ROUTER} dev eth0 table 200", f"rule add from {ADDRESS_V6} lookup 200")
    pod = node.sandbox.pod("c1")
    address = added(node, pod)
    assert ping(pod, ADDRESS_V6)
    done = node.sandbox.run("ping", "-n", "-c1", "-W1", "-I", ADDRESS_V6, address, check=False)
    assert done.returncode == 0


def test_a_table_of_somebody_else_is_left_alone(two_nics: Node) -> None:
    node = two_nics
    ip6(node, f"route add {OUTSIDE_V6} via {ROUTER} dev eth0 table {table(node)}")
    before = routes(node)
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    assert routes(node) == before
    leading = [each for each in ours(node) if each.startswith("30155:")]
    assert all(f"lookup {table(node) + 100000} " in each for each in leading)
    assert unreached(pod) == []


def test_with_the_last_pod_of_the_nic_rules_and_tables_are_gone(two_nics: Node) -> None:
    node = two_nics
    before = [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]]
    pods = node.sandbox.pods("c1", "c2")
    for pod in pods:
        added(node, pod, second(node))
    node.delete(pods[0], conf=second(node)).done()
    assert unreached(pods[1]) == []
    node.delete(pods[1], conf=second(node)).done()
    assert (ours(node), routes(node)) == ([], [])
    assert [node.sandbox.run(*argv).stdout for argv in HOST_STATE[:2]] == before
    assert not list(node.sandbox.path(RUN_DIR).glob("nics*.json"))


def test_each_interface_of_a_pod_answers_by_its_own_nic(two_nics: Node) -> None:
    """As Multus makes them."""
    node = two_nics
    pod = node.sandbox.pod("c1")
    addresses = [added(node, pod), added(node, pod, second(node), ifname="net1")]
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", node.sandbox)
    for address in addresses:
        for source in (OUTSIDE_V6, NEIGHBOUR_V6):
            assert [ping(fabric, address, "-I", source) for _ in range(3)] == [True] * 3
        assert ping(pod, OUTSIDE_V6, "-I", address)
    node.delete(pod).done()
    assert unreached(pod) == [], "the other one is left"


@pytest.mark.alone("with an agent they are back before anybody looks")
@pytest.mark.parametrize("gone", ["rule", "route"])
def test_what_is_missing_is_named_and_the_next_add_puts_it_back(two_nics: Node, gone: str) -> None:
    node = two_nics
    pods = node.sandbox.pods("c1", "c2")
    result = node.add(pods[0], conf=second(node)).done()

    def named() -> tuple[str, ...]:
        return node.sandbox.ask(lambda: look(Engine({})).in_the_way)

    assert named() == ()
    if gone == "rule":
        node.sandbox.run("ip", "-6", "rule", "flush", "proto", "155")
    else:
        node.sandbox.run("ip", "-6", "route", "flush", "table", str(table(node)))
    (words,) = [each for each in named() if "NIC" in each]
    of = f"the IPv6 routing rules or the IPv6 table of NIC {SECOND_MAC} (eth1) are incomplete"
    assert words.startswith(of)
    assert words in node.check(pods[0], result, conf=second(node)).done().stderr
    added(node, pods[1], second(node))
    assert named() == ()
    assert unreached(pods[0]) == []


def test_the_agent_restores_what_networkd_flushes(bare_two_nics: Node, new_agent: NewAgent) -> None:
    node = bare_two_nics
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    before = ours(node), routes(node)
    node.sandbox.run("ip", "-6", "rule", "flush", "proto", "155")
    node.sandbox.run("ip", "-6", "route", "flush", "table", str(table(node)))
    eventually(lambda: (ours(node), routes(node)) == before, "rules and table are back")
    assert unreached(pod) == []


def test_a_nic_that_is_removed_and_added_again_carries_its_pods_again(
    bare_two_nics: Node, new_agent: NewAgent
) -> None:
    """Meanwhile nothing of them leaves by the other NIC."""
    node = bare_two_nics
    new_agent(node, **QUICK)
    pods = node.sandbox.pods("c1", "c2")
    added(node, pods[0], second(node))
    added(node, pods[1])
    old = table(node)
    node.sandbox.batch("link delete eth1")
    assert not ping(pods[0], OUTSIDE_V6)
    assert ping(pods[1], OUTSIDE_V6)
    node.sandbox.batch("link add spacer type ifb")  # the NIC gets another index
    node.sandbox.run("ip", "netns", "exec", FABRIC, "nft", "delete", "table", "ip6", "owners")
    plug_v6(node)
    assert table(node) != old
    eventually(lambda: not unreached(pods[0]), "the pod of the NIC that came back reaches everybody")
    eventually(lambda: not [each for each in ours(node) if f"lookup {old} " in each], "none of the old one")


def test_show_and_explain_name_the_table_of_the_nic(two_nics: Node, executable: Executable) -> None:
    node = two_nics
    address = added(node, node.sandbox.pod("c1"), second(node))
    (shown,) = json.loads(executable.command(node.sandbox, "show", address, "--output", "json").stdout)[
        "attachments"
    ]
    assert [each["nicTable"] for each in shown["addresses"]] == [table(node)] * 2
    argv = ("explain", "--from", address, "--to", OUTSIDE_V6, "--output", "json")
    told = json.loads(executable.command(node.sandbox, *argv).stdout)
    assert (told["verdict"], told["source"]) == ("delivered", SECOND_V6)
    assert told["hops"][1]["rule"] == f"30155: from {address}/128 lookup {table(node)}"
    assert told["hops"][2]["interface"] == "eth1"


@pytest.mark.alone("the command is the same")
def test_uninstall_leaves_the_node_as_it_was(
    bare_two_nics: Node, executable: Executable, tmp_path: Path
) -> None:
    node = bare_two_nics
    node.sandbox.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    before = [node.sandbox.run(*argv).stdout for argv in HOST_STATE]
    pod = node.sandbox.pod("c1")
    added(node, pod, second(node))
    places = [f"--{name}={tmp_path}/{name}" for name in ("prefix", "bin-dir", "conf-dir")]

    def uninstall(option: str) -> str:
        return executable.command(node.sandbox, "uninstall", *places, option).stdout

    assert f"{table(node)} (IPv6) stays" in uninstall("--force")
    assert unreached(pod) == []
    pod.remove()  # its DEL never comes
    eventually(lambda: not node.veths(), "the kernel has taken the pair away")
    assert f"{table(node)} (IPv6) was removed" in uninstall("--purge")
    assert [node.sandbox.run(*argv).stdout for argv in HOST_STATE] == before


LISTED = Callable[[], Any]


@pytest.mark.alone("the addresses come from the document alone")
def test_a_block_takes_one_rule(bare_two_nics: Node) -> None:
    """Of a /112 the first 256 addresses are used (azure-platform: one block of IPv6 on a NIC)."""
    node = bare_two_nics
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    block = IPv6Network(f"{SECOND_PREFIX}1:0/112")
    document["Interfaces"][1]["IPSubnets"][1]["IPAddresses"][1:] = [{"Address": str(block)}]
    path.write_text(json.dumps(document))
    pod = node.sandbox.pod("c1")
    assert IPv6Address(added(node, pod, second(node))) in block
    assert {each.split()[2] for each in ours(node)[1:]} == {f"{SECOND_PREFIX}1:0/120"}
    assert unreached(pod) == []
