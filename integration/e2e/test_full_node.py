"""A node that takes more pods than it has addresses (max-pods against the pool)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration import residue
from integration.e2e import manifests
from integration.e2e.ends import HTTP

if TYPE_CHECKING:
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space

SMALL = "node3"


def test_pod_beyond_the_pool_waits_says_why_and_starts_when_another_goes(scene: Scene, space: Space) -> None:
    machine = space.cluster.nodes[SMALL].machine
    size = len(machine.pod_addresses)
    space.eventually("the node has no pod", lambda: not residue.reservations(machine))
    fitting = space.ready(*(manifests.pod(f"fits-{n}", SMALL) for n in range(size)))
    assert sorted(pod.address for pod in fitting) == sorted(map(str, machine.pod_addresses))

    space.apply(manifests.pod("beyond", SMALL))
    messages = space.eventually(
        "an event tells why",
        lambda: [
            event["message"]
            for event in space.get("events", "--field-selector=involvedObject.name=beyond")["items"]
            if event["reason"] == "FailedCreatePodSandBox"
        ],
    )
    (status,) = space.get("pod", "beyond")["status"]["containerStatuses"]
    assert status["state"] == {"waiting": {"reason": "ContainerCreating"}}
    holders = ", ".join(f"{space.name}/{pod.name}" for pod in fitting)
    assert f"{size} known, {size} held ({holders})" in messages[0]
    assert "Add IP configurations to the node's NIC" in messages[0]
    assert f"set the kubelet's max-pods to {size} or less" in messages[0]

    space.kubectl("delete", "pod/fits-0", "--wait=false")
    space.wait("condition=Ready", "pod/beyond", patience=60)
    pod = space.pod("beyond")
    assert pod.address == fitting[0].address
    assert scene.here.http(pod.address, HTTP) == ["beyond"]
