"""The metrics: named as Prometheus wants it, true, and cheap for the calls they count."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from cni_plugin.agent import metrics as module
from cni_plugin.agent.metrics import BUCKETS, CallMetrics, Exposition, NodeCollector, new_registry
from cni_plugin.agent.requests_made import RequestsMade
from cni_plugin.cni import errors
from cni_plugin.cni.call import Reply
from cni_plugin.cni.params import NEEDED
from ipam import nic_counts
from ipam.errors import PoolExhausted
from ipam.model import SourceConfig
from ipam.provision.progress import Progress
from ipam.provision.refusals import Kind
from tests.unit.agent.work import Place, Work
from tests.waiting import eventually

if TYPE_CHECKING:
    from prometheus_client import Metric

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
STATES = {"free", "assigned", "cooling", "quarantined"}
NAME = re.compile(r"(azvnet|process)_[a-z][a-z0-9]*(_[a-z0-9]+)*")
BASE_UNITS = {"seconds", "bytes"}
OTHER_UNITS = {"milliseconds", "microseconds", "minutes", "hours", "ms", "kib", "mib", "kilobytes", "percent"}
KINDS_IN_NAMES = {"gauge", "counter", "histogram", "summary", "metric"}


class Metrics:
    """Everything that is exposed."""

    def __init__(self, place: Place, work: Work) -> None:
        self.registry = new_registry()
        self.observe = CallMetrics(self.registry).observe
        self.progress: Progress | None = None
        self.requests = RequestsMade()
        NodeCollector(
            self.registry, place.node, work, str, list, lambda: self.progress, self.requests.counted
        )

    def encode(self, accept: str) -> tuple[str, bytes]:
        return Exposition(self.registry).encode(accept)


@pytest.fixture
def metrics(place: Place, work: Work) -> Metrics:
    return Metrics(place, work)


def families(metrics: Metrics, accept: str = "") -> dict[str, Metric]:
    _, body = metrics.encode(accept)
    parse = parse_openmetrics if accept else parse_text
    return {family.name: family for family in parse(body.decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"there is no {name} {labels}"
    return found


def failed(error: BaseException) -> Reply:
    return Reply(b"{}", 1, error=error)


def test_names_follow_the_rules_of_promtool(place: Place, metrics: Metrics) -> None:
    place.list_addresses(3)
    metrics.observe("ADD", failed(errors.PoolError(PoolExhausted("full", family=4))), 0.1)
    _, body = metrics.encode("")
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE))
    helped = set(re.findall(r"^# HELP (\S+) \S", body.decode(), re.MULTILINE))
    assert typed.keys() == helped, "each has a help text"
    assert len(typed) > 20
    for name, kind in typed.items():
        words = set(name.split("_"))
        assert NAME.fullmatch(name), name
        assert not words & (KINDS_IN_NAMES | OTHER_UNITS), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search("_(bucket|count|sum|created)$", name), name
        if words & {"age", "duration", "cpu", "time"}:
            assert words & BASE_UNITS, f"{name} has no unit"
    labels = {
        label for family in parse_text(body.decode()) for each in family.samples for label in each.labels
    }
    assert all(re.fullmatch("[a-z]+", label) for label in labels)
    assert "_created" not in body.decode()


def test_both_text_formats_can_be_read_and_say_the_same(place: Place, metrics: Metrics) -> None:
    place.list_addresses(3)
    place.hold("web")
    plain, open_ = families(metrics), families(metrics, OPENMETRICS)
    assert {name.removesuffix("_info") for name in plain} == set(open_)
    for name in ("azvnet_pool_addresses", "azvnet_repairs", "azvnet_call_errors"):
        said = [
            {(each.name, *each.labels.values()): each.value for each in f[name].samples}
            for f in (plain, open_)
        ]
        assert said[0] == said[1] != {}


def test_the_states_are_told_and_add_up(place: Place, metrics: Metrics) -> None:
    place.list_addresses(5)
    place.hold("web")
    place.node.ipam.release(place.hold("gone"))
    samples = families(metrics)["azvnet_pool_addresses"].samples
    assert {each.labels["family"] for each in samples} == {"ipv4"}, "none of one that the pool does not have"
    told = {each.labels["state"]: each.value for each in samples}
    assert told == {"free": 3, "assigned": 1, "cooling": 1, "quarantined": 0, "on_host": 0}
    assert value(metrics, "azvnet_pool_known_addresses") == 5


def test_requests_that_find_no_address_are_counted_by_family(place: Place, metrics: Metrics) -> None:
    place.list_addresses(1)
    place.hold("web")
    assert value(metrics, "azvnet_pool_exhausted_total", family="ipv4") == 0, "a series from the start"
    with pytest.raises(PoolExhausted):
        place.hold("db")
    (sample,) = families(metrics)["azvnet_pool_exhausted"].samples
    assert (sample.labels, sample.value) == ({"family": "ipv4"}, 1), "none of one that the pool does not have"


def test_the_cooldown_of_the_calls_decides_what_is_cooling(
    place: Place, work: Work, metrics: Metrics
) -> None:
    place.list_addresses(2)
    place.node.ipam.release(place.hold("gone"))
    work.cooldown = 0
    assert value(metrics, "azvnet_pool_addresses", family="ipv4", state="cooling") == 0
    assert value(metrics, "azvnet_pool_addresses", family="ipv4", state="free") == 2


def test_a_store_that_cannot_be_read_costs_the_numbers_of_the_pool_and_no_other(
    place: Place, metrics: Metrics
) -> None:
    place.list_addresses(2)
    metrics.observe("ADD", Reply(), 0.004)
    assert value(metrics, "azvnet_store_up") == 1
    place.node.ipam.close()
    (place.run_dir / "azvnet.db").write_bytes(b"no store" * 1000)
    told = families(metrics)
    assert told["azvnet_store_up"].samples[0].value == 0
    assert "azvnet_pool_addresses" not in told
    assert value(metrics, "azvnet_call_duration_seconds_count", verb="ADD", outcome="ok") == 1
    assert (place.run_dir / "azvnet.db").read_bytes() == b"no store" * 1000, "a scrape repairs nothing"


def test_the_source_is_told_with_its_age(place: Place, metrics: Metrics) -> None:
    with pytest.raises(Exception, match=r"interfaces\.json"):
        place.read_source()
    key = place.source.key
    assert value(metrics, "azvnet_source_age_seconds", source=key) == float("inf")
    place.list_addresses(4)
    assert 0 <= value(metrics, "azvnet_source_age_seconds", source=key) < 60
    assert value(metrics, "azvnet_source_up", source=key) == 1
    assert value(metrics, "azvnet_source_listed_addresses", source=key) == 4
    assert value(metrics, "azvnet_source_info", source=key, answered="file") == 1
    assert value(metrics, "azvnet_source_reads_total", source=key) == 2


def test_each_source_is_told_by_itself(place: Place, metrics: Metrics) -> None:
    place.list_addresses(4)
    other = SourceConfig(environment="file", file=str(place.interfaces.with_name("none.json")))
    for _ in range(2):
        with pytest.raises(Exception, match=r"none\.json"):
            place.node.ipam.refresh(other, deadline=5.0, force=True)
    for key, up, failed in ((place.source.key, 1, 0), (other.key, 0, 2)):
        assert value(metrics, "azvnet_source_up", source=key) == up
        assert value(metrics, "azvnet_source_errors_total", source=key) == failed
    assert value(metrics, "azvnet_source_listed_addresses", source=place.source.key) == 4


def test_repairs_are_told_by_kind_from_the_start(work: Work, metrics: Metrics) -> None:
    assert value(metrics, "azvnet_repairs_total", kind="host_route") == 0
    work.repairs.update(host_route=2, pod_route=1, of_a_later_version=5)
    assert value(metrics, "azvnet_repairs_total", kind="host_route") == 2
    assert value(metrics, "azvnet_repairs_total", kind="of_a_later_version") == 5


def test_what_was_reclaimed_and_adopted_outlives_the_process(place: Place, work: Work) -> None:
    place.list_addresses(2)
    place.hold("dead")
    (dead,) = place.node.ipam.reservations()
    assert place.node.ipam.release_dead(dead)
    assert not place.node.ipam.release_dead(dead), "it is counted once"
    place.node.ipam.adopt([dead])
    metrics = Metrics(place, work)
    assert value(metrics, "azvnet_pool_reclaimed_total") == 1
    assert value(metrics, "azvnet_pool_adopted_total") == 1


def test_writes_of_the_nic_are_told_by_outcome_and_duration_and_outlive_the_process(
    place: Place, work: Work
) -> None:
    for seconds in (71.4, 71.6, 198.0, 301.0):
        taken = {nic_counts.bucket_of(seconds): 1, nic_counts.WRITE_SECONDS: round(seconds)}
        place.node.ipam.count({nic_counts.writes_ended("ok"): 1, **taken})
    place.node.ipam.count({nic_counts.writes_ended("subnet-full"): 2, nic_counts.ADDED: 16})
    metrics = Metrics(place, work)
    writes, duration = "azvnet_provision_writes_total", "azvnet_provision_write_duration_seconds"
    for parsed in (families(metrics), families(metrics, OPENMETRICS)):
        buckets = [each.value for each in parsed[duration].samples if each.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert len(buckets) == len(nic_counts.BUCKETS) + 1
    assert value(metrics, f"{duration}_bucket", le="60") == 0
    assert value(metrics, f"{duration}_bucket", le="75") == 2
    assert (
        value(metrics, f"{duration}_bucket", le="200") == value(metrics, f"{duration}_bucket", le="300") == 3
    )
    assert value(metrics, f"{duration}_bucket", le="+Inf") == value(metrics, f"{duration}_count") == 4
    assert value(metrics, f"{duration}_sum") == 71 + 72 + 198 + 301
    assert value(metrics, writes, outcome="ok") == 4
    assert value(metrics, writes, outcome="subnet-full") == 2
    assert value(metrics, "azvnet_provision_added_addresses_total") == 16
    assert value(metrics, "azvnet_provision_removed_addresses_total") == 0
    assert value(metrics, "azvnet_provision_reads_total") == 0


def test_every_outcome_of_a_write_is_a_series_from_the_start_where_the_nic_is_written(
    metrics: Metrics,
) -> None:
    def outcomes() -> set[str]:
        return {each.labels["outcome"] for each in families(metrics)["azvnet_provision_writes"].samples}

    assert outcomes() == {"ok"}
    metrics.progress = Progress("idle", configurations=17)
    assert outcomes() == {"ok", "interrupted", *(kind.value for kind in Kind)}
    assert value(metrics, "azvnet_provision_configurations") == 17
    assert value(metrics, "azvnet_provision_vanished_addresses") == 0


def test_requests_are_told_by_what_they_are_about_and_how_they_were_answered(metrics: Metrics) -> None:
    def many() -> None:
        for _ in range(100):
            metrics.requests.api("LIST", "pods", "200")

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.requests.api("WATCH", "pods", "403")
    metrics.requests.arm("PUT", "networkInterfaces", "412")
    api, arm = "azvnet_provision_api_requests_total", "azvnet_provision_arm_requests_total"
    assert value(metrics, api, method="LIST", resource="pods", code="200") == 400
    assert value(metrics, api, method="WATCH", resource="pods", code="403") == 1
    assert value(metrics, arm, method="PUT", resource="networkInterfaces", code="412") == 1


def test_pods_that_come_are_a_number_only_where_it_is_known(metrics: Metrics) -> None:
    assert math.isnan(value(metrics, "azvnet_provision_coming_pods"))
    metrics.progress = Progress("idle", coming=None)
    assert math.isnan(value(metrics, "azvnet_provision_coming_pods"))
    metrics.progress = Progress("idle", coming=0)
    assert value(metrics, "azvnet_provision_coming_pods") == 0


def test_calls_are_counted_by_verb_and_outcome(metrics: Metrics) -> None:
    metrics.observe("ADD", Reply(), 0.004)
    metrics.observe("ADD", Reply(), 0.2)
    metrics.observe("DEL", Reply(), 0.03)
    metrics.observe("ADD", failed(errors.PoolError(PoolExhausted("full", family=4))), 0.001)
    metrics.observe("ADD", failed(ZeroDivisionError("ours")), 0.001)
    count, errors_ = "azvnet_call_duration_seconds_count", "azvnet_call_errors_total"
    assert value(metrics, count, verb="ADD", outcome="ok") == 2
    assert value(metrics, count, verb="DEL", outcome="ok") == 1
    assert value(metrics, count, verb="CHECK", outcome="ok") == 0
    assert value(metrics, count, verb="ADD", outcome="100") == 1
    assert value(metrics, errors_, verb="ADD", code="100") == 1
    assert value(metrics, errors_, verb="ADD", code="999") == 1
    assert value(metrics, errors_, verb="ADD", code="11") == 0
    bucket = "azvnet_call_duration_seconds_bucket"
    assert value(metrics, bucket, verb="ADD", outcome="ok", le="0.0025") == 0
    assert value(metrics, bucket, verb="ADD", outcome="ok", le="0.005") == 1
    assert value(metrics, bucket, verb="ADD", outcome="ok", le="0.25") == 2


def test_what_callers_write_makes_no_series_of_its_own(metrics: Metrics) -> None:
    for number in range(500):
        metrics.observe(f"VERB{number}", failed(errors.DelegateError(1000 + number, "theirs")), 0.001)
    told = families(metrics)["azvnet_call_errors"]
    assert {each.labels["verb"] for each in told.samples} == {"ADD", "other"}
    assert value(metrics, "azvnet_call_errors_total", verb="other", code="other") == 500
    lines = metrics.encode("")[1].count(b"\n")
    metrics.observe("ONE MORE", failed(errors.DelegateError(7777, "theirs")), 0.001)
    assert metrics.encode("")[1].count(b"\n") == lines


def test_counting_a_call_costs_less_than_30_microseconds(metrics: Metrics) -> None:
    """CPU of the thread, since others may have the processor in between; 16 threads, as the agent has."""
    replies = (Reply(), failed(errors.PoolError(PoolExhausted("full", family=4))))
    spent: list[float] = []

    def calls() -> None:
        started = time.thread_time()
        for number in range(1000):
            metrics.observe("ADD", replies[number % 20 == 0], 0.004)
        spent.append(time.thread_time() - started)

    threads = [threading.Thread(target=calls) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(spent) / 16_000 < 30e-6
    assert value(metrics, "azvnet_call_duration_seconds_count", verb="ADD", outcome="ok") == 16 * 950


def test_scrapes_during_calls_see_each_call_once(metrics: Metrics) -> None:
    """Counters never go back, and every bucket holds at least what the one below it does."""
    stop = threading.Event()

    def calls() -> None:
        while not stop.is_set():
            metrics.observe("ADD", Reply(), 0.003)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        last = 0.0
        for _ in range(20):
            buckets = list(_buckets(metrics))
            assert buckets == sorted(buckets)
            assert buckets[-1] >= last
            last = buckets[-1]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert last > 0


def _buckets(metrics: Metrics) -> Iterator[float]:
    for each in families(metrics)["azvnet_call_duration_seconds"].samples:
        if each.name.endswith("_bucket") and each.labels["verb"] == "ADD":
            yield each.value


def test_buckets_tell_the_usual_call_from_the_one_that_is_given_up() -> None:
    assert list(BUCKETS) == sorted(BUCKETS)
    assert BUCKETS[0] <= 0.001
    assert BUCKETS[-1] == 25


def test_every_verb_can_be_counted(metrics: Metrics) -> None:
    for verb in NEEDED:
        metrics.observe(verb, Reply(), 0.001)
        assert value(metrics, "azvnet_call_duration_seconds_count", verb=verb, outcome="ok") == 1


def test_a_storm_of_scrapes_renders_one_page_a_second_and_one_at_a_time(
    place: Place, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 3600.0)
    registry = new_registry()
    under_way, collected = threading.Semaphore(1), []
    asking: list[str] = []
    asked = 0

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            assert under_way.acquire(blocking=False), "another one is being rendered"
            collected.append(threading.get_ident())
            eventually(lambda: len(asking) == asked, "all have asked")
            under_way.release()
            yield from ()

    registry.register(Slow())
    collected.clear()
    asked = 40
    exposition = Exposition(registry)
    got: list[tuple[str, bytes]] = []

    def scrape(accept: str) -> None:
        asking.append(accept)
        got.append(exposition.encode(accept))

    scrapers = [threading.Thread(target=scrape, args=[accept]) for accept in ["", OPENMETRICS] * 20]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert len(got) == 40
    assert len({text for _, text in got}) == len(collected) == 2, "once for each format"


def test_a_page_is_rendered_anew_when_it_is_old(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    exposition = Exposition(metrics.registry)
    before = exposition.encode("")[1]
    metrics.observe("ADD", Reply(b"{}", 0), 0.1)
    assert exposition.encode("")[1] != before
