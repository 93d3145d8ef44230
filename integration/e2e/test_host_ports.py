"""Host ports, by the portmap plugin that the shipped conflist chains: open while their pod lives.

What the pod behind a port leaves in the kernel must not send anybody to an address without a pod, or
with another one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import pytest

from integration.e2e import ends, manifests
from integration.e2e.ends import Unanswered, address_of

if TYPE_CHECKING:
    from integration.e2e.ends import Host
    from integration.e2e.manifests import Manifest
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space

HTTP, UDP = 28080, 28081


def published(name: str, node: str = "node1") -> Manifest:
    """A pod with host ports for HTTP and UDP."""
    ports = [
        {"containerPort": ends.HTTP, "hostPort": HTTP},
        {"containerPort": ends.UDP, "hostPort": UDP, "protocol": "UDP"},
    ]
    return manifests.pod(name, node, manifests.agnhost(ports=ports))


class Sender:
    """Sends datagrams from one port all the time, so that the kernel remembers where they went."""

    def __init__(self, host: Host, target: str) -> None:
        self._socket = host.socket()
        self._socket.connect((target, UDP))
        self._socket.settimeout(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self) -> str:
        """Send one and wait a moment; who answered, or nobody."""
        try:
            self._socket.send(b"hostname")
            return self._socket.recv(2048).decode()
        except (TimeoutError, ConnectionRefusedError):
            return ""

    def until(self, name: str, patience: float) -> float:
        """Go on until somebody of that name answers; seconds that it took. Raises AssertionError."""
        started = time.monotonic()
        heard = {""}
        while name not in heard:
            heard.add(self.ask())
            waited = time.monotonic() - started
            assert waited < patience, f"after {waited:.1f} s no answer of {name}; {sorted(heard)}"
        return time.monotonic() - started


def test_host_port_leads_everybody_to_the_pod_while_it_lives(scene: Scene, space: Space) -> None:
    (pod,) = space.ready(published("published"))
    node = scene.node1.address
    askers = (scene.outside, scene.beyond, scene.there, scene.beside, pod, scene.node1, scene.node2)
    for asker in askers:
        names = [*asker.http(node, HTTP), *asker.udp(node, UDP)]
        assert names == ["published"] * 2, asker.name
    assert scene.node1.http("127.0.0.1", HTTP) == ["published"]

    space.delete("pod/published")
    with pytest.raises(Unanswered):
        scene.outside.get(node, HTTP, "hostname", patience=0.5)


def test_pod_behind_a_host_port_sees_who_asks(scene: Scene, space: Space) -> None:
    """Clients of its own subnet as well; itself it sees as the node, where its replies have to pass."""
    (pod,) = space.ready(published("seeing"))
    node = scene.node1.address
    askers = (scene.beyond, scene.outside, scene.there, scene.beside, scene.node1, scene.node2)
    for asker, address in (*((each, each.address) for each in askers), (pod, node)):
        clients = [*asker.http(node, HTTP, "clientip"), *asker.udp(node, UDP, "clientip")]
        assert [address_of(client) for client in clients] == [address] * 2, asker.name
    space.delete("pod/seeing")


def test_datagrams_reach_the_next_pod_behind_a_host_port_within_a_second(scene: Scene, space: Space) -> None:
    """Row 25, with somebody who sends all the time: before, while there is no pod, and afterwards."""
    space.ready(published("first"))
    with Sender(scene.beyond, scene.node1.address) as sender:
        sender.until("first", 5)
        space.kubectl("delete", "pod/first", "--wait=false")
        while space.pods():
            sender.ask()
        space.apply(published("second"))
        space.eventually("the second pod is Ready", lambda: [sender.ask(), space.is_ready("second")][1])
        sender.until("second", 1)
    space.delete("pod/second")
