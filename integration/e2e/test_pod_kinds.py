"""Pods of every kind have a network when they start, and give their addresses back when they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from integration import residue
from integration.cluster.program import put
from integration.e2e import manifests
from integration.e2e.ends import HTTP

if TYPE_CHECKING:
    from integration.e2e.manifests import Manifest
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space
    from integration.fabric import Machine

STATIC_PODS = "/etc/kubernetes/manifests"
OF_PODS = ("link", "address", "route", "rule", "neighbour", "reservation", "file")


def held(scene: Scene, node: str) -> set[str]:
    """Addresses of a node that somebody holds, by the node's own store."""
    return set(residue.reservations(scene.space.cluster.nodes[node].machine))


def test_containers_share_the_network_that_init_containers_had_before_them(
    scene: Scene, space: Space
) -> None:
    ask = f"curl --silent --max-time 5 --fail http://{scene.there.address}:{HTTP}/clientip >/shared/address"
    shared: Manifest = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    (pod,) = space.ready(
        manifests.pod(
            "several",
            "node1",
            manifests.agnhost("first", **shared),
            manifests.agnhost("second", http=9090, udp=9091),
            initContainers=[manifests.shell("early", ask, **shared)],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )
    assert pod.sh("cat /shared/address").rpartition(":")[0] == pod.address
    assert scene.there.http(pod.address, 9090) == ["several"]
    assert pod.http("127.0.0.1", 9090) == ["several"], "from the first container to the second"


def test_host_pod_gets_no_address_of_the_pool(scene: Scene, space: Space) -> None:
    before = held(scene, "node2")
    (pod,) = space.ready(manifests.host_pod("on-host", "node2", http=18090, udp=18091))
    assert pod.address == scene.node2.address
    assert held(scene, "node2") <= before
    assert scene.here.http(pod.address, 18090) == ["node2"]


def test_member_of_a_stateful_set_is_made_again_under_its_name(scene: Scene, space: Space) -> None:
    selector = {"app": "db"}
    space.apply(
        manifests.service("db", selector, clusterIP="None"),
        manifests.workload("StatefulSet", "db", 1, serviceName="db", pod={"nodeName": "node1"}),
    )
    space.eventually("the first member is Ready", lambda: space.pods() and space.is_ready("db-0"))
    before, identity = space.pod("db-0"), space.get("pod", "db-0")["metadata"]["uid"]
    space.kubectl("delete", "pod/db-0", "--wait=false")
    space.eventually(
        "there is another one, and it is Ready",
        lambda: any(
            each["metadata"]["uid"] != identity and space.is_ready("db-0") for each in space.pods("app=db")
        ),
    )
    after = space.pod("db-0")
    assert after.address != before.address, "the one before has to rest"
    assert scene.there.http(after.address, HTTP) == ["db-0"]


def test_finished_job_holds_no_address_though_its_pods_are_there(scene: Scene, space: Space) -> None:
    ask = f"curl --silent --max-time 5 --fail http://{scene.there.address}:{HTTP}/hostname"
    template = manifests.pod_spec(manifests.shell("ask", ask), restartPolicy="Never", nodeName="node1")
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "asking"},
        "spec": {"completions": 3, "parallelism": 3, "backoffLimit": 0, "template": {"spec": template}},
    }
    space.apply(job)
    space.wait("condition=Complete", "job/asking")
    pods = space.pods()
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"] * 3
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 3
    space.eventually("no pod of the job holds an address", lambda: not addresses & held(scene, "node1"))


def test_pod_deleted_without_grace_gives_its_address_back(scene: Scene, space: Space) -> None:
    (pod,) = space.ready(manifests.pod("killed", "node1"))
    assert pod.address in held(scene, "node1")
    space.kubectl("delete", "pod/killed", "--grace-period=0", "--force")
    space.eventually("its address is free", lambda: pod.address not in held(scene, "node1"))


def test_static_pod_of_the_kubelet_is_reached_and_goes_with_its_file(scene: Scene, space: Space) -> None:
    machine = scene.space.cluster.nodes["node2"].machine
    manifest = manifests.pod("static")
    manifest["metadata"]["namespace"] = space.name
    file = f"{STATIC_PODS}/{space.name}.json"
    put(machine, file, json.dumps(manifest))
    try:
        space.eventually("the kubelet has told of it", lambda: space.pods("app=static"))
        space.wait("condition=Ready", "pod/static-node2")
        pod = space.pod("static-node2")
        assert scene.here.http(pod.address, HTTP) == ["static-node2"]
    finally:
        machine.run(["rm", file])
    space.eventually(
        "pod and address are gone", lambda: not space.pods() and pod.address not in held(scene, "node2")
    )


def test_deleted_pods_leave_nothing_on_their_nodes(scene: Scene, space: Space) -> None:
    machines = [scene.space.cluster.nodes[name].machine for name in ("node1", "node2")]
    before = [residue.snapshot(machine) for machine in machines]

    service = manifests.service("leaving", {"group": "leaving"}, type="NodePort")
    space.apply(service)
    pods = space.ready(*(published(node, number) for node in ("node1", "node2") for number in (1, 2, 3)))
    addresses = [pod.address for pod in pods]

    def leftovers() -> list[str]:
        return [
            fact
            for machine, earlier in zip(machines, before, strict=True)
            for fact in left(machine, earlier, addresses)
        ]

    assert len([fact for fact in leftovers() if fact.startswith("reservation ")]) == len(pods)
    space.delete("pod,service", "--all")

    space.eventually("nothing is left of six pods", lambda: not leftovers())


def published(node: str, number: int) -> Manifest:
    """A pod behind a service and a host port."""
    ports = [{"containerPort": HTTP, "hostPort": 28100 + number}]
    return manifests.pod(
        f"leaving-{node}-{number}", node, manifests.agnhost(ports=ports), labels={"group": "leaving"}
    )


def left(machine: Machine, before: residue.Snapshot, addresses: list[str]) -> list[str]:
    """What a node has that it had not ``before``, and every rule that names one of the addresses."""
    now = residue.snapshot(machine)
    rules = [
        fact
        for fact in sorted(now.facts)
        if fact.startswith("filter ") and any(f"{a} " in f"{fact} " for a in addresses)
    ]
    return now.added_to(before, *OF_PODS) + rules
