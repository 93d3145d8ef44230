"""What keeps a node from forwarding to its pods is named; an ADD lists no links, addresses or routes."""

from __future__ import annotations

import json

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.kernel.rules import RTM_GETRULE
from cni_plugin.kernel.templates import Request
from cni_plugin.node import Node as Engine
from tests.netns.node import Node, pod_addresses

NFT_GET_RULE = 0xA07
DROPPING = "'{ type filter hook forward priority 0; policy drop; }'"
IN_THE_WAY = {
    "the uplink does not forward": (
        "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding",
        "net.ipv4.conf.eth0.forwarding is 0",
    ),
    "nf_tables drops": (
        f"nft add table ip filter; nft add chain ip filter FORWARD {DROPPING}",
        "chain FORWARD of nf_tables table filter has policy DROP",
    ),
    "iptables-legacy drops": (
        "iptables-legacy -P FORWARD DROP; iptables-legacy -A INPUT -p tcp -j ACCEPT",
        "chain FORWARD of iptables-legacy has policy DROP",
    ),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_in_the_way_of_pods_is_named_by_status_and_check(node: Node, what: str) -> None:
    command, words = IN_THE_WAY[what]
    pod = node.sandbox.pod("c1")
    added = node.add(pod).done()

    def named() -> list[str]:
        return node.sandbox.ask(lambda: list(look(Engine({})).in_the_way))

    assert named() == []
    assert "is 0" not in node.check(pod, added).stderr
    node.sandbox.run("sh", "-ec", command)
    assert any(each.startswith(words) for each in named()), named()
    checked = node.check(pod, added).done()
    assert words in checked.stderr


def test_a_node_that_does_not_forward_is_named_once_it_has_pods(node: Node) -> None:
    def named() -> tuple[str, ...]:
        return node.sandbox.ask(lambda: look(Engine({})).in_the_way)

    off = ("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    node.sandbox.run(*off)
    assert named() == (), "the first ADD switches it on"
    node.add(node.sandbox.pod("c1")).done()
    assert named() == ()
    node.sandbox.run(*off)
    assert named() == ("net.ipv4.ip_forward is 0: no pod reaches anything",)


def test_chains_that_accept_are_not_in_the_way(node: Node) -> None:
    node.sandbox.run(
        *("sh", "-ec"),
        "iptables-legacy -P FORWARD ACCEPT; nft add table inet t; "
        "nft add chain inet t c '{ type filter hook forward priority 0; policy accept; }'; "
        "nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'",
    )
    assert node.sandbox.ask(lambda: look(Engine({})).in_the_way) == ()


def test_an_add_lists_neither_links_nor_addresses_nor_routes(busy_node: Node) -> None:
    """With thousands of them that change, a list takes long and is interrupted every time."""
    node = busy_node
    node.add(node.sandbox.pod("first")).done()
    pod = node.sandbox.pod("c1")

    def add() -> str:
        from cni_plugin.cni import contract
        from cni_plugin.cni.call import Call
        from cni_plugin.kernel.netlink import Netlink

        dump_once = Netlink._dump_once

        def rules_alone(self: Netlink, request: Request) -> tuple[list[bytes], bool]:
            kind = int.from_bytes(request.data[4:6], "little")
            assert kind in {RTM_GETRULE, NFT_GET_RULE}, request.what  # a handful, on any node
            return dump_once(self, request)

        Netlink._dump_once = rules_alone  # type: ignore[method-assign]
        environ = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": pod.netns,
            "CNI_IFNAME": "eth0",
        }
        return contract.handle(Call(environ, json.dumps(node.netconf).encode()), Engine({})).stdout.decode()

    made = json.loads(node.sandbox.ask(add))
    assert "code" not in made, made
    assert pod_addresses(pod) == [made["ips"][0]["address"]]


def test_an_address_that_the_host_carries_is_passed_over(busy_node: Node) -> None:
    """cloud-init may have put all of the NIC's addresses there."""
    busy_node.sandbox.batch("address add 10.10.0.5/16 dev eth0", "address add 10.10.0.6/16 dev eth0")
    added = busy_node.add(busy_node.sandbox.pod("c1"))
    assert added.address == "10.10.0.7"
