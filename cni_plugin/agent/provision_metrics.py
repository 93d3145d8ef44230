"""What is measured of the growing and shrinking of the NIC, for Prometheus.

Owns the names (docs/agent.md lists them, a test compares). It must not know where a number comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cni_plugin.agent.metric_families import labelled
from ipam import nic_counts as counts

if TYPE_CHECKING:
    from cni_plugin.agent.requests_made import Counted
    from ipam.provision.progress import Progress

PROVISION_COUNTERS = (
    ("reads", counts.READS, "Requests to Azure Resource Manager that read, polls included."),
    ("throttled", counts.THROTTLED, "Requests that Azure Resource Manager throttled."),
    ("added_addresses", counts.ADDED, "Addresses that were added to the NIC."),
    ("removed_addresses", counts.REMOVED, "Addresses that were removed from the NIC."),
)
"""Names, events in the store, and what each is."""


def of_progress(progress: Progress | None) -> Iterator[Metric]:
    """What is being done."""
    yield labelled(
        GaugeMetricFamily,
        "azvnet_provision_state",
        "What is being done to the NIC's IP configurations; 1 for the current state.",
        "state",
        {progress.phase if progress else "off": 1},
    )
    yield GaugeMetricFamily(
        "azvnet_provision_in_flight_addresses",
        "Addresses on the NIC that the source does not list yet.",
        progress.in_flight if progress else 0,
    )
    yield GaugeMetricFamily(
        "azvnet_provision_configurations",
        "IP configurations of the NIC when it was read last, the primary one included.",
        progress.configurations if progress else 0,
    )
    yield GaugeMetricFamily(
        "azvnet_provision_vanished_addresses",
        "Addresses of live pods that the NIC did not have when it was read last.",
        len(progress.vanished) if progress else 0,
    )
    coming = progress.coming if progress else None
    yield GaugeMetricFamily(
        "azvnet_provision_coming_pods",
        "Pods bound to the node that have no address yet; NaN: unknown.",
        math.nan if coming is None else coming,
    )


def of_requests(api: Counted, arm: Counted) -> Iterator[Metric]:
    """Requests that were sent."""
    for name, text, found in (
        ("api", "Requests to the cluster's API server, by the status of the response.", api),
        (
            "arm",
            "Requests to Azure Resource Manager about the NIC, by the status of the response.",
            arm,
        ),
    ):
        family = CounterMetricFamily(
            f"azvnet_provision_{name}_requests", text, labels=("method", "resource", "code")
        )
        for labels, number in sorted(found.items()):
            family.add_metric(labels, number)
        yield family


def of_writes(found: Mapping[str, int], progress: Progress | None) -> Iterator[Metric]:
    """What is counted of changes to the NIC. Each outcome is a series from the start where it is on."""
    outcomes = {counts.OK, *filter(None, map(counts.outcome_of, found))}
    if progress is not None:
        from ipam.provision.refusals import Kind

        outcomes |= {counts.INTERRUPTED, *(kind.value for kind in Kind)}
    yield labelled(
        CounterMetricFamily,
        "azvnet_provision_writes",
        "Writes of the NIC, by outcome.",
        "outcome",
        {each: found.get(counts.writes_ended(each), 0) for each in sorted(outcomes)},
    )
    for name, event, text in PROVISION_COUNTERS:
        yield CounterMetricFamily(f"azvnet_provision_{name}", text, found.get(event, 0))
    limits = (*map(str, counts.BUCKETS), "+Inf")
    taken = accumulate(found.get(counts.bucket(index), 0) for index in range(len(limits)))
    yield HistogramMetricFamily(
        "azvnet_provision_write_duration_seconds",
        "Time from a write of the NIC to the end of its operation, where that succeeded.",
        buckets=list(zip(limits, taken, strict=True)),
        sum_value=found.get(counts.WRITE_SECONDS, 0),
    )
