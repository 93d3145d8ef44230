"""Kubernetes' own specs about networking, with azvnet as its DaemonSet installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster import conformance
from integration.cluster.conformance import DOCUMENT, Spec

if TYPE_CHECKING:
    from integration.cluster import Cluster

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def nftables(ready_cluster: Cluster) -> list[Spec]:
    """What came of the conformance specs in the mode that clusters start with."""
    taints = [
        taint["key"]
        for node in ready_cluster.get("nodes")["items"]
        for taint in node["spec"].get("taints", ())
    ]
    return conformance.run(
        ready_cluster.control_machine.holder_pid,
        ready_cluster.logs_folder / "conformance",
        nodes=len(ready_cluster.nodes),
        taints=taints,
    )


def test_all_45_conformance_specs_of_sig_network_pass(nftables: list[Spec]) -> None:
    assert [f"{spec.name}: {spec.state} {spec.message}" for spec in nftables if not spec.passed] == []
    assert len(nftables) == 45


def test_documented_results_are_those_of_this_run(nftables: list[Spec]) -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert page == conformance.document(page, "nftables", nftables)
