"""CoreDNS on the node, at the addresses of NodeLocal DNSCache: it sees pods under their own addresses."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from integration import dnscache, plugins
from integration.dnscache import LISTENS, LISTENS_V6
from integration.fabric import Fabric
from integration.tests.conftest import shipped
from integration.tests.pods import Pod, attached, dropped, use
from integration.tools import kubernetes
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Machine

pytestmark = pytest.mark.timeout(300)
COREFILE = ". {\n  errors\n  whoami\n}\n"
"""Whoami answers with the address of who asks, in the additional section."""
ASK = ["dig", "+noall", "+additional", "+tries=1", "+time=10", "who.test"]
EVERY = (*LISTENS, *LISTENS_V6)


@pytest.fixture
def azure() -> Iterator[Fabric]:
    """A node with CoreDNS, and pods with addresses of both families."""
    with Fabric(nodes=1, addresses=4, ipv6=3, vnet_hosts=0) as fabric:
        node = fabric.nodes["node1"]
        plugins.install_ours(node)
        conf = shipped("10-azvnet.conflist")["plugins"][0]
        use(node, {**conf, "ipam": {**conf["ipam"], "families": ["IPv4", "IPv6"]}})
        node.run(["ip", "-batch", "-"], input="\n".join(dnscache.link(EVERY)) + "\n")
        for rule in dnscache.rules(EVERY):
            node.run(rule)
        node.run(["sh", "-c", "cat > /run/Corefile"], input=COREFILE)
        dns = node.popen(
            [str(kubernetes() / "coredns"), "-conf", "/run/Corefile"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: answered(node), "CoreDNS answers")
            yield fabric
        finally:
            dns.terminate()
            dns.wait()


def answered(node: Machine) -> bool:
    """Whether CoreDNS answers the node itself."""
    return bool(node.run([*ASK, f"@{LISTENS[0]}"], check=False).stdout.strip())


def seen(pod: Pod, server: str, *options: str) -> set[str]:
    """The addresses in what it answers to a pod."""
    lines = pod.run(*ASK, f"@{server}", *options).splitlines()
    return {fields[4] for line in lines if len(fields := line.split()) == 5 and fields[3] in {"A", "AAAA"}}


@pytest.mark.parametrize("options", [(), ("+tcp",)], ids=["UDP", "TCP"])
def test_the_dns_cache_of_the_node_sees_pods_as_they_are(azure: Fabric, options: tuple[str, ...]) -> None:
    pod, other = attached(azure.nodes["node1"], "pod-1", "pod-2")
    for each in (pod, other):
        own = str(each.endpoint.address)
        assert {server: seen(each, server, *options) for server in EVERY} == {
            server: {each.ipv6 if ":" in server else own} for server in EVERY
        }
    assert dropped(azure) == {}
