"""The cluster itself: nodes become Ready by a plugin alone, and nothing of it stays behind."""

from __future__ import annotations

from pathlib import Path

from integration.cluster import Cluster
from integration.containerd import cgroups
from integration.fabric import records


def leftovers(name: str) -> list[str]:
    """What a cluster of that name has on this machine."""
    found = [str(h / g.name) for h in cgroups.hierarchies() for g in h.glob(f"{name}-*")]
    found += [str(records.root() / name)] if (records.root() / name).exists() else []
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return found + [line for line in mounts if name in line]


def test_node_is_ready_when_a_plugin_is_there_and_the_end_leaves_nothing() -> None:
    with Cluster(1, 8, dns=False) as cluster:
        pids = [program.pid for program in cluster.programs()]
        pids += [node.containerd.pid for node in cluster.nodes.values()]
        assert cluster.ready_nodes() == []
        assert "cni plugin not initialized" in cluster.kubectl("describe", "node", "node1").stdout
        cluster.install_cni("azvnet")
        cluster.wait_nodes_ready(patience=60)
        assert leftovers(cluster.name), "or this test looks in the wrong place"
    assert leftovers(cluster.name) == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
