"""Kubernetes' own specs about networking, with azvnet as its DaemonSet installs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster import conformance
from integration.cluster.conformance import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Cluster

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "conformance.md"
WRITTEN = ROOT / ".cache" / "reports" / "conformance.md"

pytestmark = pytest.mark.timeout(1200)


def run(cluster: Cluster, mode: str, focus: str) -> list[Spec]:
    taints = [
        taint["key"] for node in cluster.get("nodes")["items"] for taint in node["spec"].get("taints", ())
    ]
    folder = cluster.logs_folder / f"conformance-{mode}"
    return conformance.run(
        cluster.control_machine.holder_pid, folder, nodes=len(cluster.nodes), focus=focus, taints=taints
    )


@pytest.fixture(scope="module")
def nftables(ready_cluster: Cluster) -> list[Spec]:
    """What came of the conformance specs in the mode that clusters start with."""
    return run(ready_cluster, "nftables", conformance.CONFORMANCE)


@pytest.fixture(scope="module")
def iptables(ready_cluster: Cluster) -> Iterator[list[Spec]]:
    """What came of those that need what kube-proxy sets up, in its older mode."""
    ready_cluster.set_proxy_mode("iptables")
    yield run(ready_cluster, "iptables", conformance.SERVICES)
    ready_cluster.set_proxy_mode("nftables")


def problems(specs: list[Spec]) -> list[str]:
    return [f"{spec.name}: {spec.state} {spec.message}" for spec in specs if not spec.passed]


def test_all_45_conformance_specs_of_sig_network_pass(nftables: list[Spec]) -> None:
    assert problems(nftables) == []
    assert len(nftables) == 45


def test_specs_about_services_pass_in_iptables_mode(iptables: list[Spec]) -> None:
    assert problems(iptables) == []
    assert len(iptables) == 23


def test_documented_results_are_those_of_this_run(nftables: list[Spec], iptables: list[Spec]) -> None:
    WRITTEN.parent.mkdir(parents=True, exist_ok=True)
    WRITTEN.write_text(conformance.document(nftables, iptables), encoding="utf-8")
    documented = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    assert documented == WRITTEN.read_text(encoding="utf-8"), f"cp {WRITTEN} {DOCUMENT}"
