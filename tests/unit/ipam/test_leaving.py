"""An address that is being taken from the NIC is given to nobody, whatever happens to whoever takes it."""

from __future__ import annotations

import pytest

from ipam.errors import AddressUnavailable, PoolExhausted
from ipam.model import AddressState, PoolCounts
from ipam.store.source_records import LEAVING_SECONDS
from tests.unit.ipam.node import (
    ANY,
    Node,
    asking,
    attachment,
    confirm,
    counts,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

P1, P2 = attachment("pod-1"), attachment("pod-2")
FIVE, SIX, SEVEN = ips(5, 6, 7)


def test_it_is_given_to_nobody_and_says_why(node: Node) -> None:
    ipam = node.ready(5, 6)
    assert ipam.mark_leaving([(FIVE,), (SIX,)], 30.0) == ((FIVE,), (SIX,))
    with pytest.raises(PoolExhausted, match="it is being taken from the NIC"):
        reserve(ipam, P1, owner(), ANY)
    with pytest.raises(AddressUnavailable, match="it is being taken from the NIC"):
        reserve(ipam, P1, owner(), asking(requested=FIVE))
    assert counts(ipam) == PoolCounts(free=0, assigned=0, cooling=0, quarantined=2)
    assert [each.state for each in ipam.addresses()] == [AddressState.QUARANTINED] * 2


def test_what_a_pod_holds_is_never_marked(node: Node) -> None:
    ipam = node.ready(5, 6)
    confirm(ipam, reserve(ipam, P1, owner(), ANY))
    assert ipam.mark_leaving([(FIVE,), (SIX,)], 0.0) == ((SIX,),)
    assert ipam.leaving() == {SIX}


def test_what_has_not_cooled_down_is_not_marked(node: Node) -> None:
    ipam = node.ready(5)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    assert ipam.mark_leaving([(FIVE,)], 30.0) == ()
    node.clock.advance(30)
    assert ipam.mark_leaving([(FIVE,)], 30.0) == ((FIVE,),)


def test_a_block_is_marked_as_a_whole_or_not_at_all(node: Node) -> None:
    ipam = node.ready(5, 6, 7)
    reserve(ipam, P1, owner(), asking(requested=SIX))
    assert ipam.mark_leaving([(FIVE, SIX, SEVEN)], 0.0) == ()
    assert ipam.leaving() == frozenset()
    assert reserve(ipam, P2, owner(), ANY).ip == FIVE


def test_it_is_given_again_when_it_stays(node: Node) -> None:
    ipam = node.ready(5)
    ipam.mark_leaving([(FIVE,)], 0.0)
    ipam.unmark_leaving([FIVE])
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def test_the_mark_outlives_the_process_and_the_boot(node: Node) -> None:
    node.ready(5).mark_leaving([(FIVE,)], 0.0)
    assert node.process().leaving() == {FIVE}
    node.start_anew("boot-2")
    ipam = node.process()
    ipam.adopt(())
    node.says = listing_of(FIVE)
    refresh(ipam)
    with pytest.raises(PoolExhausted):
        reserve(ipam, P1, owner(), ANY)


def test_one_that_no_source_lists_yet_is_kept_back_when_it_does(node: Node) -> None:
    ipam = node.ready(5)
    assert ipam.mark_leaving([(SEVEN,)], 30.0) == ((SEVEN,),)
    node.says = listing_of(FIVE, SEVEN)
    refresh(ipam)
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE
    with pytest.raises(PoolExhausted):
        reserve(ipam, P2, owner(), ANY)


def test_it_is_forgotten_when_nobody_says_so_for_an_hour(node: Node) -> None:
    ipam = node.ready(5)
    ipam.mark_leaving([(FIVE,)], 0.0)
    node.clock.advance(LEAVING_SECONDS - 1)
    ipam.mark_leaving([(FIVE,)], 0.0)
    node.clock.advance(LEAVING_SECONDS - 1)
    refresh(ipam)
    assert ipam.leaving() == {FIVE}
    node.clock.advance(2)
    refresh(ipam)
    assert ipam.leaving() == frozenset()
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def test_a_pod_that_is_found_alive_with_it_keeps_it(node: Node) -> None:
    ipam = node.ready(5, 6)
    alive = confirm(ipam, reserve(ipam, P1, owner(), ANY))
    release(ipam, P1)
    ipam.mark_leaving([(FIVE,)], 0.0)
    assert ipam.adopt([alive]) == ()
    assert [each.ip for each in ipam.reservations()] == [FIVE]
    assert counts(ipam).assigned == 1
