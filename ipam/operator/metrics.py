"""What the operator measures, for Prometheus.

Owns the names (docs/operator.md lists them, a test compares). It must not know how a scrape arrives.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from ipam.operator.main import Operator


class Exposition:
    """The text of everything, rendered by one thread at a time."""

    def __init__(self, operator: Operator) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Operator(operator))
        self._lock = Lock()

    def encode(self, accept: str) -> tuple[str, bytes]:
        """Content type and text in the format of the scraper's ``Accept``."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            return content_type, encoder(self._registry)


class _Operator(Collector):
    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        leads = GaugeMetricFamily("azvnet_operator_leader", "Whether this operator leads.")
        leads.add_metric([], float(self._operator.elector.leads))
        yield leads
