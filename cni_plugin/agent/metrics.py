"""What the agent counts and measures, for Prometheus.

Owns the names (docs/agent.md lists them, a test compares) and where each number comes from. It reads the
pool through a separate view, so that scrapes and calls never wait for each other. It must not know how a
scrape arrives.
"""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Protocol

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cni_plugin import __version__, checks
from cni_plugin.addresses import allocate
from cni_plugin.agent import protocol
from cni_plugin.agent.readiness import Work
from cni_plugin.checks import Problem
from cni_plugin.cni import errors
from cni_plugin.cni.call import Reply
from cni_plugin.cni.params import NEEDED
from cni_plugin.datapath.drift import PUT_BACK
from cni_plugin.host import STATES
from cni_plugin.node import Node
from ipam.errors import IpamError
from ipam.model import AddressState, Overview

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
"""Seconds: an ADD takes some milliseconds, a DEL waits for RCU, and after 25 s the caller has given up."""
SERIES_FROM_THE_START = ("ADD", "DEL", "CHECK")
"""Verbs whose series exist before the first call, so that the first call shows up as a change."""
FRESH_SECONDS = 1.0
"""Seconds for which a rendered page is cached: rendering takes processor time from calls."""
MOST_FORMATS = 8
OK, OTHER = "ok", "other"
INTERNAL = 999
"""The code of an internal error."""
REPAIRS = (*PUT_BACK, *(state.KIND for state in STATES))
"""Kinds of repairs; each is a series from the start, so that the first repair shows up as a change."""


class Readable(Protocol):
    """What is needed of the readiness."""

    @property
    def last(self) -> str:
        """Why no address could be given out at the last check; empty: one could."""


def new_registry() -> CollectorRegistry:
    """A registry of the agent's own, with the usual metrics of its process."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class Exposition:
    """The text of everything: rendered by one thread at a time, and at most once a second for each format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = Lock()
        self._rendered: dict[str, tuple[float, bytes]] = {}

    def encode(self, accept: str) -> tuple[str, bytes]:
        """Content type and text in the format of the scraper's ``Accept``."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            at, text = self._rendered.get(content_type, (-math.inf, b""))
            if time.monotonic() - at >= FRESH_SECONDS:
                text = encoder(self._registry)
                if len(self._rendered) >= MOST_FORMATS:  # a scraper's parameters are part of the type
                    self._rendered.clear()
                self._rendered[content_type] = time.monotonic(), text
        return content_type, text


class CallMetrics:
    """What is counted of each call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histogram(
            "azvnet_call_duration_seconds",
            "Time the agent took for a call, by verb and outcome (ok, or the CNI error code).",
            ("verb", "outcome"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._errors = prometheus_client.Counter(
            "azvnet_call_errors",
            "Calls that were answered with an error, by verb and CNI error code.",
            ("verb", "code"),
            registry=registry,
        )
        self._known_codes = {str(code) for code in errors.own_codes()}
        self._lock = Lock()
        self._histograms = {(verb, OK): self._calls.labels(verb, OK) for verb in SERIES_FROM_THE_START}
        for code in sorted(self._known_codes, key=int):
            self._errors.labels("ADD", code)

    def observe(self, verb: str, reply: Reply, seconds: float) -> None:
        """Count one call. Called for each, from every thread that serves one."""
        outcome = OK if reply.exit_code == 0 else self._code(reply.error)
        histogram = self._histograms.get((verb, outcome)) or self._new(verb, outcome)
        histogram.observe(seconds)
        if outcome != OK:
            self._errors.labels(_known_verb(verb), outcome).inc()

    def _new(self, verb: str, outcome: str) -> Histogram:
        """The verb is caller input: unknown words must not become series."""
        known = _known_verb(verb)
        histogram = self._calls.labels(known, outcome)
        if known == verb:
            with self._lock:
                self._histograms = {**self._histograms, (verb, outcome): histogram}
        return histogram

    def _code(self, error: BaseException | None) -> str:
        code = str(error.code if isinstance(error, errors.CniError) else INTERNAL)
        return code if code in self._known_codes else OTHER


class NodeCollector(Collector):
    """What is read of the node at each scrape; the pool, its counters and the source in one transaction."""

    def __init__(
        self,
        registry: CollectorRegistry,
        node: Node,
        work: Work,
        readiness: Readable,
        problems: Callable[[], Sequence[Problem]],
    ) -> None:
        self._node = node
        self._work = work
        self._readiness = readiness
        self._problems = problems
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not read the node."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every number, as it is now."""
        yield InfoMetricFamily(
            "azvnet_build",
            "What runs here.",
            {
                "version": __version__,
                "protocol": str(protocol.VERSION),
                "python": platform.python_version(),
            },
        )
        yield GaugeMetricFamily(
            "azvnet_ready",
            "Whether an address could be given at the last look.",
            int(not self._readiness.last),
        )
        kinds = Counter(problem.kind for problem in self._problems())
        problems = GaugeMetricFamily(
            "azvnet_problems", "What is wrong although pods get addresses, by kind.", labels=("kind",)
        )
        for kind in sorted({*checks.KINDS, *kinds}):
            problems.add_metric((kind,), kinds[kind])
        yield problems
        yield _by_kind(self._work.repairs)
        try:
            overview = self._node.view.overview(self._work.cooldown)
        except IpamError:
            yield _store(readable=False)
            return
        yield _store(readable=True)
        yield from _pool(overview, self._states())
        yield from _source(overview)

    def _states(self) -> Mapping[str, int]:
        """The pool by state. An address that the host itself carries does not count as free."""
        addresses = self._node.view.addresses(self._work.cooldown)
        try:
            return checks.pool_states(addresses, allocate.host_addresses(self._node))
        finally:
            self._node.close()


def _pool(overview: Overview, numbers: Mapping[str, int]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "azvnet_pool_addresses", "Addresses by state; the states add up to the known ones.", labels=("state",)
    )
    for state in (*(each.value for each in AddressState), checks.ON_HOST):
        states.add_metric((state,), numbers.get(state, 0))
    yield states
    yield GaugeMetricFamily(
        "azvnet_pool_known_addresses", "Addresses that the node knows of, in whatever state.", overview.known
    )
    counters = overview.counters
    yield _counter("azvnet_pool_exhausted", "Times that no address was there to give.", counters, "exhausted")
    yield _counter(
        "azvnet_pool_cooldown_shortened",
        "Addresses given out before their cooldown was over, for want of others.",
        counters,
        "cooldown_shortened",
    )
    yield _counter(
        "azvnet_pool_quarantines",
        "Times that an address was set aside because something else carries it.",
        counters,
        "quarantined",
    )
    yield _counter("azvnet_pool_reclaimed", "Addresses freed whose holder was gone.", counters, "reclaimed")
    yield _counter(
        "azvnet_pool_adopted", "Live pods written again to a store that was lost.", counters, "adopted"
    )


def _source(overview: Overview) -> Iterator[Metric]:
    source, counters = overview.source, overview.counters
    yield InfoMetricFamily("azvnet_source", "Where addresses come from.", {"source": source.source})
    yield _counter("azvnet_source_reads", "Attempts to read the source.", counters, "source_reads")
    yield _counter("azvnet_source_errors", "Attempts that failed.", counters, "source_errors")
    yield GaugeMetricFamily(
        "azvnet_source_up", "Whether the last attempt succeeded.", int(not source.failures)
    )
    yield GaugeMetricFamily(
        "azvnet_source_age_seconds",
        "Time since the last successful read; +Inf before the first since the node was started.",
        math.inf if source.success_age is None else source.success_age,
    )
    yield GaugeMetricFamily(
        "azvnet_source_listed_addresses", "Addresses that the last successful read listed.", source.listed
    )


def _store(*, readable: bool) -> Metric:
    return GaugeMetricFamily(
        "azvnet_store_up", "Whether the store could be read for this scrape.", int(readable)
    )


def _by_kind(repairs: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "azvnet_repairs",
        "Things that something else took from a pod and that were put back.",
        labels=("kind",),
    )
    for kind in sorted({*REPAIRS, *repairs}):
        family.add_metric((kind,), repairs.get(kind, 0))
    return family


def _counter(name: str, text: str, values: Mapping[str, int], key: str) -> Metric:
    return CounterMetricFamily(name, text, values.get(key, 0))


def _known_verb(verb: str) -> str:
    return verb if verb in NEEDED else OTHER
