"""Which NIC a network's configuration names, on nodes whose links and MACs nobody knows beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from cni_plugin.addresses import allocate
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.cni.netconf import parse_netconf
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.kernel.netlink import Netlink
from cni_plugin.node import Node as Engine
from tests.netns.conftest import NewAgent
from tests.netns.node import MAC, Node
from tests.netns.test_nics import (
    INVALID,
    SECOND_GATEWAY,
    SECOND_MAC,
    SECOND_SUBNET,
    UPLINK_UNCLEAR,
    bare_two_nics,
    second,
    two_nics,
    unreached,
)
from tests.unit.ipam.node import attachment, owner

__all__ = ["bare_two_nics", "two_nics"]

FIRST_OF_SECOND = "10.20.0.5"
NO_CONDITION: dict[str, Any] = {"primary": None, "link": None, "mac": ""}


def like(node: Node, **conditions: object) -> dict[str, object]:
    """The netconf of a network whose pods get addresses of the NIC that is like this."""
    return node.conf(name="second", ipam={"nic": conditions})


@pytest.mark.parametrize(
    "conditions",
    [
        {"primary": False},
        {"link": "eth1"},
        {"link": "eth[1-9]"},
        {"link": "enP*"},
        {"mac": SECOND_MAC},
        {"mac": SECOND_MAC.upper().replace(":", "-")},
        {"primary": False, "link": "e*1", "mac": SECOND_MAC},
    ],
    ids=str,
)
def test_a_nic_is_found_by_what_it_is(two_nics: Node, conditions: dict[str, object]) -> None:
    node = two_nics
    node.sandbox.run("ip", "link", "property", "add", "dev", "eth1", "altname", "enP2s0")
    pod, conf = node.sandbox.pod("c1"), like(node, **conditions)
    assert node.status(conf=conf).ok
    added = node.add(pod, conf=conf).done()
    assert added.address == FIRST_OF_SECOND
    assert unreached(pod) == []
    node.check(pod, added, conf=conf).done()
    node.delete(pod, conf=conf).done()
    assert not node.residue()


def test_the_primary_nic_is_found_where_the_default_route_is_that_of_the_other(two_nics: Node) -> None:
    node = two_nics
    node.sandbox.batch("route delete default dev eth0")
    usual, pod = node.sandbox.pods("c1", "c2")
    assert node.add(usual).done().address == FIRST_OF_SECOND
    assert node.add(pod, conf=like(node, primary=True)).done().address == "10.10.0.5"


@pytest.mark.parametrize("conditions", [NO_CONDITION, {}], ids=["empty values", "no keys"])
def test_no_condition_means_the_nic_of_the_nodes_own_packets(
    two_nics: Node, conditions: dict[str, object]
) -> None:
    """As a template writes it whose values nobody has set."""
    assert (
        two_nics.add(two_nics.sandbox.pod("c1"), conf=like(two_nics, **conditions)).done().address
        == "10.10.0.5"
    )


def _contradictions() -> list[tuple[dict[str, object], tuple[str, ...]]]:
    first, other = f"fits {MAC}", f"fits {SECOND_MAC}"
    return [
        (
            {"master": "eth0", "ipam": {"nic": {"primary": False}}},
            (f"master eth0 {first}", f"ipam.nic.primary false {other}"),
        ),
        (
            {"master": "eth0", "ipam": {"subnet": SECOND_SUBNET}},
            (f"master eth0 {first}", f"ipam.subnet {SECOND_SUBNET} {other}"),
        ),
        (
            {"ipam": {"subnet": SECOND_SUBNET, "nic": {"primary": True}}},
            (f"ipam.subnet {SECOND_SUBNET} {other}", f"ipam.nic.primary true {first}"),
        ),
        (
            {"ipam": {"nic": {"link": "eth0", "mac": SECOND_MAC}}},
            (f"ipam.nic.link 'eth0' {first}", f"ipam.nic.mac {SECOND_MAC} {other}"),
        ),
        (
            {"ipam": {"nic": {"link": "ens*"}}},
            ("ipam.nic.link 'ens*' fits none", f"{MAC} (eth0 10.10.0.0/16)"),
        ),
        ({"ipam": {"nic": {"link": "eth?"}}}, ("2 NICs fit", "eth0", "eth1", MAC, SECOND_MAC)),
        ({"ipam": {"nic": {"mac": "00:0d:3a:ff:ff:ff"}}}, ("00:0d:3a:ff:ff:ff fits none", "eth1")),
    ]


@pytest.mark.parametrize(("keys", "words"), _contradictions(), ids=lambda each: str(each)[:60])
def test_what_fits_no_nic_or_several_is_an_error_that_says_what_each_condition_fits(
    two_nics: Node, keys: dict[str, Any], words: tuple[str, ...]
) -> None:
    node = two_nics
    conf = node.conf(**keys)
    failed = node.add(node.sandbox.pod("c1"), conf=conf)
    assert failed.code == UPLINK_UNCLEAR
    assert [each for each in words if each not in failed.msg] == [], failed.msg
    assert not node.veths()
    assert not node.held()
    status = node.status(conf=conf)
    assert (status.code, words[0] in status.msg) == (50, True), status.msg


@pytest.mark.parametrize(
    ("nic", "words"),
    [({"primery": False}, "ipam.nic.primery"), ({"mac": "eth1"}, "ipam.nic.mac"), ("eth1", "ipam.nic")],
    ids=["misspelt", "no MAC", "no object"],
)
def test_a_condition_that_is_not_one_is_never_ignored(two_nics: Node, nic: object, words: str) -> None:
    """Without it pods would get addresses of another NIC."""
    failed = two_nics.add(two_nics.sandbox.pod("c1"), conf=two_nics.conf(ipam={"nic": nic}))
    assert failed.code == INVALID
    assert words in failed.msg


@pytest.mark.alone("an agent has read the source by then")
@pytest.mark.parametrize("conditions", [{"primary": False}, {"link": "eth1"}], ids=str)
def test_the_first_pod_after_boot_has_an_address_of_the_nic(
    bare_two_nics: Node, conditions: dict[str, object]
) -> None:
    """Before the source was read nothing is listed that a condition could be held against."""
    node = bare_two_nics
    assert node.add(node.sandbox.pod("c1"), conf=like(node, **conditions)).address == FIRST_OF_SECOND


@pytest.mark.alone("an engine inside of the test")
@pytest.mark.parametrize("ipam", [{"nic": {"primary": False}}, {"subnet": SECOND_SUBNET}], ids=str)
def test_a_source_that_an_agent_reads_just_now_gives_no_address_of_another_nic(
    bare_two_nics: Node, ipam: dict[str, object]
) -> None:
    """Nothing is listed when the NIC is looked for, and everything when an address is reserved."""

    def work() -> list[str]:
        engine, parsed = Engine({}), parse_netconf(bare_two_nics.conf(ipam=ipam))
        request = allocate.address_request(parsed, engine)
        assert request.nic_mac == ""
        allocate.refresh(parsed, engine, 5)
        made = allocate._reserve(attachment("c1"), parsed, owner(), request, engine)
        engine.ipam.close()
        return [str(each.ip) for each in made]

    assert bare_two_nics.sandbox.ask(work) == [FIRST_OF_SECOND]
    assert bare_two_nics.held() == {FIRST_OF_SECOND: "c1"}


@pytest.mark.alone("an engine inside of the test")
def test_nothing_stays_reserved_where_the_source_just_read_has_no_such_nic(bare_two_nics: Node) -> None:
    def work() -> None:
        engine, parsed = Engine({}), parse_netconf(bare_two_nics.conf(ipam={"subnet": "10.99.0.0/16"}))
        request = allocate.address_request(parsed, engine)
        allocate.refresh(parsed, engine, 5)
        with pytest.raises(UplinkUnclear, match="no NIC fits"):
            allocate._reserve(attachment("c1"), parsed, owner(), request, engine)
        engine.ipam.close()

    bare_two_nics.sandbox.ask(work)
    assert bare_two_nics.held() == {}


@pytest.mark.with_agent("it is the agent's own work")
def test_an_agent_follows_a_link_that_gets_another_name(bare_two_nics: Node, new_agent: NewAgent) -> None:
    """It does not ask the kernel again for every pod, but when the kernel has announced a change."""
    node = bare_two_nics
    new_agent(node)
    conf = like(node, link="pods*")
    failed = node.add(node.sandbox.pod("c1"), conf=conf)
    assert failed.code == UPLINK_UNCLEAR
    node.sandbox.batch("link set eth1 down", "link set eth1 name pods0", "link set pods0 up")
    node.sandbox.batch(f"route add default via {SECOND_GATEWAY} dev pods0 metric 200")
    assert node.add(node.sandbox.pod("c2"), conf=conf).done().address == FIRST_OF_SECOND


@pytest.mark.alone("an engine inside of the test, as the agent has it")
def test_an_agent_asks_the_kernel_nothing_for_the_next_pod(two_nics: Node) -> None:
    conf = like(two_nics, primary=False, link="eth[1-9]")

    def work() -> tuple[list[str], list[int]]:
        engine, parsed = Engine({}, background_reads=True, known_host=KnownHost()), parse_netconf(conf)
        send, sent = Netlink.send, list[bytearray]()

        def counted(self: Netlink, batch: bytearray) -> None:
            sent.append(batch)
            send(self, batch)

        Netlink.send = counted  # type: ignore[method-assign]
        found, asked = list[str](), list[int]()
        for _ in range(3):
            found.append(allocate.address_request(parsed, engine).nic_mac)
            asked.append(len(sent))
        return found, asked

    found, asked = two_nics.sandbox.ask(work)
    assert found == [SECOND_MAC] * 3
    assert asked[0] > 0
    assert asked == [asked[0]] * 3


def test_bridge_with_our_ipam_gets_addresses_of_that_nic(two_nics: Node) -> None:
    pod = two_nics.sandbox.pod("c1")
    asked = two_nics.call("ADD", pod, conf=like(two_nics, primary=False), as_ipam=True)
    assert asked.done().result["ips"][0]["address"] == f"{FIRST_OF_SECOND}/16"


# The VF of accelerated networking


def _with_vf(node: Node) -> None:
    """A link with the NIC's MAC that is enslaved to it. A bridge stands in for netvsc's link."""
    node.sandbox.batch(
        "link set eth1 down",
        "link set eth1 name enP2s1",
        f"link add eth1 address {SECOND_MAC} type bridge",
        "link set enP2s1 master eth1",
        "link set enP2s1 up",
        "link set eth1 up",
        "address flush dev enP2s1",
        "address add 10.20.0.4/16 dev eth1",
        f"route add default via {SECOND_GATEWAY} dev eth1 metric 200",
    )


def test_a_master_that_is_a_vf_is_refused_and_its_nic_is_named(two_nics: Node) -> None:
    """It would be gone while Azure works on the host, and has no address of its own."""
    node = two_nics
    _with_vf(node)
    conf = node.conf(master="enP2s1")
    failed = node.add(node.sandbox.pod("c1"), conf=conf)
    assert failed.code == UPLINK_UNCLEAR
    assert "master enP2s1 is a lower link of eth1" in failed.msg
    assert "eth1" in failed.error["details"]
    assert "enP2s1" in node.status(conf=conf).msg
    assert not node.veths()


@pytest.mark.parametrize("named", ["master", "link"])
def test_the_nic_above_a_vf_is_taken(two_nics: Node, named: str) -> None:
    node = two_nics
    _with_vf(node)
    conf = second(node) if named == "master" else like(node, link="e*1")
    pod = node.sandbox.pod("c1")
    assert node.add(pod, conf=conf).done().address == FIRST_OF_SECOND
    assert unreached(pod) == []


def test_a_name_that_only_the_vf_has_fits_no_nic(two_nics: Node) -> None:
    node = two_nics
    _with_vf(node)
    failed = node.add(node.sandbox.pod("c1"), conf=like(node, link="enP*"))
    assert failed.code == UPLINK_UNCLEAR
    assert f"{SECOND_MAC} (eth1 {SECOND_SUBNET})" in failed.msg
