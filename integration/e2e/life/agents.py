"""The agents of a cluster: what each says of itself, and how one is killed.

Must not know what is expected of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.cluster import ClusterError, rollout, wait_until
from integration.containerd import cgroups

if TYPE_CHECKING:
    from integration.cluster import Cluster, Node

AZVNET = "/opt/cni/bin/azvnet"
CONFLIST = "/etc/cni/net.d/10-azvnet.conflist"
CALLS = "/var/log/azvnet/azvnet.log"
OF_AGENTS = (f"--namespace={rollout.NAMESPACE}", "--selector=app.kubernetes.io/name=azvnet")
"""For kubectl: the agents' pods."""
_MEMORY = {
    1: ("memory.usage_in_bytes", "memory.limit_in_bytes"),
    2: ("memory.current", "memory.max"),
}
"""What a group uses and may use, by version of cgroups."""
_SLACK = 65536
_PATIENCE = 60.0


def status(node: Node) -> dict[str, Any]:
    """What ``azvnet status`` says on a node; nothing of an agent while azvnet is not there."""
    said = node.run(["sh", "-c", f"{AZVNET} status --output=json"], check=False).stdout
    found: dict[str, Any] = json.loads(said or '{"agent": {}, "problems": ["not installed"]}')
    return found


def agent(node: Node) -> dict[str, Any]:
    """What the agent of a node says of itself; without ``pid`` when there is none."""
    found: dict[str, Any] = status(node)["agent"]
    return found


def await_other(node: Node, before: dict[str, Any]) -> None:
    """Wait until another agent than ``before`` is ready on the node. Raises ClusterError."""

    def ready() -> bool:
        now = agent(node)
        return bool(now.get("ready")) and now["started"] != before["started"]

    wait_until(f"{node.name} has another agent, and it is ready", ready, patience=_PATIENCE)


def await_content(node: Node) -> None:
    """Wait until store and kernel of a node agree. Raises ClusterError with what does not."""
    try:
        wait_until("no problem", lambda: not status(node)["problems"], patience=_PATIENCE)
    except ClusterError:
        raise ClusterError(f"{node.name}: {status(node)['problems']}") from None


def kill(node: Node) -> None:
    """SIGKILL to the agent of a node."""
    node.run(["kill", "-KILL", str(agent(node)["pid"])])


def starve(node: Node) -> None:
    """Leave the agent's container no memory but what it has, until the kernel kills it for that.

    Raises ClusterError when it never does.
    """
    usage, limit = _memory_of(node, int(agent(node)["pid"]))

    def gone() -> bool:
        try:
            limit.write_text(str(int(usage.read_text()) + _SLACK))
        except FileNotFoundError:
            return True
        except OSError:  # version 1 refuses a limit below what is used by now
            pass
        return False

    wait_until(f"the agent of {node.name} can't live without memory", gone, patience=_PATIENCE, pause=0.05)


def _memory_of(node: Node, pid: int) -> tuple[Path, Path]:
    """The files that say how much memory the container of a process uses and may use."""
    lines = node.run(["cat", f"/proc/{pid}/cgroup"]).stdout.splitlines()
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    version = 1 if "memory" in groups else 2
    group = groups["memory" if version == 1 else ""].strip("/")
    for hierarchy in cgroups.hierarchies():
        usage, limit = (hierarchy / group / name for name in _MEMORY[version])
        if usage.exists():
            return usage, limit
    raise ClusterError(f"no hierarchy of cgroups has {group}")


def last_ends(cluster: Cluster) -> dict[str, str]:
    """Why the container of each node's agent ended the last time, as the kubelet says it."""
    found = {}
    for pod in cluster.get("pods", *OF_AGENTS)["items"]:
        ended = pod["status"]["containerStatuses"][0]["lastState"].get("terminated", {})
        found[pod["spec"]["nodeName"]] = str(ended.get("reason", ""))
    return found


def calls(node: Node) -> list[dict[str, Any]]:
    """The log of all calls on a node."""
    said = node.run(["cat", CALLS], check=False).stdout
    return [json.loads(line) for line in said.splitlines()]
