"""The keys of a network configuration: unknown ones, Azure CNI's, and the files that are shipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest

from ipam.model import SourceConfig
from tests.netns.node import ADDRESS, FABRIC, GATEWAY, MAC, SUBNET, Node, pod_addresses
from tests.netns.sandbox import Pod
from tests.netns.test_nics import list_second, plug
from tests.waiting import eventually

CONF = Path(__file__).parents[2] / "conf"
UNSUPPORTED, INVALID_NETCONF = 2, 7

AZURE_CNI: dict[str, Any] = {
    "cniVersion": "0.3.0",
    "name": "azure",
    "type": "azvnet",
    "mode": "transparent",
    "master": "eth0",
    "bridge": "azure0",
    "adapterName": "",
    "logLevel": "Info",
    "logTarget": "stdout",
    "infraVnetAddressSpace": "",
    "ipv6Mode": "",
    "serviceCidrs": "10.0.0.0/16",
    "vnetCidrs": "10.10.0.0/16",
    "podNamespaceForDualNetwork": [],
    "ipsToRouteViaHost": ["169.254.20.10"],
    "multiTenancy": False,
    "enableSnatOnHost": True,
    "enableExactMatchForPodName": True,
    "disableHairpinOnHostInterface": True,
    "disableIPTableLock": True,
    "disableAsyncDelete": False,
    "cnsurl": "http://localhost:10090",
    "executionMode": "default",
    "windowsSettings": {},
    "AdditionalArgs": [],
    "env": "",
    "dns": {"nameservers": ["168.63.129.16"]},
    "ipam": {
        "type": "azvnet-ipam",
        "environment": "fileIpam",
        "queryInterval": "10",
        "addressSpace": "local",
        "subnet": "10.10.0.0/16",
        "ipAddress": "",
        "mode": "overlay",
    },
}
SAID_TO_HAVE_NO_EFFECT = (
    *("bridge", "logTarget", "serviceCidrs", "vnetCidrs", "ipsToRouteViaHost", "enableSnatOnHost"),
    *("enableExactMatchForPodName", "disableHairpinOnHostInterface", "disableIPTableLock", "cnsurl"),
    *("executionMode", "ipam.addressSpace", "ipam.mode"),
)
ASK_FOR_NOTHING = ("adapterName", "multiTenancy", "disableAsyncDelete", "windowsSettings", "env", "ipv6Mode")


@pytest.fixture
def pod(busy_node: Node) -> Pod:
    return busy_node.sandbox.pod("c1")


def test_every_key_of_azure_cni_is_understood_and_what_does_nothing_is_said(
    busy_node: Node, pod: Pod
) -> None:
    added = busy_node.add(pod, conf=AZURE_CNI).done()
    for key in SAID_TO_HAVE_NO_EFFECT:
        assert f"{key} has no effect" in added.stderr
    for key in ASK_FOR_NOTHING:
        assert key not in added.stderr
    assert "unknown key" not in added.stderr
    assert added.result["dns"] == {"nameservers": ["168.63.129.16"]}
    busy_node.delete(pod, conf=AZURE_CNI).done()
    assert not busy_node.residue()


def test_an_unknown_key_is_said_with_what_was_probably_meant(busy_node: Node, pod: Pod) -> None:
    conf = busy_node.conf(msater="eth0", ipam={"colldown": 5})
    added = busy_node.add(pod, conf=conf).done()
    assert "msater" in added.stderr
    assert "master" in added.stderr.replace("msater", "")
    assert "ipam.colldown" in added.stderr
    assert "ipam.cooldown" in added.stderr


@pytest.mark.parametrize(
    ("unknown", "key", "value"),
    [
        ({"msater": "eth0"}, "msater", '"eth0"'),
        ({"ipam": {"colldown": 5}}, "ipam.colldown", "5"),
        ({"extra": {"a": [1]}}, "extra", '{"a": [1]}'),
    ],
)
def test_strict_refuses_an_unknown_key_by_name_and_value(
    busy_node: Node, pod: Pod, unknown: dict[str, Any], key: str, value: str
) -> None:
    failed = busy_node.add(pod, conf=busy_node.conf(strict=True, **unknown))
    assert failed.code == UNSUPPORTED
    assert key in failed.msg
    assert value in failed.msg
    assert not busy_node.residue()
    busy_node.delete(pod, conf=busy_node.conf(strict=True, **unknown)).done()


def test_what_the_spec_and_libcni_put_there_is_known(busy_node: Node, pod: Pod) -> None:
    conf = busy_node.conf(
        strict=True,
        cniVersions=["0.4.0", "1.0.0", "1.1.0"],
        capabilities={"portMappings": True},
        args={"cni": {}},
        dns={},
        disableCheck=False,
        disableGC=False,
        loadOnlyInlinedPlugins=False,
        runtimeConfig={},
        ipMasq=False,
    )
    conf |= {"cni.dev/attachments": [], "cni.dev/valid-attachments": [], "cni.dev/anything": 1}
    added = busy_node.add(pod, conf=conf).done()
    assert added.stderr == ""


@pytest.mark.parametrize("mode", ["overlay", "transparent-vlan", "l2-bridge", "Transparent"])
def test_a_mode_that_is_not_there_is_refused_with_key_and_value(busy_node: Node, pod: Pod, mode: str) -> None:
    for verb in ("ADD", "STATUS"):
        failed = busy_node.call(verb, pod, conf=busy_node.conf(mode=mode))
        assert failed.code == UNSUPPORTED
        assert "mode" in failed.msg
        assert mode in failed.msg
    assert not busy_node.residue()


@pytest.mark.parametrize("mode", ["transparent", "", None])
def test_transparent_is_the_mode_there_is(busy_node: Node, pod: Pod, mode: str | None) -> None:
    busy_node.add(pod, conf=busy_node.conf(mode=mode)).done()


@pytest.mark.parametrize("mode", ["bridge", "tunnel"])
def test_a_mode_that_would_rewire_the_host_gives_a_routed_pod_and_a_warning(node: Node, mode: str) -> None:
    pods = [node.sandbox.pod(name) for name in ("c1", "c2")]
    links = node.sandbox.ip("link", "show", "type", "bridge")
    added = [node.add(pod, conf=node.conf(mode=mode, bridge="azure0")).done() for pod in pods]
    assert f"mode {mode} is treated as transparent: " in added[0].stderr
    assert node.sandbox.ip("link", "show", "type", "bridge") == links == []
    for target in (added[1].address, GATEWAY):
        ping = node.sandbox.run("ip", "netns", "exec", "c1", "ping", "-n", "-c1", "-W2", target)
        assert ping.returncode == 0, ping.stdout
    node.check(pods[0], added[0], conf=node.conf(mode=mode, bridge="azure0")).done()


@pytest.mark.parametrize("environment", ["ipv6NodeIpam", "null", "aws", "File", ""])
def test_a_source_that_is_not_there_is_refused_with_key_and_value(
    busy_node: Node, pod: Pod, environment: str
) -> None:
    failed = busy_node.add(pod, conf=busy_node.conf(ipam={"environment": environment}))
    assert failed.code == UNSUPPORTED
    assert "ipam.environment" in failed.msg
    assert repr(environment) in failed.msg
    assert not busy_node.residue()


@pytest.mark.parametrize("environment", ["file", "fileIpam", "mas", "auto", None])
def test_every_name_of_the_file_source_works(busy_node: Node, pod: Pod, environment: str | None) -> None:
    ipam = {"type": "azvnet-ipam"} | ({"environment": environment} if environment else {})
    busy_node.add(pod, conf=busy_node.conf(ipam=ipam)).done()
    assert pod_addresses(pod) == ["10.10.0.5/32"]


@pytest.mark.alone("an agent has read the usual document by then")
def test_the_document_may_be_elsewhere(busy_node: Node, pod: Pod) -> None:
    text = busy_node.sandbox.path("/etc/kubernetes/interfaces.json").read_text()
    busy_node.sandbox.write("/run/elsewhere.json", text.replace("10.10.0.5", "10.10.0.77"))
    added = busy_node.add(pod, conf=busy_node.conf(ipam={"file": "/run/elsewhere.json"}))
    assert added.address == "10.10.0.6"
    other = busy_node.sandbox.pod("c2")
    asked = busy_node.add(
        other, conf=busy_node.conf(ipam={"file": "/run/elsewhere.json", "ipAddress": "10.10.0.77"})
    )
    assert asked.address == "10.10.0.77"


@pytest.mark.alone("an agent has its own state directory")
def test_the_state_directory_may_be_elsewhere(busy_node: Node, pod: Pod) -> None:
    elsewhere = {"AZVNET_RUN_DIR": "/run/other/place", "AZVNET_AGENT": "none"}
    busy_node.add(pod, env=elsewhere).done()
    assert busy_node.sandbox.path("/run/other/place/azvnet.db").is_file()
    assert busy_node.sandbox.path("/run/other/place").stat().st_mode & 0o777 == 0o700
    assert not busy_node.sandbox.path("/run/azvnet/azvnet.db").exists()
    busy_node.delete(pod, env=elsewhere).done()


def test_the_log_may_be_elsewhere_or_off(busy_node: Node) -> None:
    first, second = busy_node.sandbox.pods("c1", "c2")
    busy_node.add(first, conf=busy_node.conf(logFile="/var/log/azvnet/elsewhere.log")).done()
    elsewhere = busy_node.sandbox.path("/var/log/azvnet/elsewhere.log")
    eventually(lambda: elsewhere.exists() and "c1" in elsewhere.read_text(), "the call is logged there")
    busy_node.add(second, conf=busy_node.conf(logLevel="off")).done()
    busy_node.add(second, conf=busy_node.conf(logLevel="error"))
    eventually(busy_node.log, "the call that failed is logged")
    (record,) = busy_node.log()
    assert record["level"] == "error"
    assert record["exit"] == 1


# The files that are shipped


class Wireserver(BaseHTTPRequestHandler):
    """The document of azure-platform's wireserver, and nothing else."""

    def do_GET(self) -> None:
        if self.path != "/machine/plugins?comp=nmagent&type=getinterfaceinfov1":
            self.send_error(404)
            return
        addresses = "".join(
            f'<IPAddress Address="{each}" IsPrimary="{str(each == ADDRESS).lower()}"/>'
            for each in (ADDRESS, "10.10.0.5", "10.10.0.6")
        )
        body = (
            f'<Interfaces><Interface MacAddress="{MAC.replace(":", "").upper()}" IsPrimary="true">'
            f'<IPSubnet Prefix="{SUBNET}">{addresses}</IPSubnet></Interface></Interfaces>'
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture
def wireserver(busy_node: Node) -> Iterator[None]:
    """A wireserver at its address, on the node itself."""
    busy_node.sandbox.batch("address add 168.63.129.16/32 dev lo")

    listening, tell = os.pipe()

    def serve() -> None:
        with TCPServer(("168.63.129.16", 80), Wireserver) as server:
            os.write(tell, b".")
            server.serve_forever()

    running = busy_node.sandbox.fork(serve)
    os.close(tell)
    assert os.read(listening, 1) == b"."
    os.close(listening)
    yield
    running.kill()


SHIPPED = sorted(CONF.glob("*.conflist"))
SECOND = CONF / "second-nic.conflist"


@pytest.mark.parametrize("path", [each for each in SHIPPED if each != SECOND], ids=lambda path: path.name)
def test_a_file_that_is_shipped_works_as_it_is(
    busy_node: Node, pod: Pod, wireserver: None, path: Path
) -> None:
    works_as_it_is(path, busy_node, pod, "10.10.0.5")


def test_the_file_for_a_second_nic_gives_a_pod_an_address_of_it(busy_node: Node, pod: Pod) -> None:
    plug(busy_node)
    list_second(busy_node, 5, 6)
    busy_node.pool(lambda pool: pool.refresh(SourceConfig("auto"), deadline=5, force=True))
    works_as_it_is(SECOND, busy_node, pod, "10.20.0.5")


def works_as_it_is(path: Path, node: Node, pod: Pod, address: str) -> None:
    """As libcni hands it on: one plugin's part, with name and version of the list."""
    document = json.loads(path.read_text())
    (ours,) = [
        each
        for each in document["plugins"]
        if "azvnet" in each["type"] + each.get("ipam", {}).get("type", "")
    ]
    conf = {**ours, "name": document["name"], "cniVersion": document["cniVersion"]}
    as_ipam = ours["type"] != "azvnet"
    added = node.add(pod, conf=conf, as_ipam=as_ipam)
    assert added.address == address
    node.delete(pod, conf={**conf, "prevResult": added.result}, as_ipam=as_ipam).done()
    assert not node.residue()


def test_the_fabric_end_of_the_wire_is_no_part_of_the_node(busy_node: Node) -> None:
    """What these tests stand on: the node sees its own end of the uplink and nothing else."""
    assert [link["ifname"] for link in busy_node.sandbox.ip("link")] == ["lo", "eth0"]
    assert [link["ifname"] for link in busy_node.sandbox.ip("-n", FABRIC, "link")] == ["lo", "wire"]
