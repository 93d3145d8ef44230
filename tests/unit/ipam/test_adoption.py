"""A new store is told what is alive before it gives anything out; a lost one costs no pod its address."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from ipam.errors import AdoptionNeeded, NoAddressesKnown, ReservationLost
from ipam.model import AddressStatus, PoolCounts
from ipam.value import replace
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    MAC,
    attachment,
    confirm,
    counters,
    counts,
    find,
    held,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

if TYPE_CHECKING:
    from ipam.ipam import Ipam
    from ipam.model import IPInterface, Reservation
    from tests.unit.ipam.node import Node

P1, P2, P3 = attachment("pod-1"), attachment("pod-2"), attachment("pod-3")


def lose_store(node: Node) -> None:
    for path in node.run_dir.glob("azvnet.db*"):
        path.unlink()


def alive(node: Node, count: int = 2) -> tuple[Ipam, list[Reservation]]:
    ipam = node.ready(5, 6, 7, 8)
    return ipam, [
        confirm(ipam, reserve(ipam, attachment(f"pod-{i + 1}"), owner(f"web-{i}"), ANY)) for i in range(count)
    ]


def status_of(ipam: Ipam, number: int) -> AddressStatus:
    (status,) = (each for each in ipam.addresses() if each.address.ip == ips(number)[0])
    return status


def test_nothing_is_given_out_before_adoption(node: Node) -> None:
    ipam = node.process()
    assert ipam.needs_adoption()
    refresh(ipam)
    with pytest.raises(AdoptionNeeded) as refused:
        reserve(ipam, P1, owner(), ANY)
    assert refused.value.remedy
    assert ipam.adopt(()) == ()
    assert not ipam.needs_adoption()
    assert reserve(ipam, P1, owner(), ANY).ip == ips(5)[0]


def test_a_live_pod_keeps_its_address_when_the_store_is_lost(node: Node) -> None:
    ipam, pods = alive(node)
    lose_store(node)
    assert ipam.needs_adoption()
    assert ipam.adopt(pods) == ()
    refresh(ipam)
    assert reserve(ipam, P3, owner(), ANY).ip == ips(7)[0]
    assert {each.ip for each in ipam.reservations()} == set(ips(5, 6, 7))
    assert counts(ipam) == PoolCounts(free=1, assigned=3, cooling=0, quarantined=0)


def test_what_is_adopted_is_counted_once(node: Node) -> None:
    ipam, pods = alive(node)
    lose_store(node)
    for _ in range(2):
        ipam.adopt(pods)
        assert counters(ipam)["adopted"] == 2


def test_adopting_again_changes_nothing(node: Node) -> None:
    ipam, pods = alive(node)
    before = ipam.addresses()
    other_facts = [replace(pod, owner=owner("somebody-else"), created_at=1.0) for pod in pods]
    assert ipam.adopt(other_facts) == ()
    assert ipam.addresses() == before


def test_what_the_store_knows_wins_and_the_contradiction_is_reported(node: Node) -> None:
    ipam, (first, second) = alive(node)
    stranger = replace(first, attachment=P3)
    moved = replace(second, address=address_of(8))
    never_listed = replace(second, address=address_of(99))
    assert ipam.adopt([stranger, moved, never_listed]) == (stranger, moved, never_listed)
    assert ipam.reservations() == (first, second)


def test_of_two_with_the_same_address_the_first_is_adopted(node: Node) -> None:
    ipam, (first, _) = alive(node)
    lose_store(node)
    twin = replace(first, attachment=P3)
    assert ipam.adopt([first, twin]) == (twin,)
    assert find(ipam, first.ip) == replace(first, generation=ipam.reservations()[0].generation, source="")


def test_an_adopted_address_is_held_though_no_source_lists_it(node: Node) -> None:
    ipam, pods = alive(node)
    lose_store(node)
    ipam.adopt(pods)
    assert not status_of(ipam, 5).listed
    node.says = listing_of(*ips(6, 7, 8))
    for _ in range(4):
        refresh(ipam)
    assert status_of(ipam, 5).state.value == "assigned"
    assert counts(ipam) == PoolCounts(free=2, assigned=2, cooling=0, quarantined=0)
    release(ipam, P1)
    assert counts(ipam) == PoolCounts(free=2, assigned=1, cooling=0, quarantined=0)


def test_an_adopted_address_learns_prefix_and_nic_from_the_source(node: Node) -> None:
    ipam, pods = alive(node, 1)
    lose_store(node)
    bare = replace(pods[0], address=address_of(5, prefix=32), nic_mac="")
    ipam.adopt([bare])
    refresh(ipam)
    status = status_of(ipam, 5)
    assert (str(status.address), status.nic_mac, status.source) == ("10.0.0.5/16", MAC, "imds")
    assert status.reservation is not None
    assert status.reservation.attachment == P1


class TestConfirmAfterTheStoreWasLost:
    def test_the_reservation_is_written_again(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = reserve(ipam, P1, owner("web"), ANY)
        lose_store(node)
        confirmed = confirm(ipam, made)
        assert (confirmed.ip, confirmed.owner, confirmed.confirmed) == (made.ip, made.owner, True)
        ipam.adopt(())
        refresh(ipam)
        assert reserve(ipam, P2, owner(), ANY).ip == ips(6)[0]

    def test_an_adopted_one_is_recognised_by_its_address(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = reserve(ipam, P1, owner("web", call_id="c"), ANY)
        lose_store(node)
        ipam.adopt([replace(made, owner=owner(), created_at=7.0)])
        assert confirm(ipam, made).ip == made.ip

    def test_what_is_confirmed_belongs_to_the_store_that_there_is_now(self, node: Node) -> None:
        """Else a later step would take it for one of the store that is gone."""
        ipam = node.ready(5)
        made = reserve(ipam, P1, owner(call_id="c"), ANY)
        lose_store(node)
        ipam.adopt([made])
        confirmed = confirm(ipam, made)
        assert confirmed.generation != made.generation
        assert confirmed == held(ipam, P1)

    def test_the_add_fails_when_the_address_went_to_another(self, node: Node) -> None:
        ipam = node.ready(5)
        made = reserve(ipam, P1, owner(), ANY)
        lose_store(node)
        ipam.adopt(())
        refresh(ipam)
        other = reserve(ipam, P2, owner(), ANY)
        assert other.ip == made.ip
        with pytest.raises(ReservationLost, match="has another holder now"):
            confirm(ipam, made)
        assert ipam.reservations() == (other,)

    def test_abandoning_frees_nothing_of_the_new_store(self, node: Node) -> None:
        ipam = node.ready(5)
        made = reserve(ipam, P1, owner(), ANY)
        lose_store(node)
        ipam.adopt([made])
        assert not ipam.abandon(made)


class TestReleaseAfterTheStoreWasLost:
    def test_an_adopted_address_is_that_of_the_call_that_made_it(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = reserve(ipam, P1, owner("web", call_id="c"), ANY)
        lose_store(node)
        ipam.adopt([replace(made, owner=owner())])
        released = release(ipam, P1, expected=made)
        assert released is not None
        assert released.ip == made.ip

    def test_another_address_of_the_same_attachment_is_not(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = reserve(ipam, P1, owner("web", call_id="c"), ANY)
        lose_store(node)
        ipam.adopt([replace(made, owner=owner(), address=address_of(6))])
        assert release(ipam, P1, expected=made) is None


class TestReboot:
    def test_holders_are_dropped_and_addresses_kept(self, node: Node) -> None:
        ipam, _ = alive(node)
        release(ipam, P2)
        ipam.quarantine(ips(8)[0], "why", 600)
        node.start_anew("boot-2")
        node.clock.now = 3.0
        again = node.process()
        assert counts(again) == PoolCounts(free=4, assigned=0, cooling=0, quarantined=0)
        assert again.needs_adoption()
        with pytest.raises(AdoptionNeeded):
            reserve(again, P1, owner(), ANY)
        again.adopt(())
        with pytest.raises(NoAddressesKnown, match="read before the node was restarted") as refused:
            reserve(again, P1, owner(), ANY)
        assert refused.value.remedy == "Check `ipam.environment`."
        refresh(again, force=False)
        assert reserve(again, P1, owner(), ANY).ip == ips(5)[0]

    def test_the_first_thing_after_it_may_be_an_add(self, node: Node) -> None:
        alive(node)
        node.start_anew("boot-2")
        with pytest.raises(AdoptionNeeded):
            reserve(node.process(), P3, owner(), ANY)

    def test_an_address_known_only_from_a_pod_goes_with_it(self, node: Node) -> None:
        ipam, pods = alive(node, 1)
        lose_store(node)
        ipam.adopt(pods)
        node.start_anew("boot-2")
        assert node.process().addresses() == ()

    def test_ages_do_not_mix_the_clocks_of_two_boots(self, node: Node) -> None:
        node.ready(5)
        node.start_anew("boot-2")
        node.clock.now = 3.0
        state = node.process().source_state(CONFIG)
        assert (state.success_age, state.last_success_at) == (None, node.wall.now)

    def test_the_same_boot_drops_nothing(self, node: Node) -> None:
        _, pods = alive(node)
        assert [each.attachment for each in node.process().reservations()] == [pod.attachment for pod in pods]

    def test_looking_at_the_store_alone_notices_the_reboot(self, node: Node) -> None:
        alive(node)
        node.start_anew("boot-2")
        assert node.process().reservations() == ()


def address_of(number: int, prefix: int = 16) -> IPInterface:

    return ip_interface(f"{ips(number)[0]}/{prefix}")
