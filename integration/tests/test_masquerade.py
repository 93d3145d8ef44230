"""Real packets on the emulated Azure: who is reached, and under which address the far end saw it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from integration import plugins, witness
from integration.fabric import Fabric
from integration.fabric.model import IMDS, WIRESERVER
from integration.fabric.ruleset import OUTBOUND
from integration.tests.conftest import shipped
from integration.tests.pods import WITNESS_PORT, Pod, attached, dropped, listening, use
from tests.waiting import eventually

TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/"
INTERFACES = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1"


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """Two nodes and every kind of network that Azure connects or does not."""
    shape = {"peered_hosts": 1, "on_premises_hosts": 1, "internet": True, "imds_limit": None}
    with Fabric(nodes=2, addresses=8, **shape) as fabric, contextlib.ExitStack() as undo:  # type: ignore[arg-type]
        for node in fabric.nodes.values():
            plugins.install_ours(node)
            use(node, *shipped("10-azvnet.conflist")["plugins"][:1])
        for machine in fabric.machines.values():
            undo.enter_context(listening(machine, "0.0.0.0"))
        yield fabric


def saw(pod: Pod, kind: str, places: list[str]) -> list[str]:
    """What the far ends say, one after the other."""
    return pod.run("python3", "-c", witness.ASK, kind, *places).splitlines()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_far_end_sees_a_pod_as_it_should_and_the_fabric_drops_nothing(azure: Fabric, kind: str) -> None:
    one, two = azure.nodes.values()
    pod, beside = attached(one, "pod-1", "pod-2")
    (far,) = attached(two, "pod-3")
    own = str(pod.endpoint.address)
    hosts = azure.vnet_hosts
    wanted = {
        str(one.primary_ip): own,
        str(two.primary_ip): own,
        str(beside.endpoint.address): own,
        str(far.endpoint.address): own,
        str(hosts["vm1"].primary_ip): own,
        str(hosts["peer1"].primary_ip): own,
        str(hosts["onpremises1"].primary_ip): own,
        str(hosts["internet"].primary_ip): str(OUTBOUND),
    }
    with contextlib.ExitStack() as undo:
        for each in (beside, far):
            undo.enter_context(listening(each.node, str(each.endpoint.address), each.netns))
        found = saw(pod, kind, [f"{address}:{WITNESS_PORT}" for address in wanted])
    assert dict(zip(wanted, found, strict=True)) == wanted
    assert dropped(azure) == {}


def test_the_platform_is_closed_to_pods_and_dns_is_not(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    (pod,) = attached(node, "pod-1")
    places = [f"{WIRESERVER}:80", f"{WIRESERVER}:32526", f"{IMDS}:80"]
    assert saw(pod, "tcp", places) == ["refused"] * 3
    assert str(azure.vnet_hosts["vm1"].primary_ip) in pod.run("busybox", "nslookup", "vm1", str(WIRESERVER))
    assert "Interfaces" in node.run(["curl", "-sf", f"http://{WIRESERVER}{INTERFACES}"]).stdout
    assert dropped(azure) == {}


@pytest.mark.timeout(300)
def test_with_the_agent_source_arm_says_what_is_inside_and_settings_open_the_metadata_service(
    azure: Fabric,
) -> None:
    node = azure.nodes["node1"]
    settings = {"source": "arm", "platform": {"imds": "open"}, "reconcile_seconds": 0.5}
    node.run(["sh", "-c", "mkdir -p /etc/azvnet && cat > /etc/azvnet/agent.json"], input=json.dumps(settings))
    plugin = {**shipped("10-azvnet.conflist")["plugins"][0]}
    use(node, {**plugin, "ipam": {"type": "azvnet-ipam", "environment": "arm"}})
    agent = node.popen(["/opt/cni/bin/azvnet", "agent", "--config", "/etc/azvnet/agent.json"])
    try:
        spaces = "10.10.0.0/16, 10.20.0.0/16"
        eventually(
            lambda: spaces in node.run(["nft", "list", "ruleset"]).stdout, "the address space is in the table"
        )
        (pod,) = attached(node, "pod-1")
        own = str(pod.endpoint.address)
        hosts = azure.vnet_hosts
        places = [f"{hosts[name].primary_ip}:{WITNESS_PORT}" for name in ("vm1", "peer1", "onpremises1")]
        assert saw(pod, "tcp", places) == [own, own, str(node.primary_ip)], "no route of Azure names the last"
        token = pod.run("curl", "-sf", "-H", "Metadata: true", f"http://{IMDS}{TOKEN}")
        assert "access_token" in token, "the node's identity: that is what open means"
        assert saw(pod, "tcp", [f"{WIRESERVER}:80"]) == ["refused"]
        free = str(node.pod_addresses[-1])
        answered = pod.run("ping", "-n", "-c3", "-i0.2", "-W2", free, check=False)
        assert "Time to live exceeded" not in answered
        assert saw(pod, "tcp", [f"{free}:80"]) == ["refused"], "at once, not after its patience"
        assert dropped(azure) == {}
    finally:
        agent.terminate()
        agent.wait()
