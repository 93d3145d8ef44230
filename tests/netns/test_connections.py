"""Connections that the kernel remembers: those to a pod's address go with the pod, others stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.netns.node import ADDRESS, OUTSIDE, Node, pod_addresses
from tests.netns.sandbox import Pod

PORT = 5005
EACH = 40


def remember(node: Node, pod: Pod) -> str:
    """Have the host remember senders to a host port that was the pod's; returns the pod's address."""
    address = pod_addresses(pod)[0].split("/")[0]
    script = (
        f"for port in $(seq 2000 {2000 + EACH - 1}); do conntrack -I -p udp -t 300 -s {OUTSIDE} -d {ADDRESS}"
        f" --sport $port --dport {PORT} -q {OUTSIDE} -r {address} --reply-port-src {PORT}"
        f" --reply-port-dst $port || exit 1; done"
    )
    # Each pod's senders need another source address, or they would be the same connections.
    node.sandbox.run("sh", "-c", script.replace(OUTSIDE, f"192.0.2.{address.split('.')[-1]}"))
    return address


def remembered(node: Node, address: str) -> int:
    """How many connections are answered from an address."""
    listed = node.sandbox.run("conntrack", "-L", "-r", address).stdout
    return len(listed.splitlines())


def _delete(node: Node, pod: Pod, other: Pod) -> None:
    node.delete(pod).done()


def _collect(node: Node, pod: Pod, other: Pod) -> None:
    node.gc([(other, "eth0")]).done()


@pytest.mark.parametrize("go", [_delete, _collect], ids=["DEL", "GC"])
def test_connections_to_a_pod_are_forgotten_with_it(
    busy_node: Node, go: Callable[[Node, Pod, Pod], None]
) -> None:
    """Row 25: a host port's datagrams must not follow the address to its next pod."""
    pod, other = busy_node.sandbox.pods("c1", "c2")
    for each in (pod, other):
        busy_node.add(each).done()
    gone, kept = remember(busy_node, pod), remember(busy_node, other)
    assert (remembered(busy_node, gone), remembered(busy_node, kept)) == (EACH, EACH)

    go(busy_node, pod, other)

    assert (remembered(busy_node, gone), remembered(busy_node, kept)) == (0, EACH)


@pytest.mark.parametrize("mappings", [[], [{"hostPort": PORT, "containerPort": PORT, "protocol": "udp"}]])
def test_they_are_not_looked_for_when_the_runtime_says_that_there_was_no_host_port(
    busy_node: Node, mappings: list[dict[str, object]]
) -> None:
    pod = busy_node.sandbox.pod("c1")
    passed = {"runtimeConfig": {"portMappings": mappings}} if mappings else {}
    conf = busy_node.conf(capabilities={"portMappings": True}, **passed)
    busy_node.add(pod, conf=conf).done()
    gone = remember(busy_node, pod)
    busy_node.delete(pod, conf=conf).done()
    assert remembered(busy_node, gone) == (0 if mappings else EACH)


def test_ipam_of_another_plugin_forgets_them_too(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    result = busy_node.add(pod, as_ipam=True).result
    address = result["ips"][0]["address"].split("/")[0]
    insert = f"-I -p udp -t 300 -s {OUTSIDE} -d {ADDRESS} --sport 1 --dport 2 -q {OUTSIDE} -r {address}"
    busy_node.sandbox.run("conntrack", *insert.split(), "--reply-port-src", "2", "--reply-port-dst", "1")
    assert remembered(busy_node, address) == 1
    busy_node.delete(pod, as_ipam=True).done()
    assert remembered(busy_node, address) == 0
