"""The order of choice and the merge of listings, as pure functions."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import NicUnclear, SourceEmpty
from ipam.mac import ANY_NIC
from ipam.model import AddressState, ListedNic, Listing, Nic
from ipam.pool import (
    Candidate,
    Changes,
    Known,
    choose,
    choose_nic,
    cooling_left,
    merge,
    offered,
    state_of,
)
from tests.unit.ipam.node import GATEWAY, MAC, asking, ips, listing_of, pool_address

if TYPE_CHECKING:
    from ipam.model import IPAddress

A, B, C = ips(5, 6, 7)


def candidate(key: int, ip: IPAddress, released_at: float | None) -> Candidate:
    return Candidate(key, pool_address(ip), released_at)


def in_order(*candidates: Candidate) -> list[Candidate]:
    return sorted(
        candidates, key=lambda each: (each.released_at is not None, each.released_at or 0.0, each.address.ip)
    )


def known(ip: object, misses: int = 0) -> Known:
    return Known(pool_address(str(ip)), misses)


def test_never_used_addresses_come_first_and_ascending() -> None:
    candidates = in_order(candidate(1, C, None), candidate(2, A, 5.0), candidate(3, B, None))
    assert [each.address.ip for each in candidates] == [B, C, A]


def test_addresses_ascend_by_number_and_not_by_text() -> None:
    candidates = in_order(*(candidate(0, ip, None) for ip in ips(100, 20, 3 * 256)))
    assert [str(each.address.ip) for each in candidates] == ["10.0.0.20", "10.0.0.100", "10.0.3.0"]


def test_oldest_released_comes_before_newer() -> None:
    candidates = in_order(candidate(1, A, 9.0), candidate(2, B, 3.0))
    choice = choose(candidates, asking(cooldown=1), now=10.0)
    assert choice is not None
    assert choice.candidate.address.ip == B


def test_a_cooling_address_is_taken_only_when_nothing_else_is_left() -> None:
    request = asking(cooldown=30)
    rested_and_cooling = in_order(candidate(1, A, 95.0), candidate(2, B, 60.0))
    choice = choose(rested_and_cooling, request, now=100.0)
    assert choice is not None
    assert (choice.candidate.address.ip, choice.shortened) == (B, False)
    only_cooling = in_order(candidate(1, A, 95.0), candidate(2, B, 90.0))
    choice = choose(only_cooling, request, now=100.0)
    assert choice is not None
    assert (choice.candidate.address.ip, choice.shortened) == (B, True)


def test_cooldown_zero_never_counts_as_shortened() -> None:
    choice = choose([candidate(1, A, 100.0)], asking(cooldown=0), now=100.0)
    assert choice is not None
    assert not choice.shortened


def test_addresses_of_the_node_itself_are_never_chosen() -> None:
    request = asking(excluded=frozenset({A, B}))
    choice = choose([candidate(1, A, None), candidate(2, B, None), candidate(3, C, 1.0)], request, now=100)
    assert choice is not None
    assert choice.candidate.address.ip == C
    assert choose([candidate(1, A, None)], request, now=100) is None


def test_only_what_is_needed_is_read_of_the_candidates() -> None:
    def candidates() -> object:
        yield candidate(1, A, None)
        pytest.fail("the second candidate was read although the first one fits")

    assert choose(candidates(), asking(), now=0) is not None  # type: ignore[arg-type]


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
        assert merge([pool_address(A)], {}) == Changes(listed=(pool_address(A),))

    def test_nothing_changes_when_the_listing_is_the_same(self) -> None:
        assert merge([pool_address(A)], {A: known(A)}) == Changes()

    def test_an_address_missing_once_stays(self) -> None:
        assert merge([pool_address(A)], {A: known(A), B: known(B)}) == Changes(missed=(B,))

    def test_an_address_missing_twice_leaves(self) -> None:
        assert merge([pool_address(A)], {A: known(A), B: known(B, misses=1)}) == Changes(removed=(B,))

    def test_an_address_that_comes_back_starts_counting_anew(self) -> None:
        changes = merge([pool_address(A)], {A: known(A, misses=1)})
        assert changes == Changes(listed=(pool_address(A),))

    def test_another_prefix_gateway_or_nic_is_written(self) -> None:
        wider = pool_address(A, prefix=24)
        assert merge([wider], {A: known(A)}) == Changes(listed=(wider,))

    @given(st.sets(st.integers(5, 20)), st.sets(st.integers(5, 20)))
    def test_each_address_is_in_one_kind_of_change_at_most(self, now: set[int], before: set[int]) -> None:
        changes = merge([pool_address(ip) for ip in ips(*now)], {ip: known(ip) for ip in ips(*before)})
        kinds = [*(address.ip for address in changes.listed), *changes.missed, *changes.removed]
        assert len(kinds) == len(set(kinds))
        assert set(changes.missed) == set(ips(*(before - now)))


class TestOffered:
    def test_the_addresses_of_every_nic_are(self) -> None:
        other = Nic("00:0d:3a:00:00:02", None, (), (pool_address("10.0.0.9"),))
        listing = Listing("imds", (*listing_of(A).nics, other))
        assert {address.ip for address in offered(listing)} == {A, ip_address("10.0.0.9")}

    def test_an_address_of_the_host_is_never_offered(self) -> None:
        mine = Nic(MAC, None, (A,), (pool_address(B),))
        other = Nic("00:0d:3a:00:00:02", None, (), (pool_address(A),))
        assert [address.ip for address in offered(Listing("file", (mine, other)))] == [B]

    def test_an_empty_document_is_an_error_and_says_what_is_missing(self) -> None:
        with pytest.raises(SourceEmpty, match="lists no NIC at all"):
            offered(Listing("imds", ()))
        with pytest.raises(SourceEmpty, match=f"no address for pods on NIC {MAC}") as no_secondary:
            offered(listing_of())
        assert "az network nic ip-config create" in no_secondary.value.remedy

    def test_what_was_passed_over_is_part_of_the_error(self) -> None:
        with pytest.raises(SourceEmpty, match=r"10\.9\.9\.9: it is in none of the NIC's subnets"):
            offered(Listing("imds", (), warnings=("10.9.9.9: it is in none of the NIC's subnets",)))


def test_the_gateway_of_the_helper_is_the_first_host_address() -> None:
    assert ip_interface("10.0.0.5/16").network[1] == GATEWAY


def listed_nic(mac: str, *, primary: bool | None = None) -> ListedNic:
    return ListedNic(mac, primary, (), (), None)


@pytest.mark.parametrize(
    ("nics", "wanted", "chosen"),
    [
        ([("a", None), ("b", None)], "b", "b"),
        ([(ANY_NIC, None)], "b", "b"),
        ([("a", None)], "", "a"),
        ([("a", None), ("b", True)], "", "b"),
    ],
)
def test_the_nic_is_the_one_that_is_wanted_or_else_the_only_or_the_primary_one(
    nics: list[tuple[str, bool | None]], wanted: str, chosen: str
) -> None:
    assert choose_nic([listed_nic(mac, primary=primary) for mac, primary in nics], wanted, "imds") == chosen


def test_a_nic_that_is_not_listed_or_not_clear_is_an_error_that_names_those_that_are() -> None:
    both = [listed_nic("a", primary=True), listed_nic("b", primary=True)]
    with pytest.raises(SourceEmpty, match="no NIC with MAC c, only a, b"):
        choose_nic(both, "c", "imds")
    with pytest.raises(SourceEmpty, match=r"lists no NIC with MAC c$"):
        choose_nic([], "c", "imds")
    with pytest.raises(NicUnclear, match="lists NICs a, b"):
        choose_nic(both, "", "imds")


def test_a_released_address_cools_down_until_exactly_its_time() -> None:
    def state(now: float) -> AddressState:
        return state_of(held=False, listed=True, quarantined=False, released_at=10.0, cooldown=30.0, now=now)

    assert [state(39.9), state(40.0)] == [AddressState.COOLING, AddressState.FREE]


def test_the_remedy_for_no_address_begins_with_what_was_skipped_where_anything_was() -> None:
    nic = Nic(MAC, None, (), ())
    for warnings, begins in (((), "Add secondary"), (("one is odd",), "Look at what was skipped")):
        with pytest.raises(SourceEmpty) as caught:
            offered(Listing("imds", (nic,), warnings))
        assert caught.value.remedy.startswith(begins)
        assert ("one is odd" in str(caught.value)) == bool(warnings)
