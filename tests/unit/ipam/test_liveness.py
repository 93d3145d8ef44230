"""Addresses that nobody uses come back, and never on one negative look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipam.errors import AlreadyReserved, PredecessorsFound
from ipam.model import PoolCounts
from ipam.value import replace
from tests.unit.ipam.node import (
    ANY,
    attachment,
    confirm,
    counters,
    counts,
    ips,
    owner,
    release,
    reserve,
    sweep,
)

if TYPE_CHECKING:
    from ipam.ipam import Ipam
    from ipam.model import Attachment, Owner, Reservation
    from tests.unit.ipam.node import Node

P1, P2 = attachment("pod-1"), attachment("pod-2")


def test_one_negative_look_frees_nothing(node: Node) -> None:
    ipam = node.ready(5, 6)
    confirm(ipam, reserve(ipam, P1, owner(), ANY))
    node.clock.advance(3600)
    assert ipam.note_missing([P1]) == ()
    assert sweep(ipam, [P1]) == ()
    assert counts(ipam).assigned == 1


def test_two_looks_a_minute_apart_free_it(node: Node) -> None:
    ipam = node.ready(5, 6)
    made = confirm(ipam, reserve(ipam, P1, owner(), ANY))
    assert sweep(ipam, [P1]) == ()
    node.clock.advance(59.9)
    assert sweep(ipam, [P1]) == ()
    node.clock.advance(0.2)
    assert ipam.note_missing([P1]) == (made,)
    assert sweep(ipam, [P1]) == (made,)
    assert counts(ipam) == PoolCounts(free=1, assigned=0, cooling=1, quarantined=0)
    assert counters(ipam)["reclaimed"] == 1


def test_the_marks_survive_the_process(node: Node) -> None:
    made = reserve((ipam := node.ready(5)), P1, owner(), ANY)
    sweep(ipam, [P1])
    ipam.close()
    node.clock.advance(60)
    assert sweep(node.process(), [P1]) == (made,)


def test_a_look_that_finds_it_starts_counting_anew(node: Node) -> None:
    ipam = node.ready(5)
    reserve(ipam, P1, owner(), ANY)
    sweep(ipam, [P1])
    node.clock.advance(50)
    sweep(ipam, [], present=[P1])
    node.clock.advance(50)
    assert sweep(ipam, [P1]) == ()
    node.clock.advance(60)
    ipam.note_present([P1])
    assert ipam.note_missing([P1]) == ()


def test_the_end_of_an_add_starts_counting_anew(node: Node) -> None:
    ipam = node.ready(5)
    made = reserve(ipam, P1, owner(), ANY)
    ipam.note_missing([P1])
    node.clock.advance(50)
    confirm(ipam, made)
    node.clock.advance(20)
    assert ipam.note_missing([P1]) == ()


def test_an_add_that_was_killed_is_freed_the_same_way(node: Node) -> None:
    ipam = node.ready(5)
    killed = reserve(ipam, P1, owner(), ANY)
    ipam.note_missing([P1])
    node.clock.advance(60)
    assert sweep(ipam, [P1]) == (killed,)


def test_a_new_reservation_of_the_same_attachment_is_not_hit_by_old_looks(node: Node) -> None:
    ipam = node.ready(5, 6)
    reserve(ipam, P1, owner(), ANY)
    ipam.note_missing([P1])
    release(ipam, P1)
    reserve(ipam, P1, owner(), ANY)
    node.clock.advance(60)
    assert sweep(ipam, [P1]) == ()


def test_looks_at_unknown_attachments_are_no_error(node: Node) -> None:
    ipam = node.ready(5)
    assert sweep(ipam, [P1], present=[P2]) == ()


def test_the_grace_can_be_chosen(node: Node) -> None:
    ipam = node.ready(5)
    made = reserve(ipam, P1, owner(), ANY)
    ipam.note_missing([P1], grace=5)
    node.clock.advance(5)
    assert sweep(ipam, [P1], grace=5) == (made,)


def _same_pod(ipam: Ipam, asking: Attachment, who: Owner) -> tuple[Reservation, ...]:
    """What an ADD is told that the same pod holds under other container ids; it makes no reservation."""
    try:
        made = reserve(ipam, asking, who, replace(ANY, looked_at=frozenset()))
    except PredecessorsFound as found:
        return found.reservations
    except AlreadyReserved:
        return ()
    ipam.abandon(made)
    return ()


class TestSamePod:
    def test_an_older_sandbox_of_the_pod_is_found(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        old = confirm(ipam, reserve(ipam, P1, owner("web-0"), ANY))
        reserve(ipam, attachment("pod-3"), owner("web-1"), ANY)
        assert _same_pod(ipam, P2, owner("web-0")) == (old,)

    def test_neither_itself_nor_another_interface_is_meant(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner("web-0"), ANY)
        reserve(ipam, attachment("pod-1", "net1"), owner("web-0"), ANY)
        assert _same_pod(ipam, P1, owner("web-0")) == ()

    def test_without_a_pod_name_nothing_is_the_same_pod(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        assert _same_pod(ipam, P2, owner()) == ()

    def test_releasing_it_frees_one_address(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner("web-0"), ANY)
        for old in _same_pod(ipam, P2, owner("web-0")):
            release(ipam, old.attachment, expected=old)
        assert reserve(ipam, P2, owner("web-0"), ANY).ip == ips(6)[0]
        assert counts(ipam).assigned == 1

    def test_whoever_asks_with_what_it_has_looked_at_is_told_of_the_others(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        old = confirm(ipam, reserve(ipam, P1, owner("web-0"), ANY))
        with pytest.raises(PredecessorsFound, match=r"web-0 holds .*5") as found:
            reserve(ipam, P2, owner("web-0"), replace(ANY, looked_at=frozenset()))
        assert found.value.reservations == (old,)
        assert counts(ipam).assigned == 1
        looked_at = frozenset({P1})
        assert reserve(ipam, P2, owner("web-0"), replace(ANY, looked_at=looked_at)).ip == ips(6)[0]

    def test_only_those_that_were_not_looked_at_are_told(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        reserve(ipam, P1, owner("web-0"), ANY)
        third = reserve(ipam, attachment("pod-3"), owner("web-0"), ANY)
        with pytest.raises(PredecessorsFound) as found:
            reserve(ipam, P2, owner("web-0"), replace(ANY, looked_at=frozenset({P1})))
        assert found.value.reservations == (third,)

    def test_other_pods_and_pods_without_a_name_have_none(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        reserve(ipam, P1, owner("web-0"), ANY)
        reserve(ipam, P2, owner("web-1"), replace(ANY, looked_at=frozenset()))
        reserve(ipam, attachment("pod-3"), owner(), replace(ANY, looked_at=frozenset()))
        assert counts(ipam).assigned == 3
