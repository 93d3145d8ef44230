"""What a NIC has held against the pool of its addresses, one kind of IP configuration at a time."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from ipam.provision.nic_document import Configuration
from ipam.provision.nic_pool import NicPool
from ipam.provision.plan import Unit
from ipam.provision.progress import LISTED_SECONDS, LISTING, NOT_LISTED, Progress
from tests.unit.ipam.node import (
    ANY,
    MAC,
    attachment,
    confirm,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from ipam.ipam import Ipam
    from ipam.model import IPAddress
    from tests.unit.ipam.node import Node


class Around:
    """``NodeFacts``."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.on_host: frozenset[IPAddress] = frozenset()

    def clock(self) -> float:
        return self.node.clock()

    def cooldown(self) -> float:
        return 30.0

    def carried(self) -> frozenset[IPAddress]:
        return self.on_host

    def waiting(self) -> frozenset[str]:
        return frozenset()

    def refresh(self) -> None: ...

    def tell(self, level: str, text: str) -> None: ...


def on_nic(
    block: str, name: str = "", *, primary: bool = False, state: str = "Succeeded", is_ours: bool = True
) -> Configuration:
    network = ip_network(block) if block else None
    return Configuration(name or block, network, primary=primary, state=state, is_ours=is_ours)


def units(*configurations: Configuration) -> list[Unit]:
    return [Unit(each.name, each.addresses) for each in configurations]


PRIMARY = on_nic("10.0.0.4", primary=True)
OURS, THEIRS = on_nic("10.0.0.5"), on_nic("10.0.0.6", is_ours=False)
WITHOUT, SIX = on_nic("", "none-yet"), on_nic("fd00::5")
FAILED, UNLISTED = on_nic("10.0.0.7", state="Failed"), on_nic("10.0.0.64/30")
EVERYTHING = (PRIMARY, OURS, THEIRS, WITHOUT, SIX, FAILED, UNLISTED)


class Place:
    """A NIC of a node whose source lists .5, .6 and .8."""

    def __init__(self, node: Node) -> None:
        self.node, self.around = node, Around(node)
        self.kept: frozenset[IPAddress] = frozenset()
        self.ipam: Ipam = node.ready(5, 6, 8)
        self.nic = NicPool(self.ipam, self.around, lambda: self.kept)
        self.nic.note(EVERYTHING, MAC)


@pytest.fixture
def place(node: Node) -> Place:
    return Place(node)


def test_what_is_set_up_for_pods_and_not_listed_is_on_its_way(place: Place) -> None:
    pool = place.nic.view()
    assert place.nic.in_flight(pool) == set(UNLISTED.addresses)
    assert place.nic.on_nic() == {ip for each in EVERYTHING for ip in each.addresses}
    assert (pool.held, pool.free) == (0, list(ips(5, 6, 8)))


def test_only_ours_may_go_and_only_where_all_of_it_is_free(place: Place) -> None:
    assert place.nic.removable(place.nic.view()) == units(OURS)
    both = on_nic("10.0.0.8/31")
    place.nic.note((on_nic("10.0.0.5", primary=True), WITHOUT, both), MAC)
    assert place.nic.removable(place.nic.view()) == [], "one half of it is not known to be free"
    place.around.on_host = frozenset(ips(5))
    place.nic.note((OURS,), MAC)
    assert place.nic.removable(place.nic.view()) == []


def test_what_failed_may_go_where_nobody_lists_it(place: Place) -> None:
    listed = on_nic("10.0.0.5", state="Failed")
    foreign = on_nic("10.0.0.9", state="Failed", is_ours=False)
    place.nic.note((OURS, FAILED, listed, foreign), MAC)
    assert place.nic.failed(place.nic.view()) == units(FAILED)


def test_what_the_nic_lost_is_given_to_nobody_and_whose_pods_have_it_is_told(place: Place) -> None:
    made = confirm(place.ipam, reserve(place.ipam, attachment("p"), owner("web"), ANY))
    kept = confirm(place.ipam, reserve(place.ipam, attachment("q"), owner("db"), ANY))
    assert (made.ip in OURS.addresses, kept.ip in THEIRS.addresses) == (True, True)
    place.nic.note((PRIMARY, THEIRS), MAC)
    pool = place.nic.view()
    place.nic.note_gone(pool, mark=False)
    assert (place.nic.vanished(pool), place.ipam.leaving()) == ((made,), frozenset())
    place.nic.note_gone(pool, mark=True)
    assert place.ipam.leaving() == set(ips(5, 8))
    assert place.nic.differs(pool)
    release(place.ipam, attachment("p"))
    assert place.nic.vanished(place.nic.view()) == ()
    assert not place.nic.differs(place.nic.view())


def test_marks_are_taken_from_what_is_there_again_unless_it_is_on_offer(place: Place) -> None:
    assert not place.nic.keep_marked(place.nic.view())
    place.ipam.mark_gone(ips(5, 6, 8))
    place.kept = frozenset(ips(6, 8))
    assert place.nic.keep_marked(place.nic.view())
    assert place.ipam.leaving() == set(ips(6, 8)), "8 is gone and listed, 6 is on offer"
    place.nic.note((OURS, THEIRS, on_nic("10.0.0.8")), MAC)
    place.kept = frozenset()
    place.nic.note_gone(place.nic.view(), mark=True)
    assert place.ipam.leaving() == set()


def test_marks_end_when_the_source_does_not_list_what_is_gone(place: Place) -> None:
    place.nic.note_gone(place.nic.view(), mark=True)
    assert place.ipam.leaving() == set(ips(8))
    place.node.says = listing_of(*ips(5, 6))
    refresh(place.ipam)
    assert place.nic.differs(place.nic.view())
    assert place.nic.keep_marked(place.nic.view())
    assert place.ipam.leaving() == set()


def test_a_source_that_was_never_read_ends_no_mark(node: Node) -> None:
    ipam = node.process()
    ipam.adopt(())
    nic = NicPool(ipam, Around(node), frozenset)
    nic.note((PRIMARY,), MAC)
    ipam.mark_gone(ips(8))
    assert nic.keep_marked(nic.view())
    assert ipam.leaving() == set(ips(8))


def test_that_the_source_lags_behind_is_told_and_that_it_does_for_long(place: Place) -> None:
    def told() -> Progress | None:
        pool = place.nic.view()
        place.nic.note_listing(pool)
        return place.nic.listing(pool)

    lags = place.nic.listing(place.nic.view())
    assert lags is not None
    assert (lags.phase, lags.text.partition(" ")[0]) == (LISTING, "4")
    assert told() == lags
    assert place.nic.differs(place.nic.view())
    place.node.clock.advance(LISTED_SECONDS)
    assert told() == lags
    place.node.clock.advance(1)
    late = told()
    assert late is not None
    assert (late.phase, " 4 " in late.text, " 300 s" in late.text) == (NOT_LISTED, True, True)
    place.nic.note(EVERYTHING[:-1], MAC)
    assert told() is None
    place.nic.note(EVERYTHING, MAC)
    assert told() == lags, "the time begins anew"


def test_counts_and_names_are_told_beside_what_is_done(place: Place) -> None:
    told = place.nic.with_facts(Progress("idle", "text", "Do."), place.nic.view())
    assert told == Progress("idle", "text", "Do.", 4, len(EVERYTHING), ())
