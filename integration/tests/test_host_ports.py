"""Datagrams to a host port: what the kernel remembers of a pod must go with the pod.

Who sends all the time from one port keeps an entry of connection tracking alive, and with it the way to
an address: without a pod, or with another one by then.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from integration import plugins
from integration.containerd import Containerd, Pod
from integration.tests.conftest import shipped
from integration.tests.pods import dropped
from integration.tests.test_containerd import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine
    from integration.tests.conftest import MakeFabric

PORT = 5005
_ANSWER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("up", flush=True)
while True:
    _, client = s.recvfrom(64)
    s.sendto(sys.argv[2].encode(), client)
"""


@contextlib.contextmanager
def answering(node: Machine, pod: Pod) -> Iterator[None]:
    """A server in the pod's namespace that answers every datagram with the pod's name."""
    python = [sys.executable, "-I", "-S", "-c", _ANSWER, str(PORT), pod.name]
    with node.popen(["nsenter", f"--net={pod.netns}", "--", *python], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            yield
        finally:
            server.kill()


@pytest.fixture
def places(make_fabric: MakeFabric) -> Iterator[tuple[Containerd, socket.socket, Machine]]:
    """A node with containerd, and a socket that is connected to its host port.

    The socket is in a peered network, so that nothing masquerades it: the kernel forgets masqueraded
    connections when the link goes that they left over.
    """
    fabric = make_fabric(addresses=2, peered_hosts=1)
    node = fabric.nodes["node1"]
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    sender = fabric.vnet_hosts["peer1"].in_network(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sender, running(node) as containerd:
        sender.connect((str(node.primary_ip), PORT))
        sender.settimeout(0.02)
        yield containerd, sender, node
    assert dropped(fabric) == {}


def published(containerd: Containerd, name: str) -> Pod:
    return containerd.run_pod(name, host_ports=[f"{PORT}:{PORT}/udp"])


def heard(sender: socket.socket, seconds: float, *, until: str = "") -> list[str]:
    """Send all the time; who answered, in order, each once in a row. Ends early with ``until``."""
    answers: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            sender.send(b"who")
            answer = sender.recv(64).decode()
            answers += [answer] if answers[-1:] != [answer] else []
            if answer == until:
                break
    return answers


def test_datagrams_go_on_to_the_next_pod_when_the_one_before_goes(
    places: tuple[Containerd, socket.socket, Machine],
) -> None:
    containerd, sender, node = places
    first = published(containerd, "first")
    with answering(node, first):
        assert heard(sender, 5, until="first") == ["first"]
        # As the kubelet does when a pod was deleted by force: the next one is there before it has gone.
        second = published(containerd, "second")
        with answering(node, second):
            containerd.delete_pod(first)
            assert heard(sender, 1, until="second")[-1:] == ["second"]
    containerd.delete_pod(second)


def test_datagrams_reach_a_pod_that_comes_after_the_one_before_has_gone(
    places: tuple[Containerd, socket.socket, Machine],
) -> None:
    containerd, sender, node = places
    first = published(containerd, "first")
    with answering(node, first):
        assert heard(sender, 5, until="first") == ["first"]
    containerd.delete_pod(first)
    assert heard(sender, 0.5) == []
    second = published(containerd, "second")
    with answering(node, second):
        assert heard(sender, 1, until="second") == ["second"]
    containerd.delete_pod(second)


def test_no_datagram_for_a_pod_that_is_gone_reaches_the_pod_that_has_its_address_now(
    places: tuple[Containerd, socket.socket, Machine],
) -> None:
    containerd, sender, node = places
    other = containerd.run_pod("other")
    first = published(containerd, "first")
    with answering(node, first):
        assert heard(sender, 5, until="first") == ["first"]
    containerd.delete_pod(first)
    assert heard(sender, 0.5) == []
    heir = containerd.run_pod("heir")
    assert heir.ip == first.ip, "the node has two addresses"
    with answering(node, heir):
        assert heard(sender, 1) == []
    for pod in (other, heir):
        containerd.delete_pod(pod)
