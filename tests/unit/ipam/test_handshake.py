"""Offering IP configurations to the operator and withdrawing them, one word of either at a time."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from ipam.provision import offers
from ipam.provision.exchange import AzvnetNode, NodeSpec, NodeStatus
from ipam.provision.handshake import Handshake
from ipam.provision.nic_document import Configuration
from ipam.provision.offers import KEPT_SECONDS, TO_BE_WITHDRAWN
from ipam.provision.plan import Unit
from tests.unit.ipam.node import ANY, attachment, confirm, ips, owner, reserve

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.unit.ipam.node import Node

A, B, C = (Unit(f"azvnet-{letter * 16}", ips(number)) for letter, number in (("a", 5), ("b", 6), ("c", 7)))
ON_NIC = (A, B, C)


def said(
    generation: int = 1,
    *,
    there: Collection[Unit] = ON_NIC,
    published: Collection[Unit] = (),
    begun: Collection[Unit] = (),
    observed: int = 0,
    uid: str = "u",
) -> AzvnetNode:
    """The resource."""
    shown = tuple(
        Configuration(
            each.name, ip_network(each.addresses[0]), primary=False, state="Succeeded", is_ours=True
        )
        for each in there
    )
    status = NodeStatus(
        configurations=shown, releasing=tuple(each.name for each in begun), observed_generation=observed
    )
    spec = NodeSpec(releasing=tuple(each.name for each in published))
    return AzvnetNode("n1", uid, "1", generation, spec, status)


class Place:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[tuple[str, str]] = []
        self.ipam = node.ready(5, 6, 7)
        self.hands = self.another_life()

    def another_life(self) -> Handshake:
        made = Handshake(self.ipam, self.node.clock, lambda level, text: self.told.append((level, text)))
        made.resume()
        made.follow(said())
        return made

    def names(self) -> tuple[str, ...]:
        return self.hands.names

    def withdrawn(self) -> dict[str, int]:
        known = offers.read(self.ipam.lasting)
        return {each.name: each.withdrawn for each in known.offers}


@pytest.fixture
def place(node: Node) -> Place:
    return Place(node)


def test_what_is_offered_is_marked_and_in_the_file(place: Place) -> None:
    assert place.hands.is_settled
    place.hands.offer([B, A], 30.0)
    place.hands.offer([A], 30.0)
    assert place.names() == (A.name, B.name)
    assert place.ipam.leaving() == place.hands.addresses == place.hands.kept() == set(ips(5, 6))
    assert place.withdrawn() == {B.name: 0, A.name: 0}
    assert not place.hands.is_settled


def test_what_a_pod_has_is_not_offered(place: Place) -> None:
    confirm(place.ipam, reserve(place.ipam, attachment("p"), owner(), ANY))
    place.hands.offer([A, B], 30.0)
    assert place.names() == (B.name,)
    place.hands.offer([A], 30.0)
    assert place.names() == (B.name,)


def test_what_is_withdrawn_stays_marked_until_the_operator_has_seen_that(place: Place) -> None:
    place.hands.offer([A], 30.0)
    place.hands.follow(said(2, published=[A]))
    place.hands.withdraw()
    assert place.names() == ()
    assert place.withdrawn() == {A.name: TO_BE_WITHDRAWN}
    place.hands.wrote(said(3, published=[A]))
    assert (place.withdrawn(), place.hands.withdrawn_in) == ({A.name: TO_BE_WITHDRAWN}, 0)
    place.hands.follow(said(3, published=[A], observed=3))
    place.hands.wrote(said(4))
    assert (place.withdrawn(), place.hands.withdrawn_in) == ({A.name: 4}, 4)
    place.hands.wrote(said(5))
    assert (place.withdrawn(), place.hands.withdrawn_in) == ({A.name: 4}, 4)
    place.hands.follow(said(5, observed=3))
    assert place.hands.kept() == set(ips(5))
    assert not place.hands.is_settled
    place.hands.follow(said(5, observed=4))
    assert place.hands.kept() == frozenset()
    assert place.hands.is_settled


@pytest.mark.parametrize(
    ("resource", "is_over"),
    [
        (said(5, observed=4), True),
        (said(5, observed=4, begun=[A]), False),
        (said(5, observed=4, published=[A]), False),
        (said(5, there=[B]), True),
        (said(5, there=[B], begun=[A]), False),
        (said(5), False),
    ],
)
def test_what_was_withdrawn_is_over_when_nobody_can_take_it(
    place: Place, resource: AzvnetNode, is_over: bool
) -> None:
    place.hands.offer([A], 30.0)
    place.hands.withdraw()
    place.hands.wrote(said(4))
    place.hands.follow(resource)
    assert place.hands.is_settled is is_over


def test_what_is_gone_from_the_nic_is_not_offered_any_more_unless_it_has_begun_to_go(place: Place) -> None:
    place.hands.offer([A, B, C], 30.0)
    place.hands.follow(said(2, there=[C], published=[A, B, C], begun=[B]))
    assert place.names() == (B.name, C.name)
    assert place.withdrawn() == {A.name: TO_BE_WITHDRAWN, B.name: 0, C.name: 0}


def test_an_offer_is_remembered_from_when_it_was_published_last(place: Place) -> None:
    place.hands.offer([A, B], 30.0)
    place.hands.withdraw()
    place.hands.offer([C], 30.0)
    place.node.clock.advance(100)
    place.hands.publishing()
    place.node.clock.advance(KEPT_SECONDS - 100)
    place.hands.hold()
    assert place.names() == (C.name,)
    assert place.hands.kept() == set(ips(7))
    place.node.clock.advance(100)
    place.hands.follow(said(2, published=[C], begun=[C]))
    place.hands.hold()
    assert place.names() == (C.name,), "it may be going now"
    place.hands.follow(said(3, published=[C]))
    place.hands.hold()
    assert place.names() == ()


def test_what_lost_its_mark_to_a_pod_is_withdrawn_and_marked_as_gone(place: Place) -> None:
    place.hands.offer([A, B], 30.0)
    place.hands.hold()
    assert (place.names(), place.told) == ((A.name, B.name), [])
    place.ipam.unmark_leaving(ips(5))
    confirm(place.ipam, reserve(place.ipam, attachment("p"), owner(), ANY))
    place.hands.hold()
    assert place.names() == (B.name,)
    assert place.withdrawn() == {A.name: TO_BE_WITHDRAWN, B.name: 0}
    ((level, text),) = place.told
    assert (level, A.name in text, B.name in text) == ("warning", True, False)
    assert place.ipam.leaving() == set(ips(5, 6))


def test_more_than_is_wanted_is_withdrawn_the_lowest_first(place: Place) -> None:
    place.hands.offer([A, B, C], 30.0)
    assert place.hands.limit(3) == 3
    place.hands.follow(said(2, published=ON_NIC, begun=[C]))
    assert place.hands.limit(1, but=[A.name]) == 1
    assert place.names() == (A.name, B.name, C.name), "what has begun and what is excepted do not count"
    assert place.hands.limit(1) == 1
    assert place.names() == (B.name, C.name)
    assert place.hands.limit(0) == 0
    assert place.names() == (C.name,)


def test_another_life_takes_up_what_was_offered_and_what_was_only_marked(place: Place) -> None:
    place.hands.offer([A], 30.0)
    place.ipam.mark_gone(ips(7))
    again = place.another_life()
    assert again.names == (A.name,)
    assert again.kept() == set(ips(5, 7))
    assert again.addresses == set(ips(5))
    again.wrote(said(4, published=[A]))
    again.follow(said(4, published=[A], observed=4))
    assert again.kept() == set(ips(5, 7)), "no word of the operator is about what has no name"
    place.node.clock.advance(KEPT_SECONDS)
    assert place.another_life().kept() == set(ips(5, 7)), "the marks are still there"


def test_in_another_resource_nothing_is_offered(place: Place) -> None:
    place.hands.offer([A], 30.0)
    place.hands.follow(said(uid="v"))
    assert (place.names(), place.hands.addresses) == ((), frozenset())
    assert place.hands.is_settled
    assert place.hands.kept() == set(ips(5)), "whoever read the former one may still take it"
