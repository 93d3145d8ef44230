"""Services through kube-proxy, in each mode that this kernel can run: the pods' network lets them work.

IPVS mode needs a kernel with CONFIG_IP_VS. What a server sees of its client is what kube-proxy promises:
the pod's own address to a cluster address, the node's to a node port and from a pod to itself, the
client's own to a node port with ``externalTrafficPolicy: Local``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from integration.e2e import manifests
from integration.e2e.ends import End, Unanswered, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.e2e.scene import Scene

MODES = ("nftables", "iptables")
HTTP, UDP = 80, 81
BOTH = {"group": "both"}


@dataclass(frozen=True)
class Service:
    """Where a service is reached."""

    cluster_ip: str
    http_node_port: int
    udp_node_port: int


@dataclass(frozen=True)
class Stage:
    """The shared pods and the services in front of them, in one mode of kube-proxy."""

    scene: Scene
    mode: str
    one: Service
    """In front of ``here`` alone."""
    both: Service
    """In front of ``here`` and ``there``."""
    sticky: Service
    """The same with session affinity."""
    local: Service
    """In front of ``here``, with external traffic policy Local."""


@pytest.fixture(scope="module", params=MODES)
def stage(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Stage]:
    mode: str = request.param
    space, cluster = scene.space, scene.space.cluster
    if any(node.proxy_mode != mode for node in cluster.nodes.values()):
        cluster.set_proxy_mode(mode)
    local = {"externalTrafficPolicy": "Local"}
    wanted = [
        manifests.service("one", {"app": "here"}, type="NodePort"),
        manifests.service("both", BOTH, type="NodePort"),
        manifests.service("sticky", BOTH, type="NodePort", sessionAffinity="ClientIP"),
        manifests.service("local", {"app": "here"}, type="NodePort", **local),
    ]
    space.apply(*wanted)
    try:
        services = [found(scene, each["metadata"]["name"]) for each in wanted]
        for service in services:
            for node in (scene.node1, scene.node2):
                space.eventually(
                    f"kube-proxy of {node.name} serves {service.cluster_ip}",
                    lambda node=node, service=service: answers(node, service),  # type: ignore[misc]
                )
        yield Stage(scene, mode, *services)
    finally:
        space.delete(*(f"service/{each['metadata']['name']}" for each in wanted))
        if mode != MODES[0]:
            cluster.set_proxy_mode(MODES[0])


def found(scene: Scene, name: str) -> Service:
    spec = scene.space.get("service", name)["spec"]
    ports = {port["name"]: port["nodePort"] for port in spec["ports"]}
    return Service(spec["clusterIP"], ports["http"], ports["udp"])


def answers(asker: End, service: Service) -> bool:
    try:
        return bool(asker.http(service.cluster_ip, HTTP) and asker.udp(service.cluster_ip, UDP))
    except Unanswered:
        return False


def seen(asker: End, host: str, http: int, udp: int) -> set[str]:
    """Under which address a server saw a client, over TCP and over UDP."""
    clients = asker.http(host, http, "clientip") + asker.udp(host, udp, "clientip")
    return {address_of(client) for client in clients}


def who(asker: End, host: str, http: int, udp: int, tries: int = 1) -> set[str]:
    """Who answered over TCP and over UDP."""
    return {*asker.http(host, http, tries=tries), *asker.udp(host, udp, tries=tries)}


def test_kube_proxy_runs_in_the_mode_that_is_tested(stage: Stage) -> None:
    for node in (stage.scene.node1, stage.scene.node2):
        assert node.get("127.0.0.1", 10249, "proxyMode") == stage.mode
        rules = node.sh("iptables-save -t nat; nft list table ip kube-proxy 2>/dev/null || :")
        assert ("-A KUBE-SVC-" in rules, "service-endpoints" in rules) == (
            stage.mode == "iptables",
            stage.mode == "nftables",
        )


def test_cluster_address_leads_pods_to_the_pod_and_it_sees_their_own_address(stage: Stage) -> None:
    scene, address = stage.scene, stage.one.cluster_ip
    for asker in (scene.beside, scene.there, scene.host_pod, scene.node1, scene.node2):
        assert who(asker, address, HTTP, UDP) == {"here"}, asker.name
        assert seen(asker, address, HTTP, UDP) == {asker.address}, asker.name


def test_pod_reaches_itself_through_its_service(stage: Stage) -> None:
    scene = stage.scene
    assert who(scene.here, stage.one.cluster_ip, HTTP, UDP) == {"here"}
    assert seen(scene.here, stage.one.cluster_ip, HTTP, UDP) == {scene.node1.address}


def test_node_port_of_every_node_leads_to_the_pod(stage: Stage) -> None:
    scene, ports = stage.scene, (stage.one.http_node_port, stage.one.udp_node_port)
    for node in (scene.node1, scene.node2):
        for asker in (scene.outside, *scene.pods, scene.node1, scene.node2):
            assert who(asker, node.address, *ports) == {"here"}, f"{asker.name} -> {node.name}"
        assert seen(scene.outside, node.address, *ports) == {node.address}


def test_local_traffic_policy_keeps_the_address_of_the_client(stage: Stage) -> None:
    scene, ports = stage.scene, (stage.local.http_node_port, stage.local.udp_node_port)
    assert who(scene.outside, scene.node1.address, *ports) == {"here"}
    assert seen(scene.outside, scene.node1.address, *ports) == {scene.outside.address}
    with pytest.raises(Unanswered):  # there is no such pod on node2, and the policy forbids to go on
        scene.outside.get(scene.node2.address, ports[0], "hostname", patience=0.5)


def test_every_pod_of_a_service_gets_requests_and_affinity_keeps_a_client_with_one(stage: Stage) -> None:
    scene = stage.scene
    for asker in (scene.beside, scene.node2):
        assert who(asker, stage.both.cluster_ip, HTTP, UDP, tries=20) == {"here", "there"}, asker.name
        assert len(set(asker.http(stage.sticky.cluster_ip, HTTP, tries=20))) == 1, asker.name
    node = scene.node2.address
    assert who(scene.outside, node, stage.both.http_node_port, stage.both.udp_node_port, 20) == {
        "here",
        "there",
    }
    assert len(set(scene.outside.http(node, stage.sticky.http_node_port, tries=20))) == 1


def test_a_megabyte_passes_a_service_whole(stage: Stage) -> None:
    scene = stage.scene
    sent = scene.there.sh("head -c 1048576 /dev/urandom >/tmp/blob; md5sum </tmp/blob").split()[0]
    url = f"http://{stage.one.cluster_ip}/upload"
    assert '"output"' in scene.there.sh(f"curl --silent --max-time 20 -F file=@/tmp/blob {url}")
    got = scene.here.sh("f=$(ls -t /uploads/* | head -n 1); md5sum <$f; rm $f").split()[0]
    assert got == sent
