"""What a result says is what the pod has; what the runtime asks for is what the pod gets; chains."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.netns.node import ADDRESS, INTERFACES, OUTSIDE, Node, ping, pod_addresses
from tests.netns.sandbox import Pod

REFUSED_ADDRESS, INVALID_NETCONF = 103, 7


@pytest.fixture
def pod(busy_node: Node) -> Pod:
    return busy_node.sandbox.pod("c1")


def _link(pod: Pod, name: str = "eth0") -> dict[str, Any]:
    (link,) = pod.ip("-details", "link", "show", "dev", name)
    return link


def test_interfaces_are_named_as_the_kernel_has_them(busy_node: Node, pod: Pod) -> None:
    host, inside = busy_node.add(pod).result["interfaces"]
    ((name, veth),) = busy_node.veths().items()
    assert host == {"name": name, "mac": veth["address"], "mtu": veth["mtu"]}
    link = _link(pod)
    assert inside == {"name": "eth0", "mac": link["address"], "mtu": link["mtu"], "sandbox": pod.netns}


def test_addresses_routes_and_gateway_are_what_the_pod_really_has(busy_node: Node, pod: Pod) -> None:
    made = busy_node.add(pod).result
    assert [ip["address"] for ip in made["ips"]] == pod_addresses(pod)
    assert [made["interfaces"][ip["interface"]]["name"] for ip in made["ips"]] == ["eth0"]
    found = pod.ip("-4", "route", "show", "table", "all", "dev", "eth0", "type", "unicast")
    kernel = {("0.0.0.0/0" if r["dst"] == "default" else f"{r['dst']}/32", r.get("gateway")) for r in found}
    assert {(route["dst"], route.get("gw")) for route in made["routes"]} == kernel
    (default,) = [route for route in found if route["dst"] == "default"]
    assert {ip["gateway"] for ip in made["ips"]} == {default["gateway"]}


def test_no_host_interface_is_called_like_the_containers(busy_node: Node) -> None:
    """containerd keys interfaces by name."""
    for number, ifname in enumerate(("eth0", "azv0", "azv369c8d47e56")):
        pod = busy_node.sandbox.pod(f"c{number}")
        names = [each["name"] for each in busy_node.add(pod, ifname=ifname).result["interfaces"]]
        assert len(set(names)) == len(names)
        assert names[1] == ifname


def test_name_resolution_is_reported_as_configured(busy_node: Node, pod: Pod) -> None:
    wanted = {
        "nameservers": ["168.63.129.16", "10.0.0.10"],
        "domain": "cluster.local",
        "search": ["default.svc.cluster.local", "svc.cluster.local"],
        "options": ["ndots:5"],
    }
    assert busy_node.add(pod, conf=busy_node.conf(dns=wanted)).result["dns"] == wanted


@pytest.mark.parametrize("keys", [("servers", "searches", "options"), ("Servers", "Searches", "Options")])
def test_name_resolution_of_the_runtime_wins_also_in_containerds_spelling(
    busy_node: Node, pod: Pod, keys: tuple[str, str, str]
) -> None:
    asked = dict(zip(keys, (["10.0.0.10"], ["a.b", "b"], ["ndots:2"]), strict=True))
    conf = busy_node.conf(
        dns={"nameservers": ["1.1.1.1"], "domain": "d"},
        capabilities={"dns": True},
        runtimeConfig={"dns": asked},
    )
    assert busy_node.add(pod, conf=conf).result["dns"] == {
        "nameservers": ["10.0.0.10"],
        "domain": "d",
        "search": ["a.b", "b"],
        "options": ["ndots:2"],
    }


def test_capabilities_of_chained_plugins_do_not_disturb(busy_node: Node, pod: Pod) -> None:
    """Exactly as containerd marshals them: its structs have no JSON tags."""
    runtime = {
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
        "bandwidth": {"IngressRate": 1000, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 0},
        "cgroupPath": "/kubepods/pod1",
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
    }
    outcome = busy_node.add(pod, conf=busy_node.conf(runtimeConfig=runtime))
    assert outcome.result["ips"]
    assert outcome.stderr == ""


# What the runtime asks for


def _asking(node: Node, how: str, address: str) -> dict[str, Any]:
    """Arguments of a call that asks for an address in one of the ways there are."""
    ways: dict[str, dict[str, Any]] = {
        "CNI_ARGS": {"args": f"IgnoreUnknown=1;IP={address}"},
        "runtimeConfig.ips": {"conf": node.conf(runtimeConfig={"ips": [address]})},
        "args.cni.ips": {"conf": node.conf(args={"cni": {"ips": [address]}})},
        "ipam.ipAddress": {"conf": node.conf(ipam={"ipAddress": address})},
    }
    return ways[how]


WAYS_TO_ASK = ["CNI_ARGS", "runtimeConfig.ips", "args.cni.ips", "ipam.ipAddress"]


@pytest.mark.parametrize("address", ["10.10.0.9", "10.10.0.9/16"])
@pytest.mark.parametrize("how", WAYS_TO_ASK)
def test_the_address_that_is_asked_for_is_given(busy_node: Node, pod: Pod, how: str, address: str) -> None:
    made = busy_node.add(pod, **_asking(busy_node, how, address)).result
    assert [ip["address"] for ip in made["ips"]] == ["10.10.0.9/32"] == pod_addresses(pod)


@pytest.mark.parametrize("how", WAYS_TO_ASK)
def test_an_address_that_another_pod_holds_is_refused_and_its_holder_named(
    busy_node: Node, pod: Pod, how: str
) -> None:
    first = busy_node.add(pod).address
    other = busy_node.sandbox.pod("c2")
    failed = busy_node.add(other, **_asking(busy_node, how, first))
    assert failed.code == REFUSED_ADDRESS
    assert first in failed.msg
    assert "default/c1" in failed.msg
    assert busy_node.held() == {first: "c1"}
    assert pod_addresses(pod) == [f"{first}/32"]


@pytest.mark.parametrize("address", ["10.10.99.99", "192.0.2.1", ADDRESS])
def test_an_address_that_is_not_the_nics_is_refused(busy_node: Node, pod: Pod, address: str) -> None:
    failed = busy_node.add(pod, **_asking(busy_node, "CNI_ARGS", address))
    assert failed.code == REFUSED_ADDRESS
    assert address in failed.msg
    assert failed.error["details"]
    assert not busy_node.residue()


def test_an_address_that_is_none_is_said_to_be_none(busy_node: Node, pod: Pod) -> None:
    for how in WAYS_TO_ASK:
        failed = busy_node.add(pod, **_asking(busy_node, how, "10.10.0"))
        assert failed.code == INVALID_NETCONF
        assert "10.10.0" in failed.msg


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        (
            {"runtimeConfig": {"ips": ["10.10.0.6", "10.10.0.7"]}},
            INVALID_NETCONF,
            ("2", "10.10.0.6, 10.10.0.7"),
        ),
        ({"runtimeConfig": {"ips": ["10.10.0.6", "fd00::6"]}}, REFUSED_ADDRESS, ("fd00::6", "IPv4")),
        ({"runtimeConfig": {"ips": ["fd00::6/64"]}}, REFUSED_ADDRESS, ("fd00::6", "IPv4")),
        ({"ipam": {"ipAddress": "fd00::6"}}, REFUSED_ADDRESS, ("fd00::6", "IPv4")),
        ({"args": {"cni": {"ips": ["10.10.0.6", 7.5]}}}, INVALID_NETCONF, ("7.5",)),
        ({"args": {"cni": {"ips": {"10.10.0.6": 1}}}}, INVALID_NETCONF, ("10.10.0.6",)),
        ({"args": {"cni": {"ips": True}}}, INVALID_NETCONF, ("True",)),
    ],
)
def test_what_can_not_be_given_whole_is_refused_and_not_given_in_part(
    busy_node: Node, pod: Pod, keys: dict[str, Any], code: int, words: tuple[str, ...]
) -> None:
    """fd00::6 is an address of the NIC, but not one that pods get."""
    listed = json.loads(busy_node.sandbox.path(INTERFACES).read_text())
    subnet = {"Prefix": "fd00::/64", "IPAddresses": [{"Address": "fd00::6", "IsPrimary": False}]}
    listed["Interfaces"][0]["IPSubnets"].append(subnet)
    busy_node.sandbox.write(INTERFACES, json.dumps(listed))
    for as_ipam in (False, True):
        failed = busy_node.add(pod, conf=busy_node.conf(**keys), as_ipam=as_ipam)
        assert failed.code == code, failed
        assert all(word in failed.msg for word in words), failed.msg
        assert not busy_node.residue()


def test_the_same_address_asked_for_twice_is_one(busy_node: Node, pod: Pod) -> None:
    conf = busy_node.conf(runtimeConfig={"ips": ["10.10.0.7", "10.10.0.7/16"]})
    assert busy_node.add(pod, conf=conf).address == "10.10.0.7"


@pytest.mark.parametrize(
    ("asked", "got"),
    [("02:00:0a:0a:00:07", "02:00:0a:0a:00:07"), ("02-00-0A-0A-00-07", "02:00:0a:0a:00:07")],
)
def test_the_mac_that_is_asked_for_is_given(busy_node: Node, asked: str, got: str) -> None:
    ways: list[dict[str, Any]] = [
        {"conf": busy_node.conf(runtimeConfig={"mac": asked})},
        {"args": f"IgnoreUnknown=1;MAC={asked}"},
    ]
    for number, how in enumerate(ways):
        pod = busy_node.sandbox.pod(f"c{number}")
        added = busy_node.add(pod, **how)
        assert added.result["interfaces"][1]["mac"] == got == _link(pod)["address"]
        busy_node.check(pod, added).done()


def test_a_pods_own_mac_is_unicast_local_and_stays_the_same(busy_node: Node, pod: Pod) -> None:
    macs = set()
    for _ in range(3):
        macs.add(busy_node.add(pod).result["interfaces"][1]["mac"])
        busy_node.delete(pod).done()
    (mac,) = macs
    assert int(mac[:2], 16) & 3 == 2
    others = {
        busy_node.add(each).result["interfaces"][1]["mac"] for each in busy_node.sandbox.pods("c2", "c3")
    }
    assert len(others | macs) == 3


# Chains

EARLIER: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {
            "name": "net0",
            "mac": "02:00:00:00:00:02",
            "mtu": 1400,
            "sandbox": "/run/netns/c1",
            "pciID": "0:1:2",
        },
    ],
    "ips": [{"address": "172.16.0.2/24", "gateway": "172.16.0.1", "interface": 1}],
    "routes": [{"dst": "172.16.0.0/12", "gw": "172.16.0.1", "priority": 7}],
    "dns": {"nameservers": ["172.16.0.1"]},
}


def test_what_earlier_plugins_made_is_passed_on_with_ours_behind_it(busy_node: Node, pod: Pod) -> None:
    made = busy_node.add(pod, conf=busy_node.conf(prevResult=EARLIER)).result
    assert made["interfaces"][:2] == EARLIER["interfaces"]
    assert [each["name"] for each in made["interfaces"][2:]] == [*busy_node.veths(), "eth0"]
    assert made["ips"][0] == EARLIER["ips"][0]
    assert made["interfaces"][made["ips"][1]["interface"]]["name"] == "eth0"
    assert made["routes"][0] == EARLIER["routes"][0]
    assert made["dns"] == EARLIER["dns"]
    busy_node.delete(pod, conf=busy_node.conf(prevResult=made)).done()


def test_an_earlier_address_that_names_no_interface_is_not_looked_for_on_ours(
    busy_node: Node, pod: Pod
) -> None:
    earlier = {"cniVersion": "1.1.0", "ips": [{"address": "172.16.0.2/24"}]}
    added = busy_node.add(pod, conf=busy_node.conf(prevResult=earlier))
    assert added.result["ips"][0] == {"address": "172.16.0.2/24"}
    busy_node.check(pod, added).done()


def test_an_earlier_result_in_an_older_shape_is_passed_on_in_the_callers(busy_node: Node, pod: Pod) -> None:
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "172.16.0.2/24", "routes": [{"dst": "172.16.0.0/12"}]}}
    made = busy_node.add(pod, conf=busy_node.conf(cniVersion="1.0.0", prevResult=old)).result
    assert made["ips"][0] == {"address": "172.16.0.2/24"}
    assert made["routes"][0] == {"dst": "172.16.0.0/12"}


@pytest.mark.parametrize(
    "garbage",
    [
        [1],
        "text",
        7,
        {"ips": "x"},
        {"ips": [{"address": "nonsense"}]},
        {"interfaces": [{}]},
        {"routes": [{"dst": 1}]},
    ],
)
def test_an_earlier_result_that_is_none_is_refused_and_leaves_nothing(
    busy_node: Node, pod: Pod, garbage: object
) -> None:
    failed = busy_node.add(pod, conf=busy_node.conf(prevResult=garbage))
    assert failed.code in (6, 7)
    assert not busy_node.residue()


def test_what_later_plugins_added_is_no_damage(busy_node: Node, pod: Pod) -> None:
    """portmap, bandwidth, tuning, and others behind us: their routes, addresses, MAC and interfaces."""
    made = busy_node.add(pod).result
    pod.change(
        "link set eth0 address 02:00:00:00:00:99",
        "address add 172.30.0.9/32 dev eth0",
        "route add 172.31.0.0/16 via 169.254.1.1 dev eth0",
        "link add extra0 type veth peer name extra1",
        "link set extra0 up",
        "address add 172.29.0.2/24 dev extra0",
    )
    later = {
        **made,
        "interfaces": [
            *made["interfaces"][:1],
            {**made["interfaces"][1], "mac": "02:00:00:00:00:99"},
            {"name": "extra0", "sandbox": pod.netns},
            {"name": "ifb0"},
        ],
        "ips": [
            *made["ips"],
            {"address": "172.30.0.9/32", "interface": 1},
            {"address": "172.29.0.2/24", "interface": 2},
        ],
        "routes": [*made["routes"], {"dst": "172.31.0.0/16", "gw": "169.254.1.1"}],
        "somethingNew": {"a": 1},
    }
    busy_node.check(pod, later).done()
    assert ping(pod, OUTSIDE), "the kernel forgot the pod's permanent neighbour with the change of its MAC"
    busy_node.check(pod, later).done()
    busy_node.delete(pod, conf=busy_node.conf(prevResult=later)).done()
    assert not busy_node.residue()
