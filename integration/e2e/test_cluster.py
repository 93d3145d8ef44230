"""The cluster itself: what it starts, survives and takes away again. Each on a small one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster import Cluster, ClusterError
from integration.containerd import cgroups
from integration.fabric import records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Node

NAME = "e2e-cli"


def leftovers(name: str) -> list[str]:
    """What a cluster of that name has on this machine."""
    found = [str(h / g.name) for h in cgroups.hierarchies() for g in h.glob(f"{name}-*")]
    found += [str(records.root() / name)] if (records.root() / name).exists() else []
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return found + [line for line in mounts if name in line]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def kernel_settings() -> dict[str, str]:
    names = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
    return {name: Path("/proc/sys", name).read_text() for name in names}


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """One Ready node."""
    with Cluster(1, 8, dns=False, cni="azvnet") as cluster:
        cluster.wait_nodes_ready()
        yield cluster


@pytest.fixture
def node(small: Cluster) -> Node:
    return small.nodes["node1"]


def test_node_is_ready_when_a_plugin_is_there_and_the_end_leaves_nothing() -> None:
    before = kernel_settings()
    with Cluster(1, 8, dns=False) as cluster:
        pids = [program.pid for program in cluster.programs()]
        pids += [node.containerd.pid for node in cluster.nodes.values()]
        assert cluster.ready_nodes() == []
        assert "cni plugin not initialized" in cluster.kubectl("describe", "node", "node1").stdout
        cluster.install_cni("azvnet")
        cluster.wait_nodes_ready(patience=60)
        assert leftovers(cluster.name), "or this test looks in the wrong place"
        assert kernel_settings() == before, "the kubelet has written into this machine's kernel"
    assert leftovers(cluster.name) == []
    assert alive(pids) == []


def test_killed_cluster_ends_with_its_process_and_the_next_one_removes_the_rest() -> None:
    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "integration.cluster", "--name", NAME, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        said = call("up", "--nodes=1", "--addresses=8", "--cni=ptp")
        assert "kubeconfig" in said
        assert (
            json.loads(call("kubectl", "get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]
            == "node1"
        )
        call("reboot", "node1")
        record = records.read(NAME)
        assert record is not None
        os.kill(record.owner.pid, signal.SIGKILL)
    finally:
        call("down")
    assert leftovers(NAME) == []
    assert [holder for holder in record.holders if holder.alive()] == []


def test_rebooted_node_becomes_ready_again_and_keeps_its_images(small: Cluster, node: Node) -> None:
    booted, pids = node.machine.boot_id, [node.kubelet.pid, node.proxy.pid, node.containerd.pid]
    node.reboot()
    small.wait_nodes_ready()
    assert node.machine.boot_id != booted
    assert alive(pids) == []
    assert "azvnet.test/traffic" in node.run(["ctr", "-n", "k8s.io", "image", "ls", "-q"]).stdout


def test_everything_goes_on_after_the_api_server_was_away(small: Cluster) -> None:
    small.stop_api_server()
    assert small.kubectl("get", "nodes", check=False).returncode != 0
    small.start_api_server()
    small.wait_nodes_ready()
    assert [str(program) for program in small.programs() if not program.running] == []


def test_kube_proxy_leaves_nothing_of_its_old_mode(node: Node) -> None:
    def rules() -> tuple[bool, bool]:
        tables = node.run(["nft", "list", "tables"]).stdout
        return "kube-proxy" in tables, "KUBE-SERVICES" in node.run(["iptables-save"]).stdout

    node.proxy.wait_until("set up", lambda: rules() == (True, False))
    node.set_proxy_mode("iptables")
    try:
        node.proxy.wait_until("set up", lambda: rules() == (False, True))
    finally:
        node.set_proxy_mode("nftables")
    node.proxy.wait_until("set up", lambda: rules() == (True, False))


def test_ipvs_mode_works_where_the_kernel_has_it_and_says_so_where_not(node: Node) -> None:
    has = subprocess.run(["modprobe", "-q", "ip_vs"], check=False).returncode == 0
    try:
        if has or Path("/proc/net/ip_vs").exists():
            node.set_proxy_mode("ipvs")
            assert "10.96.0.1" in node.run(["cat", "/proc/net/ip_vs"]).stdout or node.proxy.running
        else:
            with pytest.raises(ClusterError, match="Ipvs not supported"):
                node.set_proxy_mode("ipvs")
    finally:
        node.set_proxy_mode("nftables")
