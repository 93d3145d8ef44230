"""The order of choice and the merge of listings, as pure functions."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import SourceEmpty
from ipam.mac import ANY_NIC
from ipam.model import AddressRequest, AddressState, Listing, Nic
from ipam.pool import (
    Candidate,
    Changes,
    Known,
    choose,
    cooling_left,
    merge,
    offered,
    order_of_choice,
    state_of,
)
from ipam.value import replace
from tests.unit.ipam.node import GATEWAY, MAC, ips, listing_of, pool_address

A, B, C = ips(5, 6, 7)


def in_order(*candidates: Candidate) -> list[Candidate]:
    return sorted(candidates, key=order_of_choice)


def known(
    ip: object, *, listed: bool = True, misses: int = 0, held: bool = False, adopted: bool = False
) -> Known:
    return Known(pool_address(str(ip)), listed, misses, held, adopted)


def test_where_a_nic_is_asked_for_others_addresses_are_passed_over() -> None:
    first, second = "00:0d:3a:00:00:01", "00:0d:3a:00:00:02"
    candidates = [Candidate(1, A, None, first), Candidate(2, B, None, second), Candidate(3, C, None, ANY_NIC)]
    chosen = [
        choose(candidates, AddressRequest(nic_mac=mac), now=100) for mac in ("", first, second, "other")
    ]
    assert [choice and choice.candidate.ip for choice in chosen] == [A, A, B, C]


def test_never_used_addresses_come_first_and_ascending() -> None:
    candidates = in_order(Candidate(1, C, None), Candidate(2, A, 5.0), Candidate(3, B, None))
    assert [candidate.ip for candidate in candidates] == [B, C, A]


def test_addresses_ascend_by_number_and_not_by_text() -> None:
    candidates = in_order(*(Candidate(0, ip, None) for ip in ips(100, 20, 3 * 256)))
    assert [str(candidate.ip) for candidate in candidates] == ["10.0.0.20", "10.0.0.100", "10.0.3.0"]


def test_oldest_released_comes_before_newer() -> None:
    candidates = in_order(Candidate(1, A, 9.0), Candidate(2, B, 3.0))
    choice = choose(candidates, AddressRequest(cooldown=1), now=10.0)
    assert choice is not None
    assert choice.candidate.ip == B


def test_a_cooling_address_is_taken_only_when_nothing_else_is_left() -> None:
    request = AddressRequest(cooldown=30)
    rested_and_cooling = in_order(Candidate(1, A, 95.0), Candidate(2, B, 60.0))
    choice = choose(rested_and_cooling, request, now=100.0)
    assert choice is not None
    assert (choice.candidate.ip, choice.shortened) == (B, False)
    only_cooling = in_order(Candidate(1, A, 95.0), Candidate(2, B, 90.0))
    choice = choose(only_cooling, request, now=100.0)
    assert choice is not None
    assert (choice.candidate.ip, choice.shortened) == (B, True)


def test_cooldown_zero_never_counts_as_shortened() -> None:
    choice = choose([Candidate(1, A, 100.0)], AddressRequest(cooldown=0), now=100.0)
    assert choice is not None
    assert not choice.shortened


def test_addresses_of_the_node_itself_are_never_chosen() -> None:
    request = AddressRequest(excluded=frozenset({A, B}))
    choice = choose([Candidate(1, A, None), Candidate(2, B, None), Candidate(3, C, 1.0)], request, now=100)
    assert choice is not None
    assert choice.candidate.ip == C
    assert choose([Candidate(1, A, None)], request, now=100) is None


def test_only_what_is_needed_is_read_of_the_candidates() -> None:
    def candidates() -> object:
        yield Candidate(1, A, None)
        pytest.fail("the second candidate was read although the first one fits")

    assert choose(candidates(), AddressRequest(), now=0) is not None  # type: ignore[arg-type]


def test_a_clock_that_went_back_does_not_lengthen_the_cooldown() -> None:
    assert cooling_left(released_at=500.0, cooldown=30.0, now=100.0) == 30.0


@given(
    held=st.booleans(),
    listed=st.booleans(),
    quarantined=st.booleans(),
    released_at=st.none() | st.floats(0, 100),
    cooldown=st.floats(0, 60),
)
def test_every_address_is_in_exactly_one_state(
    held: bool, listed: bool, quarantined: bool, released_at: float | None, cooldown: float
) -> None:
    state = state_of(
        held=held,
        listed=listed,
        quarantined=quarantined,
        released_at=released_at,
        cooldown=cooldown,
        now=100.0,
    )
    assert (state is AddressState.ASSIGNED) == held
    if state is AddressState.FREE:
        assert listed
        assert not quarantined
        assert cooling_left(released_at, cooldown, 100.0) == 0


class TestMerge:
    def test_new_addresses_enter_at_once(self) -> None:
        assert merge([pool_address(A)], {}) == Changes(added=(pool_address(A),))

    def test_nothing_changes_when_the_listing_is_the_same(self) -> None:
        assert merge([pool_address(A)], {A: known(A)}) == Changes()

    def test_an_address_missing_once_stays(self) -> None:
        assert merge([pool_address(A)], {A: known(A), B: known(B)}) == Changes(missed=(B,))

    def test_an_address_missing_twice_leaves(self) -> None:
        before = {A: known(A), B: known(B, listed=False, misses=1)}
        assert merge([pool_address(A)], before) == Changes(removed=(B,))

    def test_an_address_that_a_pod_holds_never_leaves(self) -> None:
        before = {A: known(A), B: known(B, listed=False, misses=7, held=True)}
        assert merge([pool_address(A)], before) == Changes(missed=(B,))

    def test_an_address_that_comes_back_starts_counting_anew(self) -> None:
        changes = merge([pool_address(A)], {A: known(A, listed=False, misses=1)})
        assert changes == Changes(changed=(pool_address(A),))

    def test_a_held_address_keeps_the_prefix_that_its_pod_has(self) -> None:
        wider = pool_address(A, prefix=24)
        assert merge([wider], {A: known(A, held=True)}) == Changes()
        assert merge([wider], {A: known(A, held=False)}) == Changes(changed=(wider,))
        back = merge([wider], {A: known(A, held=True, listed=False, misses=1)})
        assert back == Changes(changed=(pool_address(A),))

    def test_an_adopted_address_learns_its_subnet_from_the_first_listing(self) -> None:
        changes = merge([pool_address(A)], {A: replace(known(A, listed=False, held=True), adopted=True)})
        assert changes == Changes(changed=(pool_address(A),))

    @given(st.sets(st.integers(5, 20)), st.sets(st.integers(5, 20)))
    def test_each_address_is_in_one_kind_of_change_at_most(self, now: set[int], before: set[int]) -> None:
        changes = merge([pool_address(ip) for ip in ips(*now)], {ip: known(ip) for ip in ips(*before)})
        kinds = [
            *(address.ip for address in (*changes.added, *changes.changed)),
            *changes.missed,
            *changes.removed,
        ]
        assert len(kinds) == len(set(kinds))
        assert set(changes.missed) == set(ips(*(before - now)))


class TestOffered:
    def test_only_the_nics_of_the_uplink_count(self) -> None:
        other = Nic("00:0d:3a:00:00:02", None, (), (pool_address("10.0.0.9"),))
        listing = Listing("imds", (*listing_of(A).nics, other))
        assert [address.ip for address in offered(listing, (MAC,))] == [A]
        assert {address.ip for address in offered(listing, None)} == {A, ip_address("10.0.0.9")}

    def test_the_spelling_of_a_mac_does_not_matter(self) -> None:
        assert offered(listing_of(A), ("00-0D-3A-E5-1C-C0",))

    def test_a_star_in_the_document_fits_any_uplink(self) -> None:
        assert offered(listing_of(A, mac="*"), ("00:0d:3a:00:00:99",))

    def test_an_address_of_the_host_is_never_offered(self) -> None:
        mine = Nic(MAC, None, (A,), (pool_address(B),))
        other = Nic("00:0d:3a:00:00:02", None, (), (pool_address(A),))
        assert [address.ip for address in offered(Listing("file", (mine, other)), None)] == [B]

    def test_an_empty_document_is_an_error_and_says_what_is_missing(self) -> None:
        with pytest.raises(SourceEmpty, match="lists no NIC at all"):
            offered(Listing("imds", ()), None)
        with pytest.raises(SourceEmpty, match=f"no NIC with MAC 00:0d:3a:00:00:99, only {MAC}") as other_nic:
            offered(listing_of(A), ("00:0d:3a:00:00:99",))
        assert "master" in other_nic.value.remedy
        with pytest.raises(SourceEmpty, match=f"no address for pods on NIC {MAC}") as no_secondary:
            offered(listing_of(), None)
        assert "az network nic ip-config create" in no_secondary.value.remedy

    def test_what_was_passed_over_is_part_of_the_error(self) -> None:
        with pytest.raises(SourceEmpty, match=r"10\.9\.9\.9: it is in none of the NIC's subnets"):
            offered(Listing("imds", (), warnings=("10.9.9.9: it is in none of the NIC's subnets",)), None)


def test_the_gateway_of_the_helper_is_the_first_host_address() -> None:
    assert ip_interface("10.0.0.5/16").network[1] == GATEWAY
