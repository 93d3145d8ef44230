"""Families of metrics with one label, for Prometheus.

It must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def labelled(kind: Family, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """One series for each value of a label."""
    family = kind(name, text, labels=(label,))
    for each, value in values.items():
        family.add_metric((each,), value)
    return family
