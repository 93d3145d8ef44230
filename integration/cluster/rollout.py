"""azvnet as an operator installs it: the built image on the nodes, and ``kubectl apply -f`` of the manifest.

Owns the way from the repository's files to a DaemonSet. Must not know what is tested with it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.program import ClusterError

if TYPE_CHECKING:
    from integration.cluster.cluster import Cluster

_ROOT = Path(__file__).parents[2]
IMAGE = _ROOT / "dist" / "azvnet-image.tar"
OPERATOR_IMAGE = _ROOT / "dist" / "azvnet-operator-image.tar"
MANIFEST = _ROOT / "packaging" / "kubernetes" / "azvnet.yaml"
UNINSTALL = _ROOT / "packaging" / "kubernetes" / "uninstall.yaml"
CHART = _ROOT / "packaging" / "helm" / "azvnet"
WORKLOAD = "daemonset/azvnet"
NAMESPACE = "kube-system"


class HelmFailed(Exception):
    """helm did not do it; the message is helm's own."""


class ImageMissing(Exception):
    """The image was not built; the message says how to make it."""


def install(cluster: Cluster, *, only: str = "", patience: float = 120.0) -> float:
    """Install the DaemonSet and wait until every node is Ready; returns the seconds that took.

    The nodes get the image beforehand, as a registry would give it to them. ``only``: by the
    chart, on this node. A dual-stack cluster gets the chart as well, with both families.

    Raises:
        ImageMissing: there is no image to load.
        HelmFailed: the chart could not be installed.
        ClusterError: a node did not become Ready, or the DaemonSet not available.
    """
    load(cluster)
    if only or cluster.dual_stack:
        chosen = [rf"--set=nodeSelector.kubernetes\.io/hostname={only}"] if only else []
        chosen += ['--set-json=network.families=["IPv4","IPv6"]'] if cluster.dual_stack else []
        helm(cluster, "install", "azvnet", str(CHART), *chosen)
    else:
        apply(cluster)
    try:
        seconds = cluster.wait_nodes_ready(patience=patience)
        return seconds + cluster.wait_available(WORKLOAD, namespace=NAMESPACE, patience=patience)
    except ClusterError as error:
        error.add_note(said(cluster))
        raise


def said(cluster: Cluster, name: str = "azvnet", lines: int = 10) -> str:
    """The last that the containers of azvnet's pods said, on every node."""
    chosen = [f"--selector=app.kubernetes.io/name={name}", f"--namespace={NAMESPACE}"]
    asked = ["logs", *chosen, "--all-containers", "--prefix", f"--tail={lines}"]
    return cluster.kubectl(*asked, check=False).stdout


def apply(cluster: Cluster) -> None:
    """Apply the manifest, and wait for nothing. Raises KubectlFailed."""
    cluster.apply(MANIFEST.read_text(encoding="utf-8"))


def uninstall(cluster: Cluster, *, patience: float = 120.0) -> None:
    """Take it off every node, as an operator does: the nodes have no pods with addresses any more.

    Raises:
        KubectlFailed: the API server refused something.
        ClusterError: a node did not let it go; the message says what its pod said.
    """
    cluster.kubectl("delete", "--ignore-not-found", "--wait", f"--filename={MANIFEST}", timeout=patience)
    cluster.apply(UNINSTALL.read_text(encoding="utf-8"))
    try:
        cluster.wait_available("daemonset/azvnet-uninstall", namespace=NAMESPACE, patience=patience)
    except ClusterError as error:
        error.add_note(said(cluster, "azvnet-uninstall"))
        raise
    finally:
        cluster.kubectl("delete", "--wait", f"--filename={UNINSTALL}", timeout=patience)


def load(cluster: Cluster) -> None:
    """Give the built image to every node. Raises ImageMissing."""
    _load(cluster, IMAGE, "make image")


def load_operator(cluster: Cluster) -> None:
    """Give the operator's built image to every node. Raises ImageMissing."""
    _load(cluster, OPERATOR_IMAGE, "make operator-image")


def _load(cluster: Cluster, archive: Path, how: str) -> None:
    if not archive.exists():
        raise ImageMissing(f"{archive} is not there; run: {how}")
    cluster.load_image(archive)


def helm(cluster: Cluster, *arguments: str, patience: float = 120.0) -> str:
    """Run helm as administrator for azvnet's namespace; returns what it printed. Raises HelmFailed."""
    command = [str(cluster.tools / "helm"), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}"]
    command += arguments
    # What helm remembers of an API server goes where kubectl's does, not into the user's home.
    environ = {**os.environ, "KUBECACHEDIR": str(cluster.kubeconfig.parent / "kubectl")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience, env=environ)
    if done.returncode:
        raise HelmFailed(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
