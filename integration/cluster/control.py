"""What a shell can ask of a running cluster, beside what its fabric answers.

Owns the names of the requests; they go through the fabric's control socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integration.cluster.cluster import Cluster
    from integration.cluster.node import Node


def offer(cluster: Cluster) -> None:
    """Let the cluster's fabric answer these requests as soon as it is up."""

    def node(name: str) -> Node:
        if name not in cluster.nodes:
            raise ValueError(f"there is no node {name}; there are {', '.join(cluster.nodes)}")
        return cluster.nodes[name]

    def about() -> dict[str, Any]:
        return {
            "kubeconfig": str(cluster.kubeconfig),
            "control_pid": cluster.control_machine.holder_pid,
            "logs": str(cluster.logs_folder),
            "proxy": {name: each.proxy_mode for name, each in cluster.nodes.items()},
            "programs": [
                [each.machine.name, each.name, each.pid if each.running else 0] for each in cluster.programs()
            ],
        }

    cluster.fabric.commands |= {
        "cluster": lambda _: about(),
        # A node that boots starts its kubelet, as every other machine with Kubernetes does.
        "reboot": lambda fabric, machine: (
            node(machine).reboot() if machine in cluster.nodes else fabric.reboot(machine)
        ),
        "proxy": lambda _, mode: cluster.set_proxy_mode(mode),
        "load-image": lambda _, archive: cluster.load_image(archive),
    }
