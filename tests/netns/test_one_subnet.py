"""A node with two NICs in one subnet: one gateway, equal prefixes, and Azure still drops what leaves by the
NIC that does not own the source address.
"""

from __future__ import annotations

import pytest

from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, OUTSIDE, SUBNET, Node, ping
from tests.netns.sandbox import NETNS_DIR, Pod
from tests.netns.test_nics import QUICK, UPLINK_UNCLEAR, BareNode, list_nic, ours, wire
from tests.waiting import eventually

SECOND_ADDRESS, FIRST_OF_SECOND, OF_SECOND = "10.10.0.104", "10.10.0.105", "10.10.0.104/29"
NEIGHBOUR = "10.10.9.9"
"""A machine in the subnet."""
UNHELD = "10.10.0.107"
CONNECT = """
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, 9), 2, (sys.argv[1], 0))
    except OSError as error:
        print(type(error).__name__)
"""
"""Arguments: the own address, then others; prints for each why it is not reached."""
HOST_STATE = (
    *(("ip", "-4", "rule"), ("ip", "-4", "route", "show", "table", "all"), ("ip", "-o", "link")),
    ("sysctl", "-a", "-r", r"^net\.ipv4\.conf\.(eth0|eth1|all|default)\."),
)
ORDERS = [("eth0", "eth1"), ("eth1", "eth0")]
"""Which of two routes to the subnet comes first, and is the one that the node's own packets take."""


def plug_beside(node: Node, order: tuple[str, str] = ("eth0", "eth1")) -> None:
    """Attach a NIC in the subnet of the first."""
    wire(node, SECOND_ADDRESS, GATEWAY, NEIGHBOUR, OF_SECOND)
    node.sandbox.batch("address flush dev eth0")
    own = {"eth0": ADDRESS, "eth1": SECOND_ADDRESS}
    node.sandbox.batch(*(f"address add {own[link]}/16 dev {link}" for link in order))
    node.sandbox.batch(
        f"route add default via {GATEWAY} dev eth0 metric 100",
        f"route add default via {GATEWAY} dev eth1 metric 200",
    )


def list_beside(node: Node, *numbers: int) -> None:
    """Have the source list such addresses of the second NIC, beside what it lists of the first."""
    list_nic(node, SUBNET, SECOND_ADDRESS, [f"10.10.0.{number}" for number in numbers])


def beside(node: Node) -> dict[str, object]:
    """The netconf of the second NIC's network: a subnet does not tell them apart."""
    return node.conf(name="second", ipam={"nic": {"primary": False}})


def spoofed(node: Node) -> int:
    """Packets that the fabric dropped since another NIC than that of their source had sent them."""
    argv = ("ip", "netns", "exec", FABRIC, "nstat", "-azs", "TcpExtIPReversePathFilter")
    return int(node.sandbox.run(*argv).stdout.split("TcpExtIPReversePathFilter")[1].split()[0])


def strictness(node: Node, value: int) -> None:
    for name in ("all", "default", "eth0", "eth1"):
        node.sandbox.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={value}")


def node_sends(node: Node) -> list[str]:
    """How the node's own packets go, from each of its addresses."""
    asked = [
        ("ip", "route", "get", target, *source)
        for target in (NEIGHBOUR, OUTSIDE, GATEWAY)
        for source in ((), ("from", ADDRESS), ("from", SECOND_ADDRESS))
    ]
    return [node.sandbox.run(*argv).stdout for argv in asked]


def unreached(pod: Pod, *more: str) -> list[str]:
    every = (ADDRESS, SECOND_ADDRESS, GATEWAY, NEIGHBOUR, OUTSIDE, *more)
    return [each for each in every if not ping(pod, each)]


def sysctls(node: Node) -> str:
    return node.sandbox.run(*HOST_STATE[3]).stdout


@pytest.mark.parametrize("order", ORDERS, ids=lambda each: each[0])
@pytest.mark.parametrize("strict", [0, 1, 2])
def test_what_a_pod_sends_leaves_by_its_nic_whatever_the_source_check(
    bare_node: BareNode, strict: int, order: tuple[str, str]
) -> None:
    node = bare_node()
    plug_beside(node, order)
    list_beside(node, 105, 106, 107)
    strictness(node, strict)
    node.sandbox.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    before, sent = sysctls(node), node_sends(node)
    first, one, two = node.sandbox.pods("c1", "c2", "c3")
    usual = node.add(first).done().address
    addresses = [node.add(pod, conf=beside(node)).done().address for pod in (one, two)]
    assert (usual, *addresses) == ("10.10.0.5", FIRST_OF_SECOND, "10.10.0.106")
    assert unreached(first, *addresses) == []
    assert unreached(one, usual, addresses[1]) == []
    fabric = Pod("fabric", f"{NETNS_DIR}/{FABRIC}", node.sandbox)
    for source in (NEIGHBOUR, OUTSIDE):
        assert [ping(fabric, each, "-I", source) for each in (usual, *addresses)] == [True] * 3
    assert spoofed(node) == 0
    assert (sysctls(node), node_sends(node)) == (before, sent)


@pytest.mark.parametrize("strict", [0, 1])
def test_nothing_is_left_of_it_when_the_last_pods_are_gone(bare_node: BareNode, strict: int) -> None:
    node = bare_node()
    plug_beside(node)
    list_beside(node, 105, 106)
    strictness(node, strict)
    node.sandbox.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    before = [node.sandbox.run(*argv).stdout for argv in HOST_STATE]
    first, other = node.sandbox.pods("c1", "c2")
    node.add(first).done()
    node.add(other, conf=beside(node)).done()
    node.delete(other, conf=beside(node)).done()
    assert unreached(first) == []
    node.delete(first).done()
    assert [node.sandbox.run(*argv).stdout for argv in HOST_STATE] == before


@pytest.mark.parametrize("strict", [0, 1])
def test_pods_of_the_nic_that_the_node_uses_itself_need_no_rules(bare_node: BareNode, strict: int) -> None:
    node = bare_node()
    plug_beside(node)
    list_beside(node, 105, 106)
    strictness(node, strict)
    before = node.sandbox.run("ip", "rule").stdout
    pods = node.sandbox.pods("c1", "c2")
    for pod in pods:
        node.add(pod).done()
    assert node.sandbox.run("ip", "rule").stdout == before
    assert unreached(pods[0]) == []


def test_rules_of_the_operator_that_do_the_same_are_enough_under_a_strict_check(bare_node: BareNode) -> None:
    node = bare_node()
    plug_beside(node)
    list_beside(node, 105, 106)
    strictness(node, 1)
    node.sandbox.batch(
        f"route add default via {GATEWAY} dev eth1 table 200", f"rule add from {OF_SECOND} lookup 200"
    )
    pods = node.sandbox.pods("c1", "c2")
    for pod in pods:
        node.add(pod, conf=beside(node)).done()
    assert [each for each in ours(node) if "from all" not in each] == []
    assert unreached(pods[0]) == []
    assert spoofed(node) == 0


def test_a_subnet_does_not_tell_the_nics_apart_and_the_error_says_what_does(bare_node: BareNode) -> None:
    node = bare_node()
    plug_beside(node)
    list_beside(node, 105)
    node.add(node.sandbox.pod("c1")).done()  # the source is read
    failed = node.add(node.sandbox.pod("c2"), conf=node.conf(ipam={"subnet": SUBNET}))
    assert failed.code == UPLINK_UNCLEAR
    assert "2 NICs fit" in failed.msg
    assert "ipam.nic" in failed.error["details"]


@pytest.mark.with_agent("it is the agent's own work")
@pytest.mark.parametrize("order", ORDERS, ids=lambda each: each[0])
def test_an_address_that_no_pod_has_is_answered_on_either_nic(
    bare_node: BareNode, new_agent: NewAgent, order: tuple[str, str]
) -> None:
    """The node's route to it leads over one of both NICs, whichever it came by: the fabric would drop it."""
    node = bare_node()
    plug_beside(node, order)
    list_beside(node, 105, 106, 107)
    new_agent(node, **QUICK)
    pods = node.sandbox.pods("c1", "c2")
    node.add(pods[0]).done()
    node.add(pods[1], conf=beside(node)).done()

    def answers() -> list[str]:
        argv = ("ip", "netns", "exec", FABRIC, "python3", "-c", CONNECT, NEIGHBOUR, UNHELD, "10.10.0.9")
        return node.sandbox.run(*argv).stdout.splitlines()

    eventually(lambda: answers() == ["ConnectionRefusedError"] * 2, "the node answers for both NICs")
    before = spoofed(node)
    assert answers() == ["ConnectionRefusedError"] * 2
    assert spoofed(node) == before


@pytest.mark.with_agent("it is the agent's own work")
def test_a_nic_that_is_added_in_the_subnet_takes_nothing_of_pods_of_the_first(
    bare_node: BareNode, new_agent: NewAgent
) -> None:
    """Its route to the subnet may come in front of that of the first."""
    node = bare_node()
    new_agent(node, **QUICK)
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    plug_beside(node, ("eth1", "eth0"))
    list_beside(node, 105)
    eventually(lambda: not unreached(pod), "what the pod sends leaves by the first NIC")
    before = spoofed(node)
    assert unreached(pod) == []
    assert spoofed(node) == before


@pytest.mark.with_agent("it is the agent's own work")
def test_a_nic_of_the_subnet_that_is_removed_leaves_nothing_to_the_other(
    bare_node: BareNode, new_agent: NewAgent
) -> None:
    """Both subnets are the same, so the other NIC would carry everything, and Azure would drop it."""
    node = bare_node()
    plug_beside(node)
    list_beside(node, 105, 106)
    new_agent(node, **QUICK)
    first, pod = node.sandbox.pods("c1", "c2")
    node.add(first).done()
    node.add(pod, conf=beside(node)).done()
    assert unreached(pod) == []
    node.sandbox.batch("link delete eth1")
    assert [ping(pod, each) for each in (NEIGHBOUR, OUTSIDE)] == [False, False]
    assert unreached(first, FIRST_OF_SECOND) == [SECOND_ADDRESS]
    assert spoofed(node) == 0
    assert [each for each in routes_of_refusal(node) if "unreachable" in each]


def routes_of_refusal(node: Node) -> list[str]:
    printed = node.sandbox.run("ip", "route", "show", "table", "all", "proto", "155").stdout
    return printed.splitlines()
