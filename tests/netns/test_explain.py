"""``azvnet explain``: the way that it shows is the one that packets take, and looking changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.calls import Executable
from tests.netns.node import ADDRESS, GATEWAY, OUTSIDE, Node, ping, pod_args
from tests.netns.sandbox import Pod
from tests.waiting import eventually

Explain = Callable[..., subprocess.CompletedProcess[str]]
DELIVERED, DROPPED, SEVERAL = 0, 1, 2
FIRST, SECOND = "10.10.0.5", "10.10.0.6"


@pytest.fixture
def explain(node: Node, executable: Executable) -> Explain:
    """Runs the command on the node."""

    def run(start: str, to: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ("explain", "--from", start, "--to", to, *options)
        return executable.command(node.sandbox, *argv, LANG="C.UTF-8")

    return run


@pytest.fixture
def pods(node: Node) -> list[Pod]:
    made = node.sandbox.pods("c1", "c2")
    for name, pod in zip(("web", "db"), made, strict=True):
        node.add(pod, args=pod_args(pod.container_id, namespace="prod", name=name)).done()
    return made


def document(done: subprocess.CompletedProcess[str], code: int = DELIVERED) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (code, ""), done
    read = json.loads(done.stdout)
    assert isinstance(read, dict)
    return read


def explained(explain: Explain, start: str, to: str, *options: str, code: int = DELIVERED) -> dict[str, Any]:
    return document(explain(start, to, "--output", "json", *options), code)


def ways(read: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(hop["where"], hop["interface"], hop["action"]) for hop in read["hops"]]


def veth(node: Node, address: str) -> str:
    return node.host_routes()[address]


def test_between_two_pods_of_a_node(node: Node, pods: list[Pod], explain: Explain) -> None:
    read = explained(explain, "prod/web", SECOND)
    first, second = veth(node, FIRST), veth(node, SECOND)
    assert ways(read) == [
        ("pod prod/web", "eth0", "sent to the node"),
        ("node", first, f"forwarded by {second}"),
        ("pod prod/db", "eth0", "delivered"),
    ]
    assert [hop["route"] for hop in read["hops"]] == [
        "default via 169.254.1.1 dev eth0",
        f"{SECOND} dev {second} scope link",
        f"{SECOND} dev lo",
    ]
    assert [hop["rule"] for hop in read["hops"]] == [
        "32766: from all lookup main",
        "32766: from all lookup main",
        "0: from all lookup local",
    ]
    assert {key: read[key] for key in ("from", "to", "protocol", "verdict", "source", "reason", "notes")} == {
        "from": "prod/web",
        "to": SECOND,
        "protocol": "icmp",
        "verdict": "delivered",
        "source": FIRST,
        "reason": "pod prod/db has the address",
        "notes": [],
    }


@pytest.mark.parametrize("start", ["web", "prod/web", FIRST, "c1"])
def test_a_pod_is_named_by_its_name_its_address_or_its_container(
    pods: list[Pod], explain: Explain, start: str
) -> None:
    assert explained(explain, start, f"{SECOND}:443")["source"] == FIRST


def test_out_of_the_node(node: Node, pods: list[Pod], explain: Explain) -> None:
    read = explained(explain, "web", f"{OUTSIDE}:443")
    assert ways(read)[1:] == [
        ("node", veth(node, FIRST), "forwarded by eth0"),
        ("network", "eth0", f"leaves the node to gateway {GATEWAY} as {ADDRESS}"),
    ]
    assert (read["protocol"], read["to"], read["source"]) == ("tcp", f"{OUTSIDE}:443", ADDRESS)
    assert explained(explain, "web", GATEWAY)["source"] == FIRST, "that is inside"
    assert explained(explain, "web", f"{OUTSIDE}:53", "--udp")["protocol"] == "udp"


def test_out_of_a_node_with_several_addresses_the_source_is_the_one_beside_the_gateway(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    node.sandbox.batch(
        f"address delete {ADDRESS}/16 dev eth0",
        "address add 192.168.200.4/24 dev eth0",
        f"address add {ADDRESS}/16 dev eth0",
        f"route add default via {GATEWAY} dev eth0",
    )
    read = explained(explain, "web", OUTSIDE, "--probe")
    assert read["probe"]["source"] == ADDRESS
    assert explained(explain, "web", OUTSIDE)["source"] == ADDRESS


def test_to_the_node_and_from_it(node: Node, pods: list[Pod], explain: Explain) -> None:
    read = explained(explain, "web", ADDRESS)
    assert ways(read)[-1] == ("node", veth(node, FIRST), "delivered to the node")
    back = explained(explain, ADDRESS, FIRST)
    assert ways(back) == [
        ("node", "lo", f"sent by {veth(node, FIRST)}"),
        ("pod prod/web", "eth0", "delivered"),
    ]


def test_from_outside_to_a_pod(node: Node, pods: list[Pod], explain: Explain) -> None:
    read = explained(explain, OUTSIDE, FIRST)
    assert ways(read) == [
        ("network", "eth0", f"arrives from {OUTSIDE}"),
        ("node", "eth0", f"forwarded by {veth(node, FIRST)}"),
        ("pod prod/web", "eth0", "delivered"),
    ]


def test_a_pod_and_itself(pods: list[Pod], explain: Explain) -> None:
    assert ways(explained(explain, "web", FIRST)) == [("pod prod/web", "lo", "delivered to itself")]


Break = Callable[[Node, list[Pod]], object]
BROKEN: dict[str, tuple[Break, str]] = {
    "the node has no route": (
        lambda node, _: node.sandbox.batch("route delete default"),
        f"the node has no route to {OUTSIDE}",
    ),
    "a route makes it unreachable": (
        lambda node, _: node.sandbox.batch(f"route add unreachable {OUTSIDE}"),
        f"a route of the node makes {OUTSIDE} unreachable",
    ),
    "a rule prohibits it": (
        lambda node, _: node.sandbox.batch(f"rule add from {FIRST} prohibit"),
        f"a route or rule of the node prohibits {OUTSIDE}",
    ),
    "the host veth does not forward": (
        lambda node, _: node.sandbox.run("sysctl", "-q", f"net.ipv4.conf.{veth(node, FIRST)}.forwarding=0"),
        "does not forward",
    ),
    "the source check refuses it": (
        lambda node, _: node.sandbox.batch(f"route replace {FIRST}/32 dev eth0 proto static"),
        f"refuses {FIRST}",
    ),
    "the uplink is down": (lambda node, _: node.sandbox.batch("link set eth0 down"), "the node has no route"),
    "the host veth is down": (
        lambda node, _: node.sandbox.batch(f"link set {veth(node, FIRST)} down"),
        "is down",
    ),
    "the pod has no route": (
        lambda node, _: node.sandbox.batch("route delete default", namespace="c1"),
        f"the pod has no route to {OUTSIDE}",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_drops_a_packet_is_named_and_it_is_really_dropped(
    node: Node, pods: list[Pod], explain: Explain, what: str
) -> None:
    damage, reason = BROKEN[what]
    assert ping(pods[0], OUTSIDE)
    damage(node, pods)
    read = explained(explain, "c1", OUTSIDE, code=DROPPED)
    assert read["verdict"] == "dropped"
    assert reason in read["reason"]
    assert not ping(pods[0], OUTSIDE)


def test_a_pod_that_lost_its_address_does_not_get_the_packet(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    node.sandbox.batch(f"address delete {SECOND}/32 dev eth0", namespace="c2")
    read = explained(explain, "web", SECOND, code=DROPPED)
    assert read["reason"] == f"the pod does not have {SECOND} (see `azvnet status`)"


def test_what_leaves_by_another_nic_than_its_own_is_dropped_by_azure(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    node.sandbox.batch(
        "link add eth1 type ifb",
        "link set eth1 up",
        "route add default dev eth1 table 200",
        f"rule add from {FIRST} lookup 200 pref 1000",
    )
    read = explained(explain, "web", OUTSIDE, code=DROPPED)
    assert f"{FIRST} belongs to NIC " in read["reason"]
    assert "leaves by eth1" in read["reason"]
    assert read["hops"][1]["rule"] == f"1000: from {FIRST}/32 lookup 200"


def test_the_nodes_source_rules_do_not_take_packets_to_pods(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    node.sandbox.batch(
        "route add default dev eth0 table 200", f"rule add from {ADDRESS} lookup 200 pref 1000"
    )
    pod = node.sandbox.pod("c3")
    node.add(pod, args=pod_args(pod.container_id, namespace="prod", name="new")).done()
    read = explained(explain, ADDRESS, "10.10.0.7")
    assert read["hops"][0]["rule"] == "999: from all lookup main suppress_prefixlength 31"
    outside = explained(explain, ADDRESS, OUTSIDE)
    assert outside["hops"][0]["rule"] == f"1000: from {ADDRESS}/32 lookup 200"


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("169.254.169.254:80", "the metadata service is closed to pods (setting platform.imds)"),
        ("168.63.129.16:80", "port 80 of the wireserver is closed to pods (setting platform.wireserver)"),
        ("168.63.129.16:32526", "port 32526 of the wireserver is closed to pods"),
    ],
)
def test_a_service_of_the_platform_that_is_closed_is_named(
    pods: list[Pod], explain: Explain, to: str, reason: str
) -> None:
    read = explained(explain, "web", to, code=DROPPED)
    assert (read["verdict"], read["reason"][: len(reason)]) == ("dropped", reason)
    assert read["hops"][-1]["action"] == f"refused: {read['reason']}"


def test_dns_of_the_platform_is_open_and_the_node_itself_may_use_it_all(
    pods: list[Pod], explain: Explain
) -> None:
    assert explained(explain, "web", "168.63.129.16:53", "--udp")["source"] == ADDRESS
    assert explained(explain, ADDRESS, "169.254.169.254:80")["verdict"] == "delivered"


def test_a_table_that_is_gone_is_noted(node: Node, pods: list[Pod], explain: Explain) -> None:
    assert explained(explain, "web", f"{OUTSIDE}:443")["notes"] == []

    def noted() -> list[str]:  # an agent may have written it again meanwhile
        node.sandbox.run("nft", "delete", "table", "inet", "azvnet", check=False)
        notes = explained(explain, "web", f"{OUTSIDE}:443")["notes"]
        assert isinstance(notes, list)
        return notes

    (note,) = eventually(noted, "the table is missing")
    assert note.startswith("nf_tables table inet azvnet is missing")


def test_filters_and_translations_of_others_are_named(node: Node, pods: list[Pod], explain: Explain) -> None:
    node.sandbox.run("iptables", "-P", "FORWARD", "DROP")
    node.sandbox.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-d", "1.2.3.4", "-j", "MASQUERADE")
    notes = explained(explain, "web", OUTSIDE)["notes"]
    assert "chain FORWARD of nf_tables table filter drops everything that its rules do not allow" in notes
    assert "chain POSTROUTING of nf_tables table nat may translate addresses" in notes


def test_a_probe_sends_a_real_packet(node: Node, pods: list[Pod], explain: Explain) -> None:
    probe = explained(explain, "web", OUTSIDE, "--probe")["probe"]
    assert (probe["arrived"], probe["detail"]) == (True, "echoed")
    refused = explained(explain, "web", f"{SECOND}:9", "--probe")["probe"]
    assert (refused["arrived"], refused["detail"]) == (True, "connection refused")
    assert explained(explain, ADDRESS, f"{FIRST}:9", "--udp", "--probe")["probe"]["arrived"] is True


def test_a_probe_that_nobody_answers_is_not_delivered(node: Node, pods: list[Pod], explain: Explain) -> None:
    node.sandbox.run("iptables", "-I", "FORWARD", "-d", OUTSIDE, "-j", "DROP")
    read = explained(explain, "web", OUTSIDE, "--probe", code=DROPPED)
    assert read["verdict"] == "delivered"
    assert read["probe"] == {
        "arrived": False,
        "detail": "no echo within 2 s",
        "source": None,
        "target": None,
    }


def test_a_probe_shows_the_translated_addresses(node: Node, pods: list[Pod], explain: Explain) -> None:
    """As kube-proxy does it for a service, and a masquerading host for what leaves it."""
    service = "10.96.0.10"
    dnat = ["-d", service, "-j", "DNAT", "--to-destination", SECOND]
    node.sandbox.run("iptables", "-t", "nat", "-A", "PREROUTING", *dnat)
    node.sandbox.run(
        "iptables", "-t", "nat", "-A", "POSTROUTING", "-d", SECOND, "-j", "SNAT", "--to", ADDRESS
    )
    read = explained(explain, "web", service, "--probe")
    assert read["probe"] == {"arrived": True, "detail": "echoed", "source": ADDRESS, "target": SECOND}
    assert ways(read) == [
        ("pod prod/web", "eth0", "sent to the node"),
        ("node", veth(node, FIRST), f"sent to {SECOND} instead of {service}"),
        ("node", veth(node, FIRST), f"forwarded by {veth(node, SECOND)}"),
        ("pod prod/db", "eth0", "delivered"),
    ]
    assert (read["source"], read["reason"]) == (ADDRESS, "pod prod/db has the address")
    assert read["notes"] == [], "what others do is known"


def test_a_probe_to_a_service_whose_pod_is_the_sender_comes_back_to_it(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    service = "10.96.0.10"
    node.sandbox.run(
        *("iptables", "-t", "nat", "-A", "PREROUTING", "-d", service, "-j", "DNAT"),
        *("--to-destination", FIRST),
    )
    node.sandbox.run(
        *("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", FIRST, "-d", FIRST, "-j", "MASQUERADE")
    )
    read = explained(explain, "web", service, "--probe")
    assert (read["probe"]["target"], read["source"]) == (FIRST, ADDRESS)
    assert ways(read)[-1] == ("pod prod/web", "eth0", "delivered")


def test_what_may_translate_a_packet_to_the_node_itself_is_named_once(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    for family in ("ip", "inet"):
        for name, hook in (("in", "prerouting"), ("here", "output"), ("out", "postrouting")):
            chain = f"{{ type nat hook {hook} priority 0; }}"
            node.sandbox.run("nft", f"add table {family} others; add chain {family} others {name} {chain}")

    def notes(start: str, to: str) -> list[str]:
        found = explained(explain, start, to)["notes"]
        return [note.split()[1] for note in found if "table others may translate addresses" in note]

    assert notes("web", ADDRESS) == ["in"]
    assert notes("web", OUTSIDE) == ["in", "out"]
    assert notes(ADDRESS, OUTSIDE) == ["here", "out"]


def test_a_pods_own_address_outside_is_noted_and_imds_does_not_answer_it(
    node: Node, pods: list[Pod], explain: Explain
) -> None:
    plain = node.sandbox.pod("c3")
    conf = node.conf(name="plain", ipMasq=False)
    node.add(plain, conf=conf, args=pod_args("c3", namespace="prod", name="plain")).done()
    own = "10.10.0.7"
    read = explained(explain, "plain", f"{OUTSIDE}:443")
    assert (read["source"], read["verdict"]) == (own, "delivered")
    assert [note for note in read["notes"] if note.startswith(f"{own} is a secondary address")]
    assert explained(explain, "plain", SECOND)["notes"] == []
    assert explained(explain, "web", f"{OUTSIDE}:443")["notes"] == []
    datagram = explained(explain, "plain", "169.254.169.254:80", "--udp", code=DROPPED)
    assert datagram["reason"] == "the metadata service only answers the node's primary address"


def test_for_people_it_is_a_table_with_a_verdict(pods: list[Pod], explain: Explain) -> None:
    shown = explain("web", f"{OUTSIDE}:443").stdout.splitlines()
    assert shown[0] == f"tcp from {FIRST} to {OUTSIDE} port 443"
    assert shown[2].split() == ["WHERE", "INTERFACE", "ROUTE", "RULE", "ACTION"]
    assert shown[-1] == f"delivered: it leaves the node by eth0 with source {ADDRESS}"


def test_what_does_not_exist_is_said_on_one_line(pods: list[Pod], explain: Explain) -> None:
    done = explain("nobody", OUTSIDE)
    assert (done.returncode, done.stdout) == (DROPPED, "")
    assert done.stderr == "azvnet explain: no pod with an IPv4 address is called nobody\n"


def test_a_name_of_several_pods_is_not_guessed(node: Node, pods: list[Pod], explain: Explain) -> None:
    pod = node.sandbox.pod("c3")
    node.add(pod, args=pod_args(pod.container_id, namespace="test", name="web")).done()
    done = explain("web", OUTSIDE)
    assert (done.returncode, done.stdout) == (SEVERAL, "")
    assert "web names several pods: choose one by its container (c1, c3)" in done.stderr


@pytest.mark.parametrize("to", ["here", "10.1.1.1:", "10.1.1.1:0", "10.1.1.1:65536", "10.1.1.1:http", ""])
def test_a_target_is_an_address_with_or_without_a_port(pods: list[Pod], explain: Explain, to: str) -> None:
    done = explain("web", to)
    assert (done.returncode, done.stdout) == (2, "")


def test_looking_changes_nothing(node: Node, pods: list[Pod], explain: Explain) -> None:
    def state() -> list[object]:
        commands = ("link show", "address show", "route show table all", "rule show")
        return [node.sandbox.ip(*command.split()) for command in commands]

    before = state()
    for to in (SECOND, OUTSIDE, ADDRESS, "203.0.113.1"):
        explain("web", to)
    assert state() == before
