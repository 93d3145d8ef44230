"""What the operator measures, for Prometheus.

Owns the names (docs/operator.md lists them, a test compares). It must not know how a scrape arrives.
"""

from __future__ import annotations

import time
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ipam import nic_counts as counts
from ipam.operator.line import Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from ipam.operator.main import Operator
    from ipam.operator.term import Term

FRESH_SECONDS = 1.0
"""Seconds for which a rendered page is kept."""
_REGION = ("subscription", "location")


class OperatorExposition:
    """The text of everything, rendered by one thread at a time and at most once a second."""

    def __init__(self, operator: Operator) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Operator(operator))
        self._lock = Lock()
        self._kept: tuple[float, str, bytes] = (float("-inf"), "", b"")

    def encode(self, accept: str) -> tuple[str, bytes]:
        """Content type and text in the format of the scraper's ``Accept``."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            at, kind, text = self._kept
            if kind != content_type or time.monotonic() - at >= FRESH_SECONDS:
                text = encoder(self._registry)
                self._kept = time.monotonic(), content_type, text
        return content_type, text


class _Operator(Collector):
    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        leads = GaugeMetricFamily("azvnet_operator_leader", "Whether this operator leads.")
        leads.add_metric([], float(self._operator.elector.leads))
        yield leads
        yield from self._writes()
        term = self._operator.term
        if term is not None:
            yield from _fleet(term)
            yield from _turns(term)

    def _writes(self) -> Iterator[Metric]:
        found = dict(self._operator.counters)
        ended = CounterMetricFamily(
            "azvnet_operator_writes", "Finished writes to NICs, by outcome.", labels=["outcome"]
        )
        for counter, number in sorted(found.items()):
            if outcome := counts.outcome_of(counter):
                ended.add_metric([outcome], number)
        yield ended
        sums = list(accumulate(found.get(counts.bucket(at), 0) for at in range(len(counts.BUCKETS) + 1)))
        limits = [*(f"{each:.1f}" for each in counts.BUCKETS), "+Inf"]
        took = HistogramMetricFamily(
            "azvnet_operator_write_duration_seconds", "Time from a write to the end of its operation."
        )
        took.add_metric([], list(zip(limits, sums, strict=True)), found.get(counts.WRITE_SECONDS, 0))
        yield took
        for name, counter, text in (
            ("added_addresses", counts.ADDED, "Addresses added to NICs."),
            ("removed_addresses", counts.REMOVED, "Addresses removed from NICs."),
        ):
            yield CounterMetricFamily(f"azvnet_operator_{name}", text, value=found.get(counter, 0))


def _fleet(term: Term) -> Iterator[Metric]:
    nodes = GaugeMetricFamily("azvnet_operator_nodes", "Nodes, by state.", labels=["state"])
    for state, number in sorted(term.fleet.counted(lambda record: record.node.status.state).items()):
        nodes.add_metric([state or "new"], number)
    yield nodes
    pods = GaugeMetricFamily(
        "azvnet_operator_waiting_pods", "Pods that found no free address, as counted by the agents."
    )
    pods.add_metric([], sum(each.node.spec.pool.waiting for each in term.fleet.all_records()))
    yield pods
    yield GaugeMetricFamily("azvnet_operator_pods", "Pods being tracked.", value=len(term.pods))
    yield GaugeMetricFamily("azvnet_operator_working", "Nodes being worked on.", value=term.turns.working)
    yield CounterMetricFamily(
        "azvnet_operator_status_writes",
        "Writes of status to the API server.",
        value=term.status_writer.writes,
    )
    yield CounterMetricFamily(
        "azvnet_operator_events",
        "Events about pods that can't be given an address.",
        value=term.status_writer.events,
    )


def _turns(term: Term) -> Iterator[Metric]:
    """Of each region and kind of requests."""
    kind, queued = [*_REGION, "kind"], [*_REGION, "kind", "class"]
    used = CounterMetricFamily("azvnet_operator_requests", "Requests to Azure.", labels=kind)
    throttled = CounterMetricFamily(
        "azvnet_operator_throttled", "Requests that Azure throttled.", labels=kind
    )
    left = GaugeMetricFamily("azvnet_operator_budget_left", "Requests that are allowed at once.", labels=kind)
    length = GaugeMetricFamily("azvnet_operator_queue", "Nodes that wait for their turn.", labels=queued)
    oldest = GaugeMetricFamily(
        "azvnet_operator_queue_oldest_seconds", "How long the first of them has been waiting.", labels=queued
    )
    waited = SummaryMetricFamily(
        "azvnet_operator_queue_wait_seconds",
        "How long nodes have waited for their turn.",
        labels=[*_REGION, "class"],
    )
    now = term.common.clock()
    for region, account in term.turns.accounts():
        where = [region.subscription, region.location]
        for sort, meter in account.meters.items():
            used.add_metric([*where, sort.value], meter.used)
            throttled.add_metric([*where, sort.value], meter.throttled)
            left.add_metric([*where, sort.value], meter.left(now))
            longest = account.works[sort].longest(now)
            for order, number in account.works[sort].lengths().items():
                length.add_metric([*where, sort.value, order.name.lower()], number)
                oldest.add_metric([*where, sort.value, order.name.lower()], longest[order])
        for order in Urgency:
            number, seconds = account.begun[order]
            waited.add_metric([*where, order.name.lower()], number, seconds)
    yield from (used, throttled, left, length, oldest, waited)
