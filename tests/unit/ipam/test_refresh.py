"""When the source is read, and what a good, partial, empty or failed read does to the pool."""

from __future__ import annotations

import threading
from contextlib import suppress
from ipaddress import ip_network
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from ipam.errors import SourceEmpty, SourceUnreadable, StoreUnavailable
from ipam.ipam import Ipam
from ipam.model import Listing, PoolCounts, SourceConfig, SourceState
from ipam.refresh import lock_name
from ipam.value import replace
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    MAC,
    attachment,
    confirm,
    counters,
    counts,
    held,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from tests.unit.ipam.node import Node

P1 = attachment("pod-1")
FILE = SourceConfig("file", "/etc/addresses.json")


def pool_of(ipam: Ipam) -> list[str]:
    return [str(status.address.ip)[7:] + ("" if status.listed else "?") for status in ipam.addresses()]


class TestPool:
    def test_it_follows_what_the_source_lists(self, node: Node) -> None:
        ipam = node.ready(5)
        node.says = listing_of(*ips(5, 6))
        state = refresh(ipam)
        assert (state.source, state.listed, state.error) == ("imds", 2, "")
        assert pool_of(ipam) == ["5", "6"]

    def test_one_partial_document_takes_no_address_away(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        node.says = listing_of(*ips(5))
        refresh(ipam)
        assert pool_of(ipam) == ["5", "6?", "7?"]
        assert counts(ipam) == PoolCounts(free=1, assigned=0, cooling=0, quarantined=2)
        node.says = listing_of(*ips(5, 6, 7))
        refresh(ipam)
        assert counts(ipam) == PoolCounts(free=3, assigned=0, cooling=0, quarantined=0)

    def test_two_in_a_row_do_if_nobody_holds_it(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        kept = reserve(ipam, P1, owner(), ANY)
        node.says = listing_of(*ips(7))
        refresh(ipam)
        refresh(ipam)
        assert pool_of(ipam) == ["5?", "7"]
        assert held(ipam, P1) == kept
        assert counts(ipam) == PoolCounts(free=1, assigned=1, cooling=0, quarantined=0)

    def test_two_that_are_not_in_a_row_do_not(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        for numbers in ((5,), (5, 6), (5,), (5, 6), (5,)):
            node.says = listing_of(*ips(*numbers))
            refresh(ipam)
        assert pool_of(ipam) == ["5", "6?"]

    def test_a_held_address_leaves_when_it_is_released(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        node.says = listing_of(*ips(6))
        refresh(ipam)
        refresh(ipam)
        release(ipam, P1)
        assert pool_of(ipam) == ["6"]

    def test_unlisted_addresses_are_not_given_out(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        node.says = listing_of(*ips(6))
        refresh(ipam)
        assert reserve(ipam, P1, owner(), ANY).ip == ips(6)[0]

    def test_stale_fresh_empty_and_half_documents_in_turn_harm_no_pod(self, node: Node) -> None:
        ipam = node.ready(*range(5, 13))
        kept = confirm(ipam, reserve(ipam, P1, owner(), ANY))
        documents: list[Listing | Exception] = [
            listing_of(*ips(*range(5, 13))),
            listing_of(*ips(*range(9, 13))),
            Listing("imds", ()),
            listing_of(*ips(*range(5, 9))),
            SourceUnreadable("source imds: 500"),
        ]
        for number in range(100):
            node.says = documents[number * 7 % 5]
            listed = pool_of(ipam)
            try:
                refresh(ipam)
                listed = pool_of(ipam)
            except (SourceEmpty, SourceUnreadable):
                assert pool_of(ipam) == listed
            other = attachment(f"other-{number}")
            given = reserve(ipam, other, owner(), ANY)
            assert str(given.ip)[7:] in listed
            release(ipam, other)
            assert held(ipam, P1) == kept

    def test_an_empty_document_is_never_the_truth(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        before = ipam.addresses()
        for says in (Listing("imds", ()), listing_of()):
            node.says = says
            for _ in range(3):
                with pytest.raises(SourceEmpty):
                    refresh(ipam)
        assert ipam.addresses() == before

    def test_the_addresses_of_every_nic_enter(self, node: Node) -> None:
        other = listing_of(*ips(8), mac="00:0d:3a:00:00:02")
        node.says = Listing("imds", (*listing_of(*ips(5)).nics, *other.nics))
        ipam = node.process()
        refresh(ipam)
        assert pool_of(ipam) == ["5", "8"]
        assert [nic.mac for nic in ipam.nics(CONFIG)] == ["00:0d:3a:00:00:02", MAC]

    def test_what_is_known_of_a_nic_is_what_the_source_said_last(self, node: Node) -> None:
        subnet = ip_network("10.0.0.0/16")
        plain = listing_of(*ips(5)).nics[0]
        node.says = Listing("file", (replace(plain, primary=True, subnets=(subnet,)),))
        ipam = node.ready()
        (nic,) = ipam.nics(CONFIG)
        assert (nic.primary, nic.own_addresses, nic.subnets) == (True, plain.own_addresses, (subnet,))
        assert nic.example == ips(5)[0]
        node.says = Listing("file", (replace(plain, mac="00:0d:3a:00:00:02", primary=False),))
        refresh(ipam)
        assert [(nic.mac, nic.primary) for nic in ipam.nics(CONFIG)] == [("00:0d:3a:00:00:02", False)]

    def test_the_same_document_again_writes_no_address(self, node: Node) -> None:
        node.says = listing_of(*ips(5, 6), digest="d1")
        ipam = node.process()
        refresh(ipam)
        first = refresh(ipam)
        assert first.listed == 2
        assert pool_of(ipam) == ["5", "6"]

    def test_the_same_document_again_still_lets_missing_addresses_go(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        node.says = listing_of(*ips(5), digest="d2")
        for left in (["5", "6?", "7?"], ["5"], ["5"]):
            refresh(ipam)
            assert pool_of(ipam) == left


class TestInterval:
    def test_no_source_is_read_more_often_than_its_interval(self, node: Node) -> None:
        ipam = node.process()
        for _ in range(20):
            ipam.refresh(CONFIG, deadline=5)
            node.clock.advance(1)
        assert node.reads == 2

    def test_it_is_kept_among_processes(self, node: Node) -> None:
        for _ in range(5):
            node.process().refresh(CONFIG, deadline=5)
        assert node.reads == 1

    def test_a_person_may_ask_at_once(self, node: Node) -> None:
        ipam = node.process()
        ipam.refresh(CONFIG, deadline=5)
        ipam.refresh(CONFIG, deadline=5, force=True)
        assert node.reads == 2

    def test_every_source_has_an_interval_of_its_own(self, node: Node) -> None:
        ipam = node.process()
        for _ in range(20):
            ipam.refresh(CONFIG, deadline=5)
            ipam.refresh(FILE, deadline=5)
            node.clock.advance(1)
        assert node.asked == [CONFIG.key, FILE.key] * 2

    @pytest.mark.parametrize("config", [SourceConfig(), SourceConfig("file", "/etc/odd|name")])
    def test_what_was_asked_is_known_to_the_next_process_until_the_node_is_restarted(
        self, node: Node, config: SourceConfig
    ) -> None:
        assert node.process().sources_in_use() == ()
        node.process().refresh(config, deadline=5)
        assert node.process().sources_in_use() == (), "no network needed it yet"
        node.clock.advance(20)
        node.process().refresh(config, deadline=5, in_use=True)
        assert node.process().sources_in_use() == (config,)
        node.start_anew("boot-2")
        assert node.process().sources_in_use() == (), "its NICs may be others now"

    def test_what_was_asked_without_success_is_known_too(self, node: Node) -> None:
        node.says = SourceUnreadable("no answer")
        with pytest.raises(SourceUnreadable):
            node.process().refresh(SourceConfig("imds"), deadline=5, in_use=True)
        assert [each.key for each in node.process().sources_in_use()] == ["imds"]

    def test_a_reboot_makes_it_due(self, node: Node) -> None:
        node.process().refresh(CONFIG, deadline=5)
        node.start_anew("boot-2")
        node.clock.now = 1.0
        node.process().refresh(CONFIG, deadline=5)
        assert node.reads == 2


class TestFailure:
    def test_it_is_raised_recorded_and_counted(self, node: Node) -> None:
        ipam = node.process()
        node.says = SourceUnreadable("source imds: GET http://x: 500", "look at x")
        with pytest.raises(SourceUnreadable, match="GET http://x: 500"):
            refresh(ipam)
        state = ipam.source_state(CONFIG)
        assert (state.error, state.remedy) == ("source imds: GET http://x: 500", "look at x")
        assert (state.failures, state.last_attempt_at, state.last_success_at) == (1, node.wall.now, None)
        told = counters(ipam)
        assert (told[f"source_reads {CONFIG.key}"], told[f"source_errors {CONFIG.key}"]) == (1, 1)

    def test_what_is_known_of_a_source_depends_on_what_became_of_its_reads(self, node: Node) -> None:
        ipam = node.process()
        assert ipam.source_state(CONFIG) == SourceState("", config=CONFIG)
        node.says = SourceUnreadable("no", retry_after=7)
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        node.clock.advance(2)
        failed = ipam.source_state(CONFIG)
        assert (failed.source, failed.success_age, failed.attempt_age) == (CONFIG.environment, None, 2)
        assert (failed.retry_in, failed.listed) == (5, 0)
        node.says = listing_of(*ips(5))
        refresh(ipam)
        node.clock.advance(3)
        read = ipam.source_state(CONFIG)
        assert (read.source, read.success_age, read.attempt_age) == ("imds", 3, 3)
        assert (read.retry_in, read.listed) == (0, 1)
        node.clock.advance(-4)
        early = ipam.source_state(CONFIG)
        assert (early.success_age, early.attempt_age) == (0, 0), "another process read the clock later"

    def test_a_success_wipes_it_out(self, node: Node) -> None:
        ipam = node.process()
        node.says = SourceUnreadable("no")
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        node.says = listing_of(*ips(5))
        state = refresh(ipam)
        assert (state.error, state.failures, state.success_age) == ("", 0, 0)

    @pytest.mark.parametrize(
        ("known", "pauses"), [(True, [10, 20, 40, 60, 60, 60]), (False, [1, 2, 4, 8, 10, 10, 10])]
    )
    def test_a_dead_cloud_is_asked_less_and_less_and_often_while_nothing_is_known(
        self, node: Node, *, known: bool, pauses: list[int]
    ) -> None:
        ipam = node.ready(5) if known else node.process()
        node.clock.advance(20)
        node.says = SourceUnreadable("no")
        asked = []
        for second in range(300):
            before = node.reads
            with suppress(SourceUnreadable):
                ipam.refresh(CONFIG, deadline=5)
            if node.reads > before:
                asked.append(second)
            node.clock.advance(1)
        assert [b - a for a, b in pairwise(asked)][: len(pauses)] == pauses

    def test_with_nothing_known_the_error_is_told_without_asking(self, node: Node) -> None:
        ipam = node.process()
        node.says = SourceUnreadable("source imds: no answer", "look")
        with pytest.raises(SourceUnreadable):
            ipam.refresh(CONFIG, deadline=5)
        node.clock.advance(0.5)
        with pytest.raises(SourceUnreadable, match=r"no answer \(last tried 0 s ago, again in 0 s\)") as told:
            node.process().refresh(CONFIG, deadline=5)
        assert told.value.remedy == "look"
        assert node.reads == 1

    def test_the_trouble_of_one_source_is_not_that_of_another(self, node: Node) -> None:
        ipam = node.process()
        node.says = SourceUnreadable("no answer")
        with pytest.raises(SourceUnreadable):
            ipam.refresh(FILE, deadline=5)
        node.says = listing_of(*ips(5))
        assert ipam.refresh(CONFIG, deadline=5).listed == 1
        assert ipam.source_state(FILE).error == "no answer"
        assert ipam.source_state(CONFIG).error == ""

    def test_an_empty_answer_keeps_its_kind(self, node: Node) -> None:
        ipam = node.process()
        node.says = listing_of()
        for _ in range(2):
            with pytest.raises(SourceEmpty):
                ipam.refresh(CONFIG, deadline=5)
        assert node.reads == 1

    def test_with_something_known_it_is_no_error_any_more(self, node: Node) -> None:
        ipam = node.ready(5)
        node.clock.advance(20)
        node.says = SourceUnreadable("no")
        with pytest.raises(SourceUnreadable):
            ipam.refresh(CONFIG, deadline=5)
        assert ipam.refresh(CONFIG, deadline=5).error == "no"
        assert reserve(ipam, P1, owner(), ANY).ip == ips(5)[0]

    def test_retry_after_is_kept(self, node: Node) -> None:
        ipam = node.ready(5)
        node.clock.advance(20)
        node.says = SourceUnreadable("429", retry_after=300)
        with pytest.raises(SourceUnreadable):
            ipam.refresh(CONFIG, deadline=5)
        reads = node.reads
        node.clock.advance(299)
        assert ipam.refresh(CONFIG, deadline=5).retry_in == 1
        assert node.reads == reads
        node.clock.advance(1)
        with pytest.raises(SourceUnreadable):
            ipam.refresh(CONFIG, deadline=5)

    def test_a_reader_that_breaks_is_an_unreadable_source(self, node: Node) -> None:
        ipam = node.process()
        node.says = ZeroDivisionError("surprise")
        with pytest.raises(SourceUnreadable, match="ZeroDivisionError: surprise"):
            refresh(ipam)
        assert ipam.source_state(CONFIG).failures == 1


def test_a_process_without_memory_does_not_speak_for_the_source(node: Node) -> None:
    """The next one asks at once; a failure of the source would make it wait."""
    ipam = node.process()
    ipam.adopt(())
    node.says = MemoryError()
    with pytest.raises(MemoryError):
        refresh(ipam, force=False)
    assert ipam.source_state(CONFIG).error == ""
    node.says = listing_of(*ips(5))
    assert ipam.refresh(CONFIG, deadline=1).listed == 1


def test_a_lock_that_can_not_be_made_is_a_store_error(node: Node) -> None:
    ipam = node.ready(5)
    (node.run_dir / lock_name(CONFIG.key)).unlink()
    (node.run_dir / lock_name(CONFIG.key)).mkdir()
    with pytest.raises(StoreUnavailable, match=r"source-\w+\.lock") as refused:
        refresh(ipam)
    assert refused.value.remedy


class SlowSource:
    """A source that answers when it is told to."""

    def __init__(self, node: Node) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.reads = 0
        self._node = node

    def read(self, config: SourceConfig, deadline: float, last: str) -> Listing:
        self.reads += 1
        self.asked.set()
        assert self.answer.wait(20)
        return self._node.read(config, deadline, last)

    def process(self) -> Ipam:
        node = self._node
        return Ipam(node.run_dir, boot_id_file=node.boot_id_file, clock=node.clock, reader=self.read)


class TestManyProcesses:
    def test_nobody_waits_for_a_read_of_another_source(self, node: Node) -> None:
        node.process().adopt(())
        source = SlowSource(node)
        other = threading.Thread(target=lambda: source.process().refresh(FILE, deadline=20))
        other.start()
        assert source.asked.wait(20)
        assert node.process().refresh(CONFIG, deadline=20).listed == 3
        source.answer.set()
        other.join()

    def test_a_hundred_adds_ask_a_slow_source_once_and_all_get_its_answer(self, node: Node) -> None:
        node.process().adopt(())
        source = SlowSource(node)
        heard: list[int] = []

        def add() -> None:
            heard.append(source.process().refresh(CONFIG, deadline=20).listed)

        threads = [threading.Thread(target=add) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert source.asked.wait(20)
        source.answer.set()
        for thread in threads:
            thread.join()
        assert heard == [3] * 20
        assert source.reads == 1

    def test_a_reader_that_was_killed_is_replaced_at_once(self, node: Node) -> None:
        class Killed(BaseException):
            pass

        def killed(config: SourceConfig, deadline: float, last: str) -> Listing:
            raise Killed

        with pytest.raises(Killed):
            Ipam(node.run_dir, boot_id_file=node.boot_id_file, clock=node.clock, reader=killed).refresh(
                CONFIG, deadline=5
            )
        assert node.process().refresh(CONFIG, deadline=5).listed == 3

    def test_nobody_waits_for_a_slow_source_when_addresses_are_known(self, node: Node) -> None:
        ipam = node.ready(5)
        node.clock.advance(20)
        source = SlowSource(node)
        reader = threading.Thread(target=lambda: source.process().refresh(CONFIG, deadline=20))
        reader.start()
        assert source.asked.wait(20)
        node.clock.advance(20)
        assert ipam.refresh(CONFIG, deadline=1000).listed == 1
        assert reserve(ipam, P1, owner(), ANY).ip == ips(5)[0]
        source.answer.set()
        reader.join()

    def test_waiting_for_the_first_answer_ends_with_the_deadline(self, node: Node) -> None:
        node.process().adopt(())
        source = SlowSource(node)
        reader = threading.Thread(target=lambda: source.process().refresh(CONFIG, deadline=20))
        reader.start()
        assert source.asked.wait(20)
        node.clock.advance(60)
        state = node.process().refresh(CONFIG, deadline=0.1)
        assert state.last_success_at is None
        source.answer.set()
        reader.join()

    def test_a_store_that_is_lost_while_the_source_is_read_is_filled_all_the_same(self, node: Node) -> None:
        ipam = node.ready(5)
        source = SlowSource(node)
        states: list[int] = []
        reader = threading.Thread(
            target=lambda: states.append(source.process().refresh(CONFIG, deadline=20, force=True).listed)
        )
        reader.start()
        assert source.asked.wait(20)
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        source.answer.set()
        reader.join()
        assert states == [1]
        assert pool_of(ipam) == ["5"]


def test_the_source_is_told_how_long_it_may_take_and_what_answered_last(node: Node) -> None:
    told: list[tuple[float, str]] = []

    def read(config: SourceConfig, deadline: float, last: str) -> Listing:
        told.append((deadline, last))
        return listing_of(*ips(5))

    ipam = Ipam(node.run_dir, boot_id_file=node.boot_id_file, clock=node.clock, reader=read)
    for _ in range(2):
        refresh(ipam)
    assert all(0 < deadline <= 5 for deadline, _ in told)
    assert [last for _, last in told] == [CONFIG.environment, "imds"]
