"""Pods whose address has a public IP of its own: they leave by it, and the Internet reaches them by it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from integration import plugins, witness
from integration.fabric import Fabric
from integration.fabric.ruleset import OUTBOUND
from integration.fabric.ruleset_v6 import OUTBOUND_V6
from integration.tests.conftest import shipped
from integration.tests.pods import WITNESS_PORT, Pod, attached, dropped, listening, use
from tests.waiting import eventually

if TYPE_CHECKING:
    from integration.fabric import Machine
    from ipam.model import IPAddress

pytestmark = pytest.mark.timeout(300)
AZVNET = "/opt/cni/bin/azvnet"
SETTINGS = {"refresh_seconds": 0.5, "reconcile_seconds": 0.5}
READY = ["curl", "-sf", "--unix-socket", "/run/azvnet/http.sock", "http://node/readyz"]
DOUBT = "still has a public address is not known"


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """One node, and a host of the Internet that says whom it sees."""
    with (
        Fabric(nodes=1, addresses=4, ipv6=2, internet=True, imds_limit=None) as fabric,
        listening(fabric.machines["internet"], "0.0.0.0"),
        listening(fabric.machines["internet"], "[::]"),
    ):
        plugins.install_ours(fabric.nodes["node1"])
        yield fabric


@contextlib.contextmanager
def agent(node: Machine, source: str) -> Iterator[None]:
    """The agent, with a network of both families whose addresses come from a source."""
    plugin = shipped("10-azvnet.conflist")["plugins"][0]
    ipam = {"type": "azvnet-ipam", "environment": source, "families": ["IPv4", "IPv6"]}
    use(node, {**plugin, "ipam": ipam})
    settings = json.dumps({**SETTINGS, "source": source})
    node.run(["sh", "-c", "mkdir -p /etc/azvnet && cat > /etc/azvnet/agent.json"], input=settings)
    argv = [AZVNET, "agent", "--config", "/etc/azvnet/agent.json"]
    process = node.popen(argv, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: not node.run(READY, check=False).returncode, "it has read the source", patience=60)
        yield
    finally:
        process.terminate()
        process.wait()


def place(address: IPAddress) -> str:
    return f"[{address}]:{WITNESS_PORT}" if address.version == 6 else f"{address}:{WITNESS_PORT}"


def seen(pod: Pod, azure: Fabric) -> tuple[str, ...]:
    """Under which addresses the Internet sees a pod: over TCP, over UDP, and over TCP of IPv6."""
    outside = azure.machines["internet"].vm.primary_nic
    asks: list[tuple[str, IPAddress]] = [
        ("tcp", outside.primary_ip),
        ("udp", outside.primary_ip),
        ("tcp", outside.ipv6[0]),
    ]
    return tuple(pod.run("python3", "-c", witness.ASK, kind, place(to)).strip() for kind, to in asks)


def addresses(pod: Pod, azure: Fabric) -> tuple[IPAddress, IPAddress]:
    """The pod's own, of both families."""
    nic = azure.estate.vm("node1").primary_nic
    (v6,) = [each for each in nic.ipv6 if str(each) == pod.ipv6]
    return pod.endpoint.address, v6


@pytest.mark.parametrize("source", ["imds", "arm"])
def test_a_pod_leaves_with_its_public_address_from_the_next_refresh_on(azure: Fabric, source: str) -> None:
    node, internet = azure.nodes["node1"], azure.machines["internet"]
    with agent(node, source):
        pod, other = attached(node, "pod-1", "pod-2")
        usual = (str(OUTBOUND), str(OUTBOUND), str(OUTBOUND_V6))
        assert seen(pod, azure) == usual
        v4, v6 = addresses(pod, azure)
        public, public_v6 = azure.give_public("node1", v4), azure.give_public("node1", v6)
        own = (str(public), str(public), str(public_v6))
        eventually(lambda: seen(pod, azure) == own, "it leaves with its public addresses")
        assert seen(other, azure) == usual
        outside = internet.vm.primary_nic
        for target, sender in ((public, outside.primary_ip), (public_v6, outside.ipv6[0])):
            inside = f"[{v6}]" if target.version == 6 else str(v4)
            with listening(node, inside, pod.netns):
                for kind in ("tcp", "udp"):
                    found = internet.run(["python3", "-c", witness.ASK, kind, place(target)]).stdout.strip()
                    assert found == str(sender), "nothing is translated on the way in but the target"
        assert dropped(azure) == {}
        asked = ["--from", str(v4), "--to", f"{outside.primary_ip}:443", "--output", "json"]
        said = json.loads(node.run([AZVNET, "explain", *asked]).stdout)
        assert (said["verdict"], said["source"]) == ("delivered", str(v4))
        assert any("public address of its own" in note for note in said["notes"])
        azure.take_public("node1", v4)
        azure.take_public("node1", v6)
        eventually(lambda: seen(pod, azure) == usual, "it leaves with the node's address again")


def test_a_public_address_of_the_basic_sku_is_in_the_other_document(azure: Fabric) -> None:
    node = azure.nodes["node1"]
    with agent(node, "imds"):
        (pod,) = attached(node, "pod-1")
        public = str(azure.give_public("node1", pod.endpoint.address, basic=True))
        eventually(lambda: seen(pod, azure)[0] == public, "it leaves with its public address")


def test_while_nobody_says_whether_it_has_one_an_address_is_taken_as_before(azure: Fabric) -> None:
    """The wireserver, which is asked when the metadata service does not answer, knows no public addresses."""
    node = azure.nodes["node1"]
    with agent(node, "auto"):
        (pod,) = attached(node, "pod-1")
        public = str(azure.give_public("node1", pod.endpoint.address))
        eventually(lambda: seen(pod, azure)[0] == public, "it leaves with its public address")
        azure.fault("imds", hang=True)
        status = [AZVNET, "status"]
        eventually(lambda: DOUBT in node.run(status, check=False).stdout, "it is said", patience=60)
        assert seen(pod, azure)[0] == public
        azure.clear_faults()
        eventually(
            lambda: DOUBT not in node.run(status, check=False).stdout, "it is known again", patience=60
        )
        assert seen(pod, azure)[0] == public
