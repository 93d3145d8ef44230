"""``azvnet explain`` of IPv6: what it says is what becomes of packets, hop by hop."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from tests.netns.calls import Executable
from tests.netns.node import Node, ping
from tests.netns.sandbox import Pod
from tests.netns.test_ipv6 import ADDRESS_V6, FIRST_V6, OUTSIDE_V6, ROUTER, attached, with_both

WEB = str(FIRST_V6)
INSIDE = "fd00:10:0:7::7"
"""An address of the virtual network, in another subnet."""


LINK_LOCAL = ["fe80::1", "fe80::1%eth0", "fe80::77%eth0", f"{ROUTER}%eth0"]


class Explain(Protocol):
    """Runs the command on the node."""

    def __call__(self, start: str, to: str, *options: str) -> dict[str, Any]: ...


@pytest.fixture
def dual(busy_node: Node) -> Node:
    """A node whose network gives its pods addresses of both families."""
    return with_both(busy_node)


@pytest.fixture
def web(dual: Node) -> Pod:
    return attached(dual)[0]


@pytest.fixture
def explain(dual: Node, executable: Executable) -> Explain:
    def run(start: str, to: str, *options: str) -> dict[str, Any]:
        argv = ("explain", "--from", start, "--to", to, "--output", "json", *options)
        done = executable.command(dual.sandbox, *argv)
        assert done.stderr == "", done.stderr
        read: dict[str, Any] = json.loads(done.stdout)
        return read

    return run


def ip6(node: Node, *lines: str) -> None:
    """Change something on the node."""
    for line in lines:
        node.sandbox.run("ip", "-6", *line.split())


def veth(node: Node) -> str:
    (name,) = node.veths()
    return name


def test_the_rules_of_ipv6_are_shown(web: Pod, explain: Explain) -> None:
    rules = [(hop["where"], hop["rule"]) for hop in explain(WEB, OUTSIDE_V6)["hops"]]
    main = "32766: from all lookup main"
    assert rules[0][1] == main
    assert rules[1:] == [("node", main), ("network", None)]
    assert explain(WEB, ADDRESS_V6)["hops"][-1]["rule"] == "0: from all lookup local"


def test_a_rule_of_the_node_leads_a_pods_packets_to_its_table(dual: Node, web: Pod, explain: Explain) -> None:
    ip6(
        dual,
        f"route add default via {ROUTER} dev eth0 table 100",
        f"rule add from {WEB} iif {veth(dual)} lookup 100 priority 500",
    )
    (node,) = [hop for hop in explain(WEB, OUTSIDE_V6)["hops"] if hop["where"] == "node"]
    assert node["rule"] == f"500: from {WEB}/128 iif {veth(dual)} lookup 100"


SOURCE_CHECK = {
    "its route is gone": ("route delete {pod}",),
    "its route leads elsewhere": ("route delete {pod}", "route add {pod} dev eth0"),
    "a rule refuses answers": ("rule add to {pod} unreachable priority 400",),
    "a rule prohibits answers": ("rule add to {pod} prohibit priority 400",),
    "a route discards answers": (
        "route add blackhole {pod} table 100",
        "rule add to {pod} lookup 100 priority 400",
    ),
    "a rule refuses them in a table": (
        "route add unreachable {pod} table 100",
        "rule add to {pod} lookup 100 priority 400",
    ),
}


@pytest.mark.parametrize("lines", SOURCE_CHECK.values(), ids=SOURCE_CHECK)
def test_a_pod_whose_answers_go_elsewhere_is_dropped_by_the_source_check(
    dual: Node, web: Pod, explain: Explain, lines: tuple[str, ...]
) -> None:
    assert ping(web, OUTSIDE_V6)
    assert explain(WEB, OUTSIDE_V6)["verdict"] == "delivered"
    ip6(dual, *(line.format(pod=WEB) for line in lines))
    for target in (OUTSIDE_V6, ADDRESS_V6):
        assert not ping(web, target)
        told = explain(WEB, target)
        assert (told["verdict"], "source check" in told["reason"]) == ("dropped", True), told


def test_a_rule_that_leads_answers_elsewhere_drops_what_the_pod_sends(
    dual: Node, web: Pod, explain: Explain
) -> None:
    ip6(dual, f"route add {WEB} dev eth0 table 100", "rule add from all lookup 100 priority 400")
    assert not ping(web, ADDRESS_V6)
    assert explain(WEB, ADDRESS_V6)["verdict"] == "dropped"
    dual.sandbox.run("nft", "delete", "table", "inet", "azvnet")
    assert explain(WEB, ADDRESS_V6)["verdict"] == "delivered", "there is no rule that checks it"


def test_of_several_addresses_of_the_node_it_is_the_one_that_the_kernel_chooses(
    dual: Node, web: Pod, explain: Explain
) -> None:
    """By RFC 6724: to the Internet a global address rather than a unique local one, in whatever order."""
    public = "2001:db8:1::4"
    dual.sandbox.batch(
        f"address add {public}/128 dev eth0 nodad",
        f"address delete {ADDRESS_V6}/128 dev eth0",
        f"address add {ADDRESS_V6}/128 dev eth0 nodad",
    )
    for target in (OUTSIDE_V6, "2600::1"):
        probed = explain(WEB, target, "--probe")
        assert (probed["probe"]["source"], explain(WEB, target)["source"]) == (public, public)


def test_a_pods_own_address_outside_is_noted(dual: Node, explain: Explain) -> None:
    attached(dual, ipMasq=False)
    (note,) = [each for each in explain(WEB, OUTSIDE_V6)["notes"] if "secondary" in each]
    assert note.startswith(f"{WEB} is a secondary address")
    assert explain(WEB, INSIDE)["notes"] == []


def test_chains_of_ipv6_are_named_and_those_of_ipv4_are_not(dual: Node, web: Pod, explain: Explain) -> None:
    for family, name in (("ip", "four"), ("ip6", "six"), ("inet", "both")):
        nat = "{ type nat hook postrouting priority srcnat; }"
        drop = "{ type filter hook forward priority filter; policy drop; }"
        dual.sandbox.run("nft", f"add table {family} {name}; add chain {family} {name} out {nat}")
        dual.sandbox.run("nft", f"add chain {family} {name} on {drop}")
    notes = explain(WEB, OUTSIDE_V6)["notes"]
    assert notes == [
        f"chain {chain} of nf_tables table {table} {words}"
        for chain, words in (
            ("on", "drops everything that its rules do not allow"),
            ("out", "may translate addresses"),
        )
        for table in ("ip6 six", "both")
    ]


def test_a_filter_of_ipv6_that_drops_is_named_by_explain_and_status(
    dual: Node, web: Pod, explain: Explain, executable: Executable
) -> None:
    chain = "{ type filter hook forward priority filter; policy drop; }"
    dual.sandbox.run("nft", f"add table ip6 filter; add chain ip6 filter FORWARD {chain}")
    dual.sandbox.run("ip6tables-legacy", "-P", "FORWARD", "DROP")
    dual.sandbox.run("ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
    status = json.loads(executable.command(dual.sandbox, "status", "--output", "json").stdout)
    for each in ("nf_tables table ip6 filter", "ip6tables-legacy"):
        named = f"chain FORWARD of {each}"
        assert f"{named} drops everything that its rules do not allow" in explain(WEB, OUTSIDE_V6)["notes"]
        assert f"{named} has policy DROP: over IPv6 pods reach only what its rules allow" in json.dumps(
            status["problems"]
        )


def test_what_drops_a_packet_without_a_route_is_not_a_setting_of_ipv4(
    dual: Node, web: Pod, explain: Explain
) -> None:
    dual.sandbox.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{veth(dual)}/forwarding")
    ip6(dual, "route delete default dev eth0")
    assert explain(WEB, OUTSIDE_V6)["reason"] == f"the node has no route to {OUTSIDE_V6}"


def test_a_link_that_does_not_forward_is_the_last_hop(dual: Node, web: Pod, explain: Explain) -> None:
    dual.sandbox.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{veth(dual)}/force_forwarding")
    told = explain(WEB, OUTSIDE_V6)
    assert f"{veth(dual)} does not forward IPv6" in told["reason"]
    assert told["hops"][-1]["action"] == "dropped: not forwarded"
    assert not ping(web, OUTSIDE_V6)


@pytest.mark.parametrize("to", LINK_LOCAL)
def test_what_a_pod_sends_to_a_link_local_address_ends_at_the_node(
    web: Pod, explain: Explain, to: str
) -> None:
    target = to.partition("%")[0]
    arrives = ping(web, f"{target}%eth0", "-I", WEB)
    assert arrives is (target == "fe80::1")
    told = explain(WEB, to, "--probe")
    assert told["verdict"] == ("delivered" if arrives else "dropped")
    assert told["probe"]["arrived"] is arrives


def test_what_the_node_sends_to_a_link_local_address_leaves_by_the_link_that_is_named(
    dual: Node, web: Pod, explain: Explain
) -> None:
    told = explain(ADDRESS_V6, f"{ROUTER}%eth0", "--probe")
    assert (told["verdict"], told["hops"][-1]["interface"]) == ("delivered", "eth0")
    assert (told["probe"]["arrived"], told["to"]) == (True, f"{ROUTER}%eth0")
    own = explain(ADDRESS_V6, f"fe80::1%{veth(dual)}")
    assert own["reason"] == "the node has the address itself"
    missing = explain(ADDRESS_V6, f"{ROUTER}%eth7")
    assert (missing["verdict"], missing["reason"]) == ("dropped", "the node has no link eth7")


def test_what_the_node_sends_to_a_link_local_address_needs_a_link(
    dual: Node, web: Pod, executable: Executable
) -> None:
    done = executable.command(dual.sandbox, "explain", "--from", ADDRESS_V6, "--to", ROUTER)
    assert done.returncode == 2
    assert f"name the link, for example {ROUTER}%eth0" in done.stderr


def test_a_link_that_a_pod_does_not_have_is_named(web: Pod, explain: Explain) -> None:
    told = explain(WEB, "fe80::1%eth7")
    assert (told["verdict"], told["reason"]) == ("dropped", "the pod has no interface eth7")


def test_only_a_link_local_address_has_a_link(dual: Node, executable: Executable) -> None:
    done = executable.command(dual.sandbox, "explain", "--from", ADDRESS_V6, "--to", f"{OUTSIDE_V6}%eth0")
    assert done.returncode == 2
    assert f"{OUTSIDE_V6} is not link-local" in done.stderr


def test_an_address_with_a_port_is_written_in_brackets(web: Pod, explain: Explain) -> None:
    assert explain(WEB, f"[{OUTSIDE_V6}]:443")["to"] == f"[{OUTSIDE_V6}]:443"
