"""The manifests against the API server itself: every field is one that it knows, and of the right type."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from integration.cluster import rollout

if TYPE_CHECKING:
    from integration.cluster import Cluster

PLAIN = ("azvnet.yaml", "uninstall.yaml")
CHARTS = {
    "defaults": (),
    "uninstall": ("uninstall.enabled=true",),
    "everything": (
        "network.source=file",
        "network.mtu=1400",
        "network.plugins[0].type=tuning",
        "agent.expectedPods=30",
        "agent.arm.credential=workload-identity",
        "metrics.enabled=true",
        "image.pullSecrets[0].name=registry",
        "node.binDir=/var/lib/rancher/k3s/data/cni",
        "node.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d",
        "podLabels.team=network",
        "extraEnv[0].name=AZVNET_RUN_DIR",
        "extraEnv[0].value=/run/azvnet",
        "nodeSelector.pool=linux",
        "serviceAccount.annotations.note=of-an-operator",
    ),
}


def dry_run(cluster: Cluster, manifest: str) -> str:
    """What the API server would do with it, if it takes it as it stands."""
    done = cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--namespace=kube-system", "-f", "-", input=manifest
    )
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PLAIN)
def test_api_server_takes_the_plain_manifest_as_it_stands(cluster: Cluster, name: str) -> None:
    said = dry_run(cluster, (rollout.MANIFEST.parent / name).read_text(encoding="utf-8"))
    assert "daemonset.apps/azvnet" in said


@pytest.mark.parametrize("values", CHARTS.values(), ids=CHARTS)
def test_api_server_takes_what_the_chart_renders(cluster: Cluster, values: tuple[str, ...]) -> None:
    # Not --validate: where azvnet is installed without helm, that asks whose the objects are.
    command = [str(cluster.tools / "helm"), "template", "azvnet", str(rollout.CHART)]
    command += ["--kube-version=1.34.0", "--namespace=kube-system", *(f"--set={value}" for value in values)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "daemonset.apps/azvnet" in dry_run(cluster, rendered)


def test_api_server_refuses_a_field_that_nobody_knows(cluster: Cluster) -> None:
    """Else the tests above would say nothing."""
    wrong = rollout.MANIFEST.read_text(encoding="utf-8").replace("hostNetwork:", "hostNetwrok:")
    with pytest.raises(subprocess.CalledProcessError, match="hostNetwrok"):
        dry_run(cluster, wrong)
