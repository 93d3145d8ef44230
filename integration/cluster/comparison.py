"""Kubernetes' own specs on azvnet and on the reference plugins, one cluster after the other, spec by spec.

Owns which specs are compared, and what of the difference is a fault. Must not know how the page of results
looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.cluster import conformance, images, rollout
from integration.cluster.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from integration.cluster.conformance import Spec

CONTENDERS = ("azvnet", "ptp")
"""azvnet as an operator installs it, and `ptp` with `host-local` and `portmap` (`cni.reference_conflist`)."""
ADDRESSES, ZONES = 80, 3

_NEVER = (
    r"\[(Slow|Serial|Disruptive|Provider:GCE)\]"
    r"|\[Feature:(LoadBalancer|Ingress|NetworkPolicy|SCTPConnectivity|Networking-DNS|Networking-IPv[46]"
    r"|Networking-Performance|PerformanceDNS|KubeProxyNFAcct|OffByDefault)\]"
)
"""What is left out, for the reasons that docs/conformance.md gives."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Specs that are compared in one cluster."""

    name: str
    title: str
    """What the page says they are."""
    focus: str
    """Regular expression over the full name of a spec."""
    skip: str
    """Those of them that this one matches are left out."""
    dual_stack: bool = False
    nodes: int = 3


SELECTIONS = {
    each.name: each
    for each in (
        Selection(
            "dual-stack",
            "`[Feature:IPv6DualStack]` on a dual-stack cluster",
            r"\[sig-network\].*\[Feature:IPv6DualStack\]",
            _NEVER,
            dual_stack=True,
        ),
        Selection(
            "beyond",
            "`[sig-network]` beyond conformance",
            r"\[sig-network\]",
            rf"\[Conformance\]|\[Feature:IPv6DualStack\]|{_NEVER}",
            nodes=6,  # specs about the distribution of traffic need two in each of three zones
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a selection with one of the contenders."""

    specs: tuple[Spec, ...]
    dropped: Mapping[str, int]
    """Packets that the emulated Azure dropped for their source address, by machine."""


def run(selection: Selection, contender: str, proxy: str, say: Callable[[str], None]) -> Run:
    """Run the specs of a selection on a cluster of their own. Raises ClusterError."""
    cni = None if contender == "azvnet" else contender
    shape = {
        "nodes": selection.nodes,
        "addresses": ADDRESSES,
        "dual_stack": selection.dual_stack,
        "proxy": proxy,
        "zones": ZONES,
    }
    with Cluster(**shape, cni=cni, progress=say) as cluster:  # type: ignore[arg-type]
        if cni is None:
            rollout.install(cluster)
        cluster.wait_nodes_ready()
        cluster.load_image(images.e2e())
        cluster.wait_dns()
        found = conformance.run(
            cluster.control_machine.holder_pid,
            cluster.logs_folder / "conformance",
            nodes=selection.nodes,
            focus=selection.focus,
            skip=selection.skip,
            progress=lambda ended: say(f"{ended} specs finished"),
        )
        say(f"output: {cluster.logs_folder / 'conformance' / 'output.log'}")
        counters = cluster.fabric.drop_counters()
    wrong = [*counters.spoofed.items(), *counters.platform.items()]
    return Run(tuple(found), {name: packets for name, packets in wrong if packets})


def faults(runs: Mapping[str, Run]) -> list[str]:
    """What is wrong with azvnet, or with the cluster; ``runs``: of the same selection, by contender."""
    ours, theirs = (runs[each] for each in CONTENDERS)
    found = [f"Azure dropped {packets} packets of {name}" for name, packets in sorted(ours.dropped.items())]
    there = {spec.name: spec.state for spec in theirs.specs}
    for spec in (each for each in ours.specs if not each.passed):
        beside = f"{there.get(spec.name, 'not run')} with {CONTENDERS[1]}"
        found.append(f"{spec.state} with azvnet, {beside}: {spec.name}: {spec.message}")
    if missing := there.keys() - {spec.name for spec in ours.specs}:
        found += [f"did not run with azvnet: {name}" for name in sorted(missing)]
    return found


def passed(found: Sequence[Spec]) -> int:
    """How many passed."""
    return sum(spec.passed for spec in found)
