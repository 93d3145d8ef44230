"""The node's NIC among its links: found by its MAC, also where several links carry it (row 17)."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator

import pytest

from cni_plugin.addresses import uplink
from cni_plugin.cni.errors import UplinkUnclear
from cni_plugin.kernel import encode
from cni_plugin.kernel.netlink import Netlink
from ipam.model import SourceConfig
from tests.netns.conftest import NewAgent
from tests.netns.node import ADDRESS, GATEWAY, INTERFACES, MAC, Node
from tests.netns.sandbox import Sandbox
from tests.waiting import eventually

UPLINK_UNCLEAR, SOURCE_FAILED, NOTHING_TO_GIVE, ADDRESS_REFUSED = 105, 101, 102, 103
OTHER_MAC = "00:0d:3a:00:00:99"


def _chosen(sandbox: Sandbox) -> str:
    """The name of the link that carries the NIC, among all links as the kernel lists them."""

    def work() -> str:
        with Netlink() as netlink:
            try:
                return uplink.select(netlink.links(encode.dump_links()), [MAC]).name
            except UplinkUnclear as error:
                return str(error)

    return sandbox.ask(work)


def _accelerated(rng: random.Random, synthetic: str, virtual: str) -> Iterator[str]:
    """Links as accelerated networking makes them, in any order: the upper one and the VF that is enslaved to
    it, with one MAC. The netvsc driver's upper link is stood in for by a bridge, its VF by one end of a veth.
    """
    first = [
        f"link add {synthetic} address {MAC} type bridge",
        f"link add {virtual} address {MAC} type veth peer name cable",
        "link add docker0 type bridge",
        f"link add other address {OTHER_MAC} type ifb",
    ]
    rng.shuffle(first)
    second = [
        f"link set {virtual} master {synthetic}",
        f"link set {virtual} up",
        f"link set {synthetic} up",
        f"link add link {synthetic} name macv0 address {MAC} type macvlan",
    ]
    rng.shuffle(second)
    return iter([*first, *second])


def test_the_upper_link_is_the_nic_in_whatever_order_links_were_made() -> None:
    """Fifty orders, with names that sort either way, renamed afterwards as udev does."""
    for seed in range(50):
        rng = random.Random(seed)
        names = rng.sample(["eth0", "enP1s1", "a0", "zz9"], 2)
        sandbox = Sandbox()
        try:
            sandbox.batch(*_accelerated(rng, names[0], names[1]))
            assert _chosen(sandbox) == names[0], f"seed {seed}"
            sandbox.batch(f"link set {names[1]} down", f"link set {names[1]} name renamed0")
            assert _chosen(sandbox) == names[0], f"seed {seed}, renamed"
            sandbox.batch("link delete renamed0")
            assert _chosen(sandbox) == names[0], f"seed {seed}, after the VF was taken away"
        finally:
            sandbox.close()


def test_two_links_that_could_be_the_nic_are_listed_and_none_is_taken() -> None:
    sandbox = Sandbox()
    try:
        sandbox.batch(f"link add eth0 address {MAC} type ifb", f"link add eth1 address {MAC} type ifb")
        said = _chosen(sandbox)
        assert "eth0" in said
        assert "eth1" in said
        assert MAC in said
    finally:
        sandbox.close()


def test_pods_work_over_accelerated_networking(busy_node: Node) -> None:
    """The VF carries the wire; addresses and routes are the upper link's. The MTU is the upper link's too."""
    node = busy_node
    node.sandbox.batch(
        "link set eth0 down",
        f"address delete {ADDRESS}/16 dev eth0",
        "link set eth0 name enP1s1",
        f"link add eth0 address {MAC} type bridge",
        "link set enP1s1 master eth0",
        "link set enP1s1 mtu 1400",
        "link set eth0 up",
        "link set enP1s1 up",
        f"address add {ADDRESS}/16 dev eth0",
        f"route add default via {GATEWAY} dev eth0",
    )
    pod = node.sandbox.pod("c1")
    made = node.add(pod).result
    assert made["interfaces"][1]["mtu"] == node.sandbox.ip("link", "show", "dev", "eth0")[0]["mtu"] == 1400
    assert node.sandbox.run("ip", "netns", "exec", "c1", "ping", "-n", "-c1", "-W2", GATEWAY).returncode == 0
    node.sandbox.batch("link set enP1s1 nomaster", "link set enP1s1 down")
    node.add(node.sandbox.pod("c2")).done()


def test_the_nic_is_found_where_the_default_route_leads_elsewhere(busy_node: Node) -> None:
    """A VPN or a metrics network may have taken the default route; ``master`` says which NIC is meant."""
    busy_node.sandbox.batch(
        "link add vpn0 type ifb", "link set vpn0 up", "route replace default dev vpn0 scope link"
    )
    pod = busy_node.sandbox.pod("c1")
    added = busy_node.add(pod, conf=busy_node.conf(master="eth0"))
    assert added.address == "10.10.0.5"


@pytest.mark.with_agent("an agent that was not told yet knows no master")
def test_the_first_pod_of_a_master_has_an_address_though_the_default_route_leads_elsewhere(
    bare_node: Callable[..., Node], new_agent: NewAgent
) -> None:
    node = bare_node()
    node.sandbox.batch(
        "link add vpn0 type ifb", "link set vpn0 up", "route replace default dev vpn0 scope link"
    )
    new_agent(node)
    eventually(lambda: node.counts()["free"] == 8, "it has read the source")
    added = node.add(node.sandbox.pod("c1"), conf=node.conf(master="eth0"))
    assert added.address == "10.10.0.5"


def _second_nic(node: Node, addresses: int) -> None:
    """A NIC of another subnet beside the one that the default route leads over; the source lists both."""
    node.sandbox.batch(
        f"link add eth1 address {OTHER_MAC} type ifb", "link set eth1 up", "address add 10.20.0.4/16 dev eth1"
    )
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    own = [{"Address": "10.20.0.4", "IsPrimary": True}]
    theirs = [{"Address": f"10.20.0.{number + 5}"} for number in range(addresses)]
    subnet = {"Prefix": "10.20.0.0/16", "IPAddresses": own + theirs}
    mac = OTHER_MAC.replace(":", "").upper()
    document["Interfaces"].append({"MacAddress": mac, "IsPrimary": False, "IPSubnets": [subnet]})
    path.write_text(json.dumps(document))


def test_a_pod_of_a_master_has_no_address_of_another_nic_though_those_are_known(busy_node: Node) -> None:
    """The fabric would drop whatever it sends."""
    node = busy_node
    _second_nic(node, addresses=2)
    assert node.add(node.sandbox.pod("c1")).address == "10.10.0.5"
    added = node.add(node.sandbox.pod("c2"), conf=node.conf(master="eth1"))
    assert added.address == "10.20.0.5"
    refused = node.add(node.sandbox.pod("c3"), conf=node.conf(master="eth1"), args="IP=10.10.0.7")
    assert refused.code == ADDRESS_REFUSED


def test_a_master_that_does_not_exist_is_named_with_the_links_there_are(busy_node: Node) -> None:
    pod, conf = busy_node.sandbox.pod("c1"), busy_node.conf(master="eth7")
    failed = busy_node.add(pod, conf=conf)
    assert failed.code == UPLINK_UNCLEAR
    assert "eth7" in failed.msg
    assert "eth0" in failed.error["details"]
    assert not busy_node.residue()
    busy_node.delete(pod, conf=conf).done()
    assert busy_node.status(conf=conf).code == 50


@pytest.mark.alone("an agent may have read the usual document by then")
def test_a_source_that_lists_another_nic_is_told_apart_from_an_empty_one(busy_node: Node) -> None:
    path = busy_node.sandbox.path(INTERFACES)
    path.write_text(
        path.read_text().replace(MAC.replace(":", "").upper(), OTHER_MAC.replace(":", "").upper())
    )
    failed = busy_node.add(busy_node.sandbox.pod("c1"))
    assert failed.code in (SOURCE_FAILED, NOTHING_TO_GIVE)
    assert OTHER_MAC in failed.msg
    assert MAC in failed.msg
    assert not busy_node.residue()


@pytest.mark.parametrize("order", ["primary first", "primary last"])
def test_the_order_of_nics_in_a_document_means_nothing(busy_node: Node, order: str) -> None:
    """IMDS does not promise any (row 17): only the NIC of the default route is used."""
    import json

    path = busy_node.sandbox.path(INTERFACES)
    (primary,) = json.loads(path.read_text())["Interfaces"]
    text = json.dumps(primary).replace("10.10.", "10.11.").replace("000D3A000001", "000D3A000099")
    other = {**json.loads(text), "IsPrimary": False}
    both = [primary, other] if order == "primary first" else [other, primary]
    path.write_text(json.dumps({"Interfaces": both}))
    busy_node.sandbox.batch(f"link add eth1 address {OTHER_MAC} type ifb", "link set eth1 up")
    given = {busy_node.add(pod).address for pod in busy_node.sandbox.pods("c1", "c2", "c3")}
    assert given == {"10.10.0.5", "10.10.0.6", "10.10.0.7"}


def test_pods_do_not_make_the_uplink_harder_to_find(busy_node: Node) -> None:
    """A pod's own links on the host, and a hundred others, are never taken for the NIC."""
    busy_node.sandbox.batch(*(f"link add ifb{number} type ifb" for number in range(100)))
    first, second = busy_node.sandbox.pods("c1", "c2")
    busy_node.add(first, conf=busy_node.conf(runtimeConfig={"mac": MAC})).done()
    busy_node.add(second).done()
    assert _chosen(busy_node.sandbox) == "eth0"


@pytest.mark.parametrize("default_route", [True, False])
def test_a_document_that_leaves_the_nic_open_means_the_one_that_is_there(
    busy_node: Node, default_route: bool
) -> None:
    """``*`` instead of a MAC, as Azure CNI understands it."""
    if not default_route:
        busy_node.sandbox.batch("route delete default")
    text = busy_node.sandbox.path(INTERFACES).read_text()
    busy_node.sandbox.write(INTERFACES, text.replace(MAC.replace(":", "").upper(), "*"))
    pod = busy_node.sandbox.pod("c1")
    busy_node.sandbox.batch("link set eth0 mtu 1400")
    added = busy_node.add(pod)
    assert added.result["interfaces"][1]["mtu"] == 1400
    busy_node.check(pod, added).done()
    busy_node.delete(pod).done()


# By which NIC packets leave: each of these made six successful ADDs of dead pods, or none at all.


def _refused(node: Node, pod: str, *named: str) -> None:
    failed = node.add(node.sandbox.pod(pod))
    assert failed.code == UPLINK_UNCLEAR, failed
    assert all(each in failed.msg for each in named), failed.msg
    assert not node.residue()
    status = node.status()
    assert status.code == 50
    assert all(each in status.msg for each in named), status.msg


def test_packets_that_are_spread_over_two_nics_are_no_way_for_a_pod(busy_node: Node) -> None:
    node = busy_node
    _second_nic(node, addresses=2)
    node.sandbox.batch(f"route replace default nexthop via {GATEWAY} dev eth0 nexthop via 10.20.0.1 dev eth1")
    _refused(node, "c1", "eth0", "eth1")
    assert node.add(node.sandbox.pod("c2"), conf=node.conf(master="eth1")).address == "10.20.0.5"


def test_a_default_route_through_a_nexthop_object_is_followed(busy_node: Node) -> None:
    node = busy_node
    _second_nic(node, addresses=2)
    node.sandbox.batch(
        "route delete default", "nexthop add id 7 via 10.20.0.1 dev eth1", "route add default nhid 7"
    )
    assert node.add(node.sandbox.pod("c1")).address == "10.20.0.5"


def test_of_several_default_routes_the_one_that_is_taken_counts(busy_node: Node) -> None:
    node = busy_node
    _second_nic(node, addresses=2)
    node.sandbox.batch(
        "route delete default",
        f"route add default via {GATEWAY} dev eth0 metric 200",
        "route add default via 10.20.0.1 dev eth1 metric 100",
    )
    assert node.add(node.sandbox.pod("c1")).address == "10.20.0.5"
    node.sandbox.batch("route delete default via 10.20.0.1 dev eth1 metric 100")
    assert node.add(node.sandbox.pod("c2")).address == "10.10.0.5"


def test_a_tunnel_that_takes_everything_is_no_nic(busy_node: Node) -> None:
    """A tunnel has no MAC; with one, as a tap device has, the source does not list it."""
    node = busy_node
    node.sandbox.do(lambda: _tunnel("tun0"))
    node.sandbox.batch("link set tun0 up", "route replace default dev tun0 scope link")
    _refused(node, "c1", "tun0", "not a NIC")
    node.sandbox.batch(
        "rule add from 10.10.0.0/16 lookup 200", f"route add default via {GATEWAY} dev eth0 table 200"
    )
    assert node.add(node.sandbox.pod("c2")).address == "10.10.0.5"


def _tunnel(name: str) -> None:
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tun"], check=True)


@pytest.mark.parametrize("strict", [0, 1, 2])
def test_rules_by_source_decide_by_what_pods_send(busy_node: Node, strict: int) -> None:
    """Pods of the second NIC's subnet leave by it, though the node's own packets do not."""
    node = busy_node
    _second_nic(node, addresses=2)
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    document["Interfaces"][0]["IPSubnets"][0]["IPAddresses"] = [{"Address": "10.10.0.4", "IsPrimary": True}]
    path.write_text(json.dumps(document))
    node.sandbox.do(lambda: _write_sysctl("net/ipv4/conf/all/rp_filter", strict))
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code == NOTHING_TO_GIVE, failed
    node.sandbox.batch(
        "rule add from 10.20.0.0/16 lookup 200", "route add default via 10.20.0.1 dev eth1 table 200"
    )
    assert node.add(node.sandbox.pod("c2")).address == "10.20.0.5"
    assert node.status().ok


def _write_sysctl(name: str, value: int) -> None:
    with open(f"/proc/sys/{name}", "w") as file:  # noqa: PTH123
        file.write(str(value))


def test_a_rule_that_leads_pods_elsewhere_is_no_way(busy_node: Node) -> None:
    """The node itself leaves by the first NIC, and every one of its pods by the second."""
    node = busy_node
    _second_nic(node, addresses=0)
    node.add(node.sandbox.pod("before")).done()
    node.sandbox.batch(
        "rule add from 10.10.0.0/16 lookup 200", "route add default via 10.20.0.1 dev eth1 table 200"
    )
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code == UPLINK_UNCLEAR, failed
    assert node.status().code == 50


def test_two_networks_with_a_master_each_do_not_wait_for_each_other(busy_node: Node) -> None:
    """Both are read at once, however short a while ago the other was asked for."""
    node = busy_node
    _second_nic(node, addresses=4)
    first, second = node.conf(master="eth0"), node.conf(master="eth1")
    given = [
        node.add(node.sandbox.pod(f"c{number}"), conf=(first, second)[number % 2]).address
        for number in range(6)
    ]
    assert given == ["10.10.0.5", "10.20.0.5", "10.10.0.6", "10.20.0.6", "10.10.0.7", "10.20.0.7"]


def test_status_asks_for_the_nic_that_is_named_as_master(busy_node: Node) -> None:
    node = busy_node
    _second_nic(node, addresses=1)
    conf = node.conf(master="eth1")
    assert node.status(conf=conf).ok
    node.add(node.sandbox.pod("c1"), conf=conf).done()
    exhausted = node.status(conf=conf)
    assert exhausted.code == 50
    assert "1 known, 1 held" in exhausted.msg
    assert node.status().ok, "the other NIC has addresses"


def test_without_a_way_out_the_primary_nic_is_taken(busy_node: Node) -> None:
    node = busy_node
    _second_nic(node, addresses=2)
    node.sandbox.batch("route delete default")
    assert node.add(node.sandbox.pod("c1")).address == "10.10.0.5"
    path = node.sandbox.path(INTERFACES)
    document = json.loads(path.read_text())
    for interface in document["Interfaces"]:
        interface["IsPrimary"] = False
    path.write_text(json.dumps(document))
    read_again(node)
    _refused_without_way(node)


def _refused_without_way(node: Node) -> None:
    failed = node.add(node.sandbox.pod("c2"))
    assert failed.code == UPLINK_UNCLEAR
    assert OTHER_MAC in failed.msg
    assert MAC in failed.msg


def read_again(node: Node) -> None:
    node.pool(lambda pool: pool.refresh(SourceConfig("file"), deadline=5, force=True))
