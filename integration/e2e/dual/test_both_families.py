"""Both families at once: who a pod is, who reaches it under which address, services and names of IPv6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import comparison, conformance
from integration.cluster.controlplane import DOMAIN
from integration.cluster.node import addresses_of
from integration.e2e import manifests
from integration.e2e.ends import HTTP, Host, Pod, address_of

if TYPE_CHECKING:
    from integration.cluster import Cluster
    from integration.e2e.space import Space

HOST_PORT = 28080
LONG = r"udp|update endpoints|session affinity|large requests"


def ipv6_of(space: Space, pod: Pod) -> str:
    """The second of the pod's addresses, as Kubernetes knows it."""
    first, second = (each["ip"] for each in space.get("pod", pod.name)["status"]["podIPs"])
    assert first == pod.address
    return str(second)


def seen_as(asker: Host | Pod, address: str, port: int) -> str:
    """The address under which a server sees somebody."""
    (client,) = asker.http(address, port, "clientip")
    return address_of(client).strip("[]")


def test_pods_and_nodes_see_each_other_under_their_own_ipv6_addresses(dual: Cluster, space: Space) -> None:
    here, there = space.ready(manifests.pod("here", "node1"), manifests.pod("there", "node2"))
    v6 = {pod.name: ipv6_of(space, pod) for pod in (here, there)}
    for pod, node in ((here, "node1"), (there, "node2")):
        assert v6[pod.name] in {str(each) for each in dual.nodes[node].machine.vm.primary_nic.ipv6[1:]}
    assert seen_as(here, v6["there"], HTTP) == v6["here"]
    assert seen_as(here, v6["here"], HTTP) == v6["here"]
    for name, machine in dual.fabric.machines.items():
        assert seen_as(Host.of(machine), v6["there"], HTTP) == str(machine.vm.primary_nic.ipv6[0]), name


def test_services_names_node_ports_and_host_ports_lead_to_pods_over_ipv6(dual: Cluster, space: Space) -> None:
    policy = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    space.apply(manifests.service("web", {"app": "web"}, type="NodePort", **policy))
    ports = [{"containerPort": HTTP, "hostPort": HOST_PORT}]
    web, asking = space.ready(
        manifests.pod("web", "node1", manifests.agnhost(ports=ports)), manifests.pod("asking", "node2")
    )
    spec = space.get("service", "web")["spec"]
    v6, v4 = spec["clusterIPs"]
    assert ":" in v6
    assert v4.startswith("10.96.")
    space.eventually("kube-proxy has the service", lambda: asking.answered(v6, 80))
    assert seen_as(asking, v6, 80) == ipv6_of(space, asking)

    name = f"web.{space.name}.svc.{DOMAIN}"
    for server in dual.services.dns:
        found = asking.sh(f"dig +short @{server} {name} AAAA; dig +short @{server} {name} A").split()
        assert found == [v6, v4], server
    assert asking.sh(f"curl --silent -6 http://{name}/hostname") == "web"

    (node_port,) = (each["nodePort"] for each in spec["ports"] if each["name"] == "http")
    for node in ("node1", "node2"):
        address = addresses_of(dual.nodes[node].machine)[1]
        assert Host.of(dual.control_machine).http(address, node_port) == ["web"], node
    assert seen_as(asking, addresses_of(dual.nodes["node1"].machine)[1], HOST_PORT) == ipv6_of(space, asking)
    assert web.node == "node1"


@pytest.mark.timeout(900)
def test_specs_of_kubernetes_for_dual_stack_pass(dual: Cluster) -> None:
    """Those that take minutes are in `make conformance-compare`, with all the others."""
    chosen = comparison.SELECTIONS["dual-stack"]
    found = conformance.run(
        dual.control_machine.holder_pid,
        dual.logs_folder / "conformance",
        nodes=len(dual.nodes),
        focus=chosen.focus,
        skip=f"{chosen.skip}|{LONG}",
    )
    assert [f"{spec.name}: {spec.state} {spec.message}" for spec in found if not spec.passed] == []
    assert len(found) == 13
