"""azvnet as an operator installs it: the built image on the nodes, and ``kubectl apply -f`` of the manifest.

Owns the way from the repository's files to a DaemonSet. Must not know what is tested with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.cluster.cluster import Cluster

_ROOT = Path(__file__).parents[2]
IMAGE = _ROOT / "dist" / "azvnet-image.tar"
MANIFEST = _ROOT / "packaging" / "kubernetes" / "azvnet.yaml"
WORKLOAD = "daemonset/azvnet"
NAMESPACE = "kube-system"


class ImageMissing(Exception):
    """The image was not built; the message says how to make it."""


def install(cluster: Cluster, *, patience: float = 120.0) -> float:
    """Install the DaemonSet and wait until every node is Ready; returns the seconds that took.

    The nodes get the image beforehand, as a registry would give it to them.

    Raises:
        ImageMissing: there is no image to load.
        ClusterError: a node did not become Ready, or the DaemonSet not available.
    """
    if not IMAGE.exists():
        raise ImageMissing(f"{IMAGE} is not there; run: make image")
    cluster.load_image(IMAGE)
    cluster.apply(MANIFEST.read_text(encoding="utf-8"))
    seconds = cluster.wait_nodes_ready(patience=patience)
    return seconds + cluster.wait_available(WORKLOAD, namespace=NAMESPACE, patience=patience)
