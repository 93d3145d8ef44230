"""The kernel's table of connections is full: that of the node alone, with as many entries as it takes."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest

from cni_plugin.cli.looking import look
from cni_plugin.kernel import conntrack
from cni_plugin.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni_plugin.node import Node as Engine
from tests.netns.node import GATEWAY, OUTSIDE, Node, ping
from tests.netns.test_conntrack import connection
from tests.waiting import eventually

ELSEWHERE = ip_address("198.51.100.7")
ASSURED = 0x2 | 0x4 | 0x8
"""IPS_SEEN_REPLY, IPS_ASSURED and IPS_CONFIRMED: the kernel gives up no such entry for a new one."""
STATUS = 3
BATCH = 64
"""Requests at once: each that is refused is answered with a copy, and some hundreds of them fill a socket."""


def fill() -> None:
    """Track connections until there is no room for another one. The limit is the machine's; those of
    each network namespace are counted by themselves (__nf_conntrack_alloc).
    """
    status = conntrack._attribute(STATUS, ASSURED.to_bytes(4, "big"))
    refused: list[int | None] = []
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        for first in count(0, BATCH):
            try:
                netlink.change([connection(first + each, ELSEWHERE, more=status) for each in range(BATCH)])
            except OSError as error:
                refused.append(error.errno)
                break
    assert refused == [errno.ENOMEM]


@pytest.mark.alone("the kernel is the same")
def test_pods_come_and_go_while_no_more_connections_can_be_tracked(node: Node) -> None:
    """New connections fail then, and the node says why; nothing of it is left when there is room again."""
    pods = node.sandbox.pods("c1", "c2")
    node.add(pods[0]).done()
    assert ping(pods[0], OUTSIDE)

    def named() -> list[str]:
        found = node.sandbox.ask(lambda: look(Engine({})).in_the_way)
        return [each for each in found if "nf_conntrack_max" in each]

    assert named() == []
    node.sandbox.do(fill)
    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    (words,) = named()
    assert words.startswith(f"the kernel tracks {most} connections")
    assert not ping(pods[0], OUTSIDE), "the kernel has no entry to give"
    added = node.add(pods[1]).done()
    node.check(pods[1], added).done()
    node.delete(pods[0]).done()
    node.delete(pods[1]).done()
    assert not node.residue()
    node.sandbox.do(lambda: conntrack.forget(ELSEWHERE))
    eventually(lambda: named() == [], "there is room again")
    node.add(pods[1]).done()
    assert ping(pods[1], OUTSIDE)
    assert ping(pods[1], GATEWAY)
