"""azvnet with the reference IPAM plugin dhcp, which asks over the interface that is being made."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import plugins, residue
from integration.tests.pods import Pod, machine, unreached, use, without_files
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Fabric, Machine

SERVER = Path(__file__).with_name("dhcp_server.py")
SOCKET = "/run/cni/dhcp.sock"


@pytest.fixture
def address(node: Machine) -> Iterator[str]:
    """The address that a DHCP server on the node gives, with the plugin's daemon running."""
    given = str(node.pod_addresses[5])
    argv = ["/usr/bin/python3", "-IS", str(SERVER), f"{given}/20", "10.10.0.1"]
    server = node.popen(argv, stdout=subprocess.PIPE)
    daemon = node.popen([f"{plugins.BIN}/dhcp", "daemon"], stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() in ("listening", b"listening")
        listens = ["test", "-S", SOCKET]
        eventually(lambda: node.run(listens, check=False).returncode == 0, "the daemon listens")
        yield given
    finally:
        for process in (daemon, server):
            process.kill()
            process.communicate()


def test_a_pod_gets_the_address_that_a_dhcp_server_gives(fabric: Fabric, node: Machine, address: str) -> None:
    use(node, {"type": "azvnet", "ipam": {"type": "dhcp"}}, version="1.1.0")
    pod = Pod.make(node, "leased")
    before = residue.snapshot(node)

    result = pod.add()

    assert [ip["address"] for ip in result["ips"]] == [f"{address}/32"] == pod.addresses()
    assert unreached([machine(fabric.vnet_hosts["vm1"])], [pod.endpoint]) == []
    assert pod.cnitool("check").ok
    pod.delete()
    assert pod.links().keys() == {"lo"}
    assert without_files(residue.snapshot(node).added_to(before)) == []


def test_a_server_that_gives_nothing_leaves_nothing(node: Machine) -> None:
    use(node, {"type": "azvnet", "ipam": {"type": "dhcp"}}, version="1.1.0")
    pod = Pod.make(node, "alone")
    before = residue.snapshot(node)

    refused = pod.cnitool("add")

    assert not refused.ok
    assert SOCKET in refused.stderr, "its daemon is not there"
    assert without_files(residue.snapshot(node).added_to(before)) == []
    assert pod.links().keys() == {"lo"}
