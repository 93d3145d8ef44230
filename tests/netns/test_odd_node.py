"""Nodes on which a system call fails: the error says which one, whether to try again, and nothing is left."""

from __future__ import annotations

import json
import os
import resource

import pytest

from integration.fabric import syscalls as sc
from tests.netns.conftest import NewNode
from tests.netns.node import Node

TRY_AGAIN, KERNEL_REFUSED, STATE_UNAVAILABLE = 11, 106, 108
SPARE_DESCRIPTORS = 14
"""More than an ADD has open at any moment."""


@pytest.mark.alone("an agent has descriptors of its own")
def test_without_descriptors_an_add_is_to_be_tried_again(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=SPARE_DESCRIPTORS)
    pods = node.sandbox.pods(*(f"c{spare}" for spare in range(SPARE_DESCRIPTORS)))

    def add_with_few() -> list[dict[str, object]]:
        from cni_plugin.cni import contract
        from cni_plugin.cni.call import Call
        from cni_plugin.node import Node as EngineNode

        replies = []
        for spare, pod in enumerate(pods):
            engine = EngineNode({})
            environ = {
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": pod.container_id,
                "CNI_NETNS": pod.netns,
                "CNI_IFNAME": "eth0",
            }
            call = Call(environ, json.dumps(node.netconf).encode())
            free = os.dup(0)
            os.close(free)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, before[1]))
            reply = contract.handle(call, engine)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            replies.append(json.loads(reply.stdout))
            engine.close()
            engine.ipam.close()
        return replies

    replies = node.sandbox.ask(add_with_few)
    codes = [reply.get("code", 0) for reply in replies]
    assert set(codes) <= {0, TRY_AGAIN, STATE_UNAVAILABLE}, replies
    assert codes[0] == TRY_AGAIN
    assert codes[-1] == 0
    for pod in pods:
        node.delete(pod).done()
    assert not node.residue()


@pytest.mark.alone("an agent has asked before")
def test_a_sysctl_that_can_not_be_read_is_named(node: Node) -> None:
    node.sandbox.do(lambda: sc.mount("none", "/proc/sys/net", "tmpfs", 0, "size=4k"))
    failed = node.add(node.sandbox.pod("c1"))
    assert failed.code == KERNEL_REFUSED
    assert "/proc/sys/net/ipv4" in failed.msg
    assert not node.residue()


def test_a_container_id_that_no_alias_can_hold_is_refused(busy_node: Node) -> None:
    longest, longer = busy_node.sandbox.pods("a" * 230, "a" * 242)
    busy_node.add(longest, env={"CNI_IFNAME": "e" * 15}).done()
    (link,) = busy_node.veths().values()
    assert link["ifalias"] == f"azvnet1 {'a' * 230} {'e' * 15}", "254 bytes"
    failed = busy_node.add(longer)
    assert failed.code == 4
    assert "CNI_CONTAINERID" in failed.msg
    busy_node.delete(longer).done()
    assert len(busy_node.residue()) > 0, "the other's"
    busy_node.delete(longest, env={"CNI_IFNAME": "e" * 15}).done()
    assert not busy_node.residue()
