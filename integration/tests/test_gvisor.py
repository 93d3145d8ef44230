"""A pod in gVisor's own sandbox: runsc takes the address off the pod's interface, and it stays off."""

from __future__ import annotations

import json
import signal
import subprocess
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from integration import plugins, residue, tools
from integration.tests.conftest import shipped
from integration.tests.pods import Pod
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.fabric import Fabric, Machine

SETTINGS = {"reconcile_seconds": 0.2}
CONFIG = "/etc/azvnet-agent.json"
BUNDLE = "/run/sandboxed"


@pytest.fixture
def node(node: Machine) -> Iterator[Machine]:
    """A node whose agent looks at its pods all the time."""
    plugins.write_conflist(node, shipped("10-azvnet.conflist"))
    node.run(["tee", CONFIG], input=json.dumps(SETTINGS))
    agent = node.popen(
        [f"{plugins.BIN}/azvnet", "agent", "--config", CONFIG],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield node
    agent.send_signal(signal.SIGTERM)
    agent.wait(30)


class Sandboxed:
    """A web server that runsc runs in a pod's namespace."""

    def __init__(self, pod: Pod) -> None:
        self._node = pod.node
        runsc = str(tools.gvisor() / "runsc")
        self._runsc = [runsc, f"--root={BUNDLE}/state", "--ignore-cgroups"]
        self._node.run(["mkdir", "-p", f"{BUNDLE}/rootfs/www"])
        self._node.run(["cp", "/bin/busybox", f"{BUNDLE}/rootfs/"])
        self._node.run(["tee", f"{BUNDLE}/rootfs/www/index.html"], input=pod.name)
        program = ["/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]
        spec = {
            "ociVersion": "1.0.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": program, "cwd": "/", "env": []},
            "root": {"path": "rootfs", "readonly": True},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": pod.netns}]},
        }
        spec["process"]["capabilities"] = {"bounding": ["CAP_NET_BIND_SERVICE"]}  # type: ignore[index]
        self._node.run(["tee", f"{BUNDLE}/config.json"], input=json.dumps(spec))
        self._process = self._node.popen(
            [*self._runsc, "run", "--bundle", BUNDLE, pod.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._name = pod.name

    def said(self) -> str:
        """What runsc printed, once it has ended; empty while it runs."""
        if self._process.poll() is None:
            return ""
        return self._process.communicate()[0] or f"exit code {self._process.returncode}"

    def stop(self) -> None:
        """End the sandbox."""
        self._node.run([*self._runsc, "kill", self._name, "KILL"], check=False)
        self._process.communicate(timeout=30)
        self._node.run([*self._runsc, "delete", "--force", self._name], check=False)
        self._node.run(["umount", f"{BUNDLE}/state/null-netns"], check=False)
        self._node.run(["rm", "-rf", BUNDLE])


@pytest.fixture
def pod(node: Machine) -> Iterator[Pod]:
    made = Pod.make(node, "sandboxed")
    yield made
    made.destroy()


def test_a_gvisor_pod_is_reached_and_stays_as_runsc_made_it(fabric: Fabric, node: Machine, pod: Pod) -> None:
    before = residue.snapshot(node)
    address = ip_interface(pod.add()["ips"][0]["address"]).ip
    assert [ip_interface(each).ip for each in pod.addresses()] == [address]
    outside = fabric.vnet_hosts["vm1"]

    def answer() -> str:
        get = ["timeout", "3", "busybox", "wget", "-q", "-O", "-", f"http://{address}/"]
        return outside.run(get, check=False).stdout

    sandbox = Sandboxed(pod)
    try:
        eventually(lambda: answer() == pod.name or sandbox.said(), "it answers, or runsc says why not")
        assert sandbox.said() == ""
        assert pod.addresses() == [], "runsc has taken it over, into its own network stack"
        for _ in range(3):  # what the agent puts back shows that it has looked
            node.run(["ip", "route", "flush", "proto", "155"])
            eventually(lambda: residue.snapshot(node).added_to(before, "route"), "the host's route is back")
        assert pod.addresses() == []
        assert answer() == pod.name
        assert f"address {address}" in pod.cnitool("check").stderr, "CHECK says what differs"
    finally:
        sandbox.stop()
    pod.delete()
    assert (
        residue.snapshot(node).added_to(before, "link", "address", "route", "neighbour", "reservation") == []
    )
