"""Reserve, confirm, release, abandon, quarantine: what a pod relies on."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from ipam.errors import (
    AddressUnavailable,
    AlreadyReserved,
    NoAddressesKnown,
    PoolExhausted,
    ReservationLost,
    SourceUnreadable,
)
from ipam.model import AddressRequest, AddressState, PoolCounts
from ipam.value import replace
from tests.unit.ipam.node import ANY, GATEWAY, MAC, attachment, ips, listing_of, owner, refresh

if TYPE_CHECKING:
    from tests.unit.ipam.node import Node

P1, P2, P3 = attachment("pod-1"), attachment("pod-2"), attachment("pod-3")


def test_a_reservation_says_everything_about_itself(node: Node) -> None:
    ipam = node.ready(5, 6)
    mine = owner("web", pod_uid="u", netns="/run/netns/x", netns_id="4:5", host_ifname="azv1", call_id="c")
    made = ipam.reserve(P1, mine, ANY)
    assert (made.attachment, made.owner, str(made.address)) == (P1, mine, "10.0.0.5/16")
    assert (made.gateway, made.source, made.nic_mac) == (GATEWAY, "imds", MAC)
    assert (made.confirmed, made.created_at) == (False, node.wall.now)
    assert ipam.reservation(P1) == ipam.find(made.ip) == made
    assert ipam.confirm(made) == ipam.reservation(P1) == replace(made, confirmed=True)


def test_another_process_sees_it_and_gives_out_another(node: Node) -> None:
    first = node.ready(5, 6).reserve(P1, owner(), ANY)
    second = node.process().reserve(P2, owner(), ANY)
    assert (first.ip, second.ip) == ips(5, 6)
    assert [each.ip for each in node.process().reservations()] == list(ips(5, 6))


def test_two_interfaces_of_one_container_are_two_attachments(node: Node) -> None:
    ipam = node.ready(5, 6)
    eth0 = ipam.reserve(attachment("pod", "eth0"), owner(), ANY)
    net1 = ipam.reserve(attachment("pod", "net1"), owner(), ANY)
    assert eth0.ip != net1.ip
    ipam.release(attachment("pod", "eth0"))
    assert ipam.reservation(attachment("pod", "net1")) == net1


def test_a_second_reservation_is_refused_and_harms_nothing(node: Node) -> None:
    ipam = node.ready()
    made = ipam.reserve(P1, owner(call_id="first"), ANY)
    with pytest.raises(AlreadyReserved, match=r"pod-1, eth0 holds 10\.0\.0\.5 already") as refused:
        ipam.reserve(P1, owner(call_id="second"), ANY)
    assert refused.value.reservation == made
    assert ipam.reservations() == (made,)


def test_release_is_idempotent_and_tells_what_it_was(node: Node) -> None:
    ipam = node.ready()
    made = ipam.reserve(P1, owner(), ANY)
    assert ipam.release(P1) == made
    assert ipam.release(P1) is None
    assert ipam.release(attachment("never-heard-of")) is None


def test_release_of_an_expected_reservation_spares_its_successor(node: Node) -> None:
    ipam = node.ready()
    old = ipam.reserve(P1, owner(call_id="1"), ANY)
    ipam.release(P1)
    node.wall.advance(1)
    new = ipam.reserve(P1, owner(call_id="2"), ANY)
    assert ipam.release(P1, expected=old) is None
    assert ipam.reservation(P1) == new
    assert ipam.release(P1, expected=new) == new


def test_a_released_address_rests_for_its_cooldown(node: Node) -> None:
    ipam = node.ready(5, 6)
    ipam.reserve(P1, owner(), ANY)
    ipam.release(P1)
    assert ipam.counts(30) == PoolCounts(free=1, assigned=0, cooling=1, quarantined=0)
    node.clock.advance(29.9)
    assert ipam.counts(30).cooling == 1
    node.clock.advance(0.2)
    assert ipam.counts(30) == PoolCounts(free=2, assigned=0, cooling=0, quarantined=0)


def test_never_used_addresses_are_given_out_before_rested_ones(node: Node) -> None:
    ipam = node.ready(5, 6, 7)
    ipam.reserve(P1, owner(), ANY)
    ipam.release(P1)
    node.clock.advance(1000)
    given = [ipam.reserve(attachment(f"p{i}"), owner(), ANY).ip for i in range(3)]
    assert given == list(ips(6, 7, 5))


def test_under_pressure_the_longest_resting_address_is_taken_and_counted(node: Node) -> None:
    ipam = node.ready(5, 6)
    for pod in (P1, P2):
        ipam.reserve(pod, owner(), ANY)
    for pod in (P2, P1):
        ipam.release(pod)
        node.clock.advance(1)
    assert ipam.reserve(P3, owner(), ANY).ip == ips(6)[0]
    assert ipam.counters()["cooldown_shortened"] == 1


def test_the_cooldown_survives_the_process(node: Node) -> None:
    ipam = node.ready(5, 6)
    ipam.reserve(P1, owner(), ANY)
    ipam.release(P1)
    ipam.close()
    assert node.process().reserve(P2, owner(), ANY).ip == ips(6)[0]


def test_the_wall_clock_decides_nothing(node: Node) -> None:
    ipam = node.ready(5)
    ipam.reserve(P1, owner(), ANY)
    ipam.release(P1)
    for jump in (-86400 * 365 * 60, 86400 * 365 * 11):
        node.wall.now = 1_800_000_000 + jump
        assert ipam.counts(30).cooling == 1
        assert not ipam.needs_adoption()
    state = ipam.source_state()
    assert state.success_age == 0


def test_an_address_of_the_node_itself_is_not_given_out(node: Node) -> None:
    ipam = node.ready(5, 6)
    request = AddressRequest(excluded=frozenset(ips(5)))
    assert ipam.reserve(P1, owner(), request).ip == ips(6)[0]


class TestRequestedAddress:
    def test_it_is_given(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        assert ipam.reserve(P1, owner(), AddressRequest(requested=ips(7)[0])).ip == ips(7)[0]

    def test_even_while_it_cools_and_that_is_counted(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        ipam.reserve(P1, owner(), ANY)
        ipam.release(P1)
        assert ipam.reserve(P1, owner(), AddressRequest(requested=ips(5)[0])).ip == ips(5)[0]
        assert ipam.counters()["cooldown_shortened"] == 1

    @pytest.mark.parametrize(
        ("requested", "why"),
        [
            ("10.0.0.5", "is held by default/web, eth0"),
            ("10.0.0.6", "the node itself carries it"),
            ("10.0.0.7", "can't be given out: somebody answers for it"),
            ("10.0.0.8", "does not list it any more"),
            ("10.0.0.9", "is not one of this node's NIC; imds was read 0 s ago"),
            ("fd00::9", "is not one of this node's NIC"),
        ],
    )
    def test_it_is_refused_with_the_reason(self, node: Node, requested: str, why: str) -> None:
        ipam = node.ready(5, 6, 7, 8)
        ipam.reserve(P1, owner("web"), ANY)
        ipam.quarantine(ips(7)[0], "somebody answers for it", 60)
        node.says = listing_of(*ips(5, 6, 7))
        refresh(ipam)
        before = ipam.counts()
        with pytest.raises(AddressUnavailable, match=why) as refused:
            ipam.reserve(
                P2, owner(), AddressRequest(requested=ip_address(requested), excluded=frozenset(ips(6)))
            )
        assert refused.value.remedy
        assert ipam.counts() == before


class TestConfirm:
    def test_a_del_in_between_makes_the_add_fail(self, node: Node) -> None:
        ipam = node.ready()
        made = ipam.reserve(P1, owner(), ANY)
        ipam.release(P1)
        with pytest.raises(ReservationLost, match="a DEL came in between"):
            ipam.confirm(made)
        assert ipam.reservations() == ()

    def test_a_del_and_another_add_in_between_make_the_first_fail(self, node: Node) -> None:
        ipam = node.ready(5)
        first = ipam.reserve(P1, owner(call_id="1"), ANY)
        ipam.release(P1)
        node.wall.advance(1)
        second = ipam.reserve(P1, owner(call_id="2"), ANY)
        assert second.ip == first.ip
        with pytest.raises(ReservationLost):
            ipam.confirm(first)
        assert ipam.confirm(second).confirmed

    def test_it_can_be_done_again(self, node: Node) -> None:
        ipam = node.ready()
        made = ipam.reserve(P1, owner(), ANY)
        assert ipam.confirm(ipam.confirm(made)) == ipam.confirm(made)


class TestAbandon:
    def test_an_address_no_pod_ever_had_needs_no_rest(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = ipam.reserve(P1, owner(), ANY)
        assert ipam.abandon(made)
        assert ipam.counts() == PoolCounts(free=2, assigned=0, cooling=0, quarantined=0)
        assert ipam.reserve(P2, owner(), ANY).ip == made.ip

    def test_it_still_rests_from_the_holder_before(self, node: Node) -> None:
        ipam = node.ready(5)
        ipam.reserve(P1, owner(), ANY)
        ipam.release(P1)
        node.clock.advance(10)
        ipam.abandon(ipam.reserve(P2, owner(), ANY))
        (status,) = ipam.addresses(30)
        assert (status.state, status.cooling_left) == (AddressState.COOLING, 20)

    def test_only_that_very_reservation_is_given_back(self, node: Node) -> None:
        ipam = node.ready(5)
        first = ipam.reserve(P1, owner(call_id="1"), ANY)
        ipam.release(P1)
        node.wall.advance(1)
        second = ipam.reserve(P1, owner(call_id="2"), ANY)
        assert not ipam.abandon(first)
        ipam.confirm(second)
        assert not ipam.abandon(second), "a pod uses it by now"
        assert ipam.reservation(P1) is not None


class TestQuarantine:
    def test_nobody_gets_it_until_it_is_over(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        assert ipam.quarantine(ips(5)[0], "somebody answers for it", 60)
        assert ipam.counts() == PoolCounts(free=1, assigned=0, cooling=0, quarantined=1)
        assert ipam.reserve(P1, owner(), ANY).ip == ips(6)[0]
        with pytest.raises(PoolExhausted, match=r"1 in quarantine \(1: somebody answers for it\)"):
            ipam.reserve(P2, owner(), ANY)
        node.clock.advance(60)
        assert ipam.counts() == PoolCounts(free=1, assigned=1, cooling=0, quarantined=0)
        assert ipam.reserve(P2, owner(), ANY).ip == ips(5)[0]
        assert ipam.counters()["quarantined"] == 1

    def test_its_holder_keeps_it(self, node: Node) -> None:
        ipam = node.ready(5)
        made = ipam.reserve(P1, owner(), ANY)
        ipam.quarantine(made.ip, "seen twice", 60)
        assert ipam.counts() == PoolCounts(free=0, assigned=1, cooling=0, quarantined=0)
        ipam.abandon(made)
        assert ipam.counts() == PoolCounts(free=0, assigned=0, cooling=0, quarantined=1)

    def test_an_unknown_address_is_no_error(self, node: Node) -> None:
        ipam = node.ready(5)
        assert not ipam.quarantine(ips(99)[0], "?", 60)
        assert ipam.counters()["quarantined"] == 0


class TestExhaustion:
    def test_the_error_names_the_holders_and_what_to_do(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7, 8)
        for number in range(3):
            ipam.reserve(attachment(f"sandbox-{number}"), owner("web"), ANY)
        ipam.reserve(attachment("0123456789abcdef"), owner(), ANY)
        node.clock.advance(42)
        with pytest.raises(PoolExhausted) as refused:
            ipam.reserve(P1, owner(), ANY)
        assert str(refused.value) == (
            "no free IPv4 address: 4 known, 4 held (default/web x3, container 0123456789ab); "
            "imds was read 42 s ago"
        )
        assert "az network nic ip-config create" in refused.value.remedy
        assert "max-pods to 4" in refused.value.remedy
        assert ipam.counters()["exhausted"] == 1

    def test_the_error_names_the_last_failure_of_the_source(self, node: Node) -> None:
        ipam = node.ready(5)
        ipam.reserve(P1, owner(), ANY)
        node.says = SourceUnreadable("source imds: GET http://x: 500", "look")
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        with pytest.raises(PoolExhausted, match="last attempt failed: source imds: GET http://x: 500"):
            ipam.reserve(P2, owner(), ANY)

    def test_the_error_names_cloud_init_when_the_node_carries_them_all(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        request = AddressRequest(excluded=frozenset(ips(5, 6)))
        with pytest.raises(
            PoolExhausted, match=r"2 carried by the node itself \(10.0.0.5, 10.0.0.6\)"
        ) as refused:
            ipam.reserve(P1, owner(), request)
        assert "apply_network_config_for_secondary_ips: false" in refused.value.remedy

    def test_the_error_says_when_the_next_one_has_cooled_down(self, node: Node) -> None:
        ipam = node.ready(5)
        ipam.reserve(P1, owner(), ANY)
        ipam.release(P1)
        node.clock.advance(10)
        request = AddressRequest(cooldown=30, excluded=frozenset(ips(5)))
        with pytest.raises(PoolExhausted, match="1 cooling, the next one for 20 s"):
            ipam.reserve(P2, owner(), request)

    def test_a_source_that_was_never_readable_is_another_error(self, node: Node) -> None:
        ipam = node.process()
        ipam.adopt(())
        with pytest.raises(NoAddressesKnown, match="its source was not read yet"):
            ipam.reserve(P1, owner(), ANY)
        node.says = SourceUnreadable("source imds: no answer", "ask the platform team")
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        with pytest.raises(
            NoAddressesKnown, match="never readable, last attempt failed: source imds: no"
        ) as e:
            ipam.reserve(P1, owner(), ANY)
        assert e.value.remedy == "ask the platform team"
        assert ipam.counters()["exhausted"] == 0


def test_the_four_states_are_told_address_by_address(node: Node) -> None:
    ipam = node.ready(5, 6, 7, 8)
    held = ipam.confirm(ipam.reserve(P1, owner("web"), ANY))
    ipam.reserve(P2, owner(), ANY)
    ipam.release(P2)
    ipam.quarantine(ips(7)[0], "why", 5)
    states = {str(status.address.ip): status for status in ipam.addresses(30)}
    assert {ip: status.state.value for ip, status in states.items()} == {
        "10.0.0.5": "assigned",
        "10.0.0.6": "cooling",
        "10.0.0.7": "quarantined",
        "10.0.0.8": "free",
    }
    assert states["10.0.0.5"].reservation == held
    assert states["10.0.0.6"].cooling_left == 30
    assert (states["10.0.0.7"].quarantine_left, states["10.0.0.7"].reason) == (5, "why")
    assert ipam.counts(30) == PoolCounts(free=1, assigned=1, cooling=1, quarantined=1)


def test_reservations_of_one_network_only(node: Node) -> None:
    ipam = node.ready(5, 6)
    ipam.reserve(P1, owner(), ANY)
    other = ipam.reserve(P2, replace(owner(), network="other"), ANY)
    assert ipam.reservations("other") == (other,)
    assert len(ipam.reservations()) == 2


def test_addresses_of_other_nics_than_the_one_that_is_asked_for_are_counted(node: Node) -> None:
    ipam = node.ready(5, 6)
    elsewhere = AddressRequest(nic_mac="00:0d:3a:00:00:02")
    with pytest.raises(PoolExhausted, match="2 of other NICs than 00:0d:3a:00:00:02"):
        ipam.reserve(P1, owner(), elsewhere)
    with pytest.raises(AddressUnavailable, match=f"one of NIC {MAC}, not of 00:0d:3a:00:00:02"):
        ipam.reserve(P1, owner(), replace(elsewhere, requested=ips(5)[0]))
    assert ipam.reserve(P1, owner(), replace(elsewhere, nic_mac=MAC)).ip == ips(5)[0]
