"""STATUS: silence as long as an ADD could be served, 50 or 51 with the reason when not."""

from __future__ import annotations

import json

import pytest

from integration.fabric import syscalls as sc
from tests.netns.conftest import NewNode
from tests.netns.node import INTERFACES, RUN_DIR, Node

NOT_READY, LIMITED = 50, 51


def test_silence_when_a_pod_could_be_added(node: Node) -> None:
    answer = node.caller.start(
        node.sandbox, {"CNI_COMMAND": "STATUS"}, json.dumps(node.netconf).encode(), as_ipam=False
    ).finish()
    answer.done()
    assert answer.stdout == b""
    assert not node.residue()
    node.add(node.sandbox.pod("c1")).done()


@pytest.mark.alone("an agent has read the source by then")
def test_not_ready_when_the_source_was_never_readable(busy_node: Node) -> None:
    path = busy_node.sandbox.path(INTERFACES)
    path.unlink()
    failed = busy_node.status()
    assert failed.code == NOT_READY
    assert INTERFACES in failed.msg
    assert failed.error["details"]


@pytest.mark.alone("an agent has read the source by then")
@pytest.mark.parametrize("document", ["", "{", "[]", '{"Interfaces": []}', '{"Interfaces": 7}'])
def test_not_ready_when_the_source_says_nothing_of_use(busy_node: Node, document: str) -> None:
    busy_node.sandbox.write(INTERFACES, document)
    assert busy_node.status().code == NOT_READY


def test_not_ready_when_every_address_is_held(new_node: NewNode) -> None:
    node = new_node(many=True, addresses=2)
    first, second = node.sandbox.pods("c1", "c2")
    node.add(first).done()
    node.status().done()
    node.add(second).done()
    failed = node.status()
    assert failed.code == NOT_READY
    assert "2" in failed.msg
    assert failed.error["details"]
    node.delete(first).done()
    node.status().done()


def test_ready_although_the_source_has_gone_as_long_as_addresses_are_known(busy_node: Node) -> None:
    busy_node.add(busy_node.sandbox.pod("c1")).done()
    busy_node.sandbox.path(INTERFACES).unlink()
    busy_node.status().done()
    busy_node.add(busy_node.sandbox.pod("c2")).done()


@pytest.mark.alone("with an agent the directory belongs to it, and it holds the store open")
@pytest.mark.parametrize("trouble", ["read-only", "a file in its place"])
def test_limited_when_the_state_can_not_be_used(busy_node: Node, trouble: str) -> None:
    sandbox = busy_node.sandbox
    if trouble == "read-only":
        sandbox.path(RUN_DIR).mkdir()
        sandbox.do(lambda: sc.mount("tiny", RUN_DIR, "tmpfs", sc.MS_RDONLY))
    else:
        sandbox.write(RUN_DIR, "not a directory")
    failed = busy_node.status()
    assert failed.code in (NOT_READY, LIMITED)
    assert RUN_DIR in failed.msg
    assert failed.error["details"]


def test_nothing_of_the_node_is_changed(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    before = busy_node.held(), busy_node.veths(), busy_node.counts()
    for _ in range(3):
        busy_node.status().done()
    assert (busy_node.held(), busy_node.veths(), busy_node.counts()) == before
