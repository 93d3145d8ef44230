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
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cni_plugin import __version__, checks
from cni_plugin.addresses import allocate
from cni_plugin.agent import protocol, provision_metrics
from cni_plugin.agent.metric_families import Family, labelled
from cni_plugin.agent.readiness import Work
from cni_plugin.agent.requests_made import Counted, RequestsMade
from cni_plugin.checks import Problem
from cni_plugin.cni import errors
from cni_plugin.cni.call import Reply
from cni_plugin.cni.params import NEEDED
from cni_plugin.datapath.drift import PUT_BACK
from cni_plugin.host import STATES
from cni_plugin.node import Node
from ipam.errors import IpamError
from ipam.model import AddressState, Overview, SourceState
from ipam.reservations import exhausted

if TYPE_CHECKING:
    from ipam.provision.progress import Progress

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
POOL_COUNTERS = (
    ("cooldown_shortened", "Addresses given out before their cooldown was over, because no other was free."),
    ("quarantined", "Times that an address was quarantined because something else carries it."),
    ("reclaimed", "Addresses freed because their holder was gone."),
    ("adopted", "Live pods restored to a store that was lost."),
)
"""Events in the store, and what each is."""
REPAIRS = (*PUT_BACK, *(state.KIND for state in STATES))
"""Kinds of repairs; each is a series from the start, so that the first repair shows up as a change."""


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
    """What is read of the node at each scrape; the pool, its counters and the sources in one transaction."""

    def __init__(
        self,
        registry: CollectorRegistry,
        node: Node,
        work: Work,
        why_not_ready: Callable[[], str],
        problems: Callable[[], Sequence[Problem]],
        progress: Callable[[], Progress | None] = lambda: None,
        requests: Callable[[], tuple[Counted, Counted]] = lambda: RequestsMade().counted(),
    ) -> None:
        self._progress = progress
        self._requests = requests
        self._node = node
        self._work = work
        self._why_not_ready = why_not_ready
        self._problems = problems
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not read the node."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every number, as it is now."""
        about = {
            "version": __version__,
            "protocol": str(protocol.VERSION),
            "python": platform.python_version(),
        }
        yield InfoMetricFamily("azvnet_build", "The running version; always 1.", about)
        yield GaugeMetricFamily(
            "azvnet_ready",
            "Whether an address could be given at the last check.",
            int(not self._why_not_ready()),
        )
        kinds = Counter(problem.kind for problem in self._problems())
        yield labelled(
            GaugeMetricFamily,
            "azvnet_problems",
            "Problems that exist although pods get addresses, by kind.",
            "kind",
            {kind: kinds[kind] for kind in sorted({*checks.KINDS, *kinds})},
        )
        yield from provision_metrics.of_progress(self._progress())
        yield from provision_metrics.of_requests(*self._requests())
        repairs = self._work.repairs
        yield labelled(
            CounterMetricFamily,
            "azvnet_repairs",
            "Repairs of what something else had changed, by kind.",
            "kind",
            {kind: repairs.get(kind, 0) for kind in sorted({*REPAIRS, *repairs})},
        )
        try:
            overview = self._node.view.overview(self._work.cooldown)
        except IpamError:
            overview = None
        yield GaugeMetricFamily(
            "azvnet_store_up", "Whether the store could be read for this scrape.", int(overview is not None)
        )
        if overview is not None:
            yield from _pool(overview, self._states())
            yield from _sources(overview)
            yield from provision_metrics.of_writes(overview.counters, self._progress())

    def _states(self) -> Mapping[int, Mapping[str, int]]:
        """The pool by family and state. An address that the host itself carries does not count as free."""
        addresses = self._node.view.addresses(self._work.cooldown)
        try:
            on_host = allocate.host_addresses(self._node, allocate.versions_of(addresses))
            return checks.pool_by_family(addresses, on_host)
        finally:
            self._node.close()


def _pool(overview: Overview, pool: Mapping[int, Mapping[str, int]]) -> Iterator[Metric]:
    """Only of families that the pool has: one that pods do not get must not look exhausted."""
    text = "Addresses by family and state; they add up to the known ones."
    addresses = GaugeMetricFamily("azvnet_pool_addresses", text, labels=("family", "state"))
    for version, numbers in pool.items():
        for state in (*(each.value for each in AddressState), checks.ON_HOST):
            addresses.add_metric((f"ipv{version}", state), numbers.get(state, 0))
    yield addresses
    yield GaugeMetricFamily(
        "azvnet_pool_known_addresses", "All addresses in the pool, whatever their state.", overview.known
    )
    none_left = CounterMetricFamily(
        "azvnet_pool_exhausted", "Times that no address of a family was available.", labels=("family",)
    )
    for version in (4, 6):
        if (times := overview.counters[exhausted(version)]) or version in pool:
            none_left.add_metric((f"ipv{version}",), times)
    yield none_left
    for event, text in POOL_COUNTERS:
        name = "quarantines" if event == "quarantined" else event
        yield CounterMetricFamily(f"azvnet_pool_{name}", text, overview.counters[event])


def _sources(overview: Overview) -> Iterator[Metric]:
    """Of each source that a network of the node uses."""
    info = InfoMetricFamily("azvnet_source", "Where addresses come from.", labels=("source",))
    for each in overview.sources:
        info.add_metric((each.config.key,), {"answered": each.source})
    yield info

    def of_each(kind: Family, name: str, text: str, value: Callable[[SourceState], float]) -> Metric:
        values = {each.config.key: value(each) for each in overview.sources}
        return labelled(kind, f"azvnet_source_{name}", text, "source", values)

    def counted(event: str) -> Callable[[SourceState], float]:
        return lambda each: overview.counters.get(f"{event} {each.config.key}", 0)

    yield of_each(CounterMetricFamily, "reads", "Attempts to read the source.", counted("source_reads"))
    yield of_each(CounterMetricFamily, "errors", "Attempts that failed.", counted("source_errors"))
    yield of_each(
        GaugeMetricFamily, "up", "Whether the last attempt succeeded.", lambda each: not each.failures
    )
    yield of_each(
        GaugeMetricFamily,
        "age_seconds",
        "Time since the last successful read; +Inf before the first since the node was started.",
        lambda each: math.inf if each.success_age is None else each.success_age,
    )
    yield of_each(
        GaugeMetricFamily,
        "listed_addresses",
        "Addresses that the last successful read listed.",
        lambda each: each.listed,
    )


def _known_verb(verb: str) -> str:
    return verb if verb in NEEDED else OTHER
