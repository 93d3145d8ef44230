"""Reserve, confirm, release, abandon, quarantine: what a pod relies on."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from ipam.errors import (
    AddressUnavailable,
    AlreadyReserved,
    NicUnclear,
    NoAddressesKnown,
    PoolExhausted,
    ReservationLost,
    SourceEmpty,
    SourceUnreadable,
)
from ipam.model import DEFAULT_COOLDOWN_SECONDS, AddressState, Listing, Nic, PoolCounts
from ipam.value import replace
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    GATEWAY,
    MAC,
    asking,
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
    from tests.unit.ipam.node import Node

P1, P2, P3 = attachment("pod-1"), attachment("pod-2"), attachment("pod-3")


def test_a_reservation_says_everything_about_itself(node: Node) -> None:
    ipam = node.ready(5, 6)
    mine = owner("web", pod_uid="u", netns="/run/netns/x", netns_id="4:5", call_id="c")
    made = reserve(ipam, P1, mine, ANY)
    assert (made.attachment, made.owner, str(made.address)) == (P1, mine, "10.0.0.5/16")
    assert (made.gateway, made.source, made.nic_mac) == (GATEWAY, "imds", MAC)
    assert (made.confirmed, made.created_at) == (False, node.wall.now)
    assert held(ipam, P1) == find(ipam, made.ip) == made
    assert confirm(ipam, made) == held(ipam, P1) == replace(made, confirmed=True)


def test_another_process_sees_it_and_gives_out_another(node: Node) -> None:
    first = reserve(node.ready(5, 6), P1, owner(), ANY)
    second = reserve(node.process(), P2, owner(), ANY)
    assert (first.ip, second.ip) == ips(5, 6)
    assert [each.ip for each in node.process().reservations()] == list(ips(5, 6))


def test_two_interfaces_of_one_container_are_two_attachments(node: Node) -> None:
    ipam = node.ready(5, 6)
    eth0 = reserve(ipam, attachment("pod", "eth0"), owner(), ANY)
    net1 = reserve(ipam, attachment("pod", "net1"), owner(), ANY)
    assert eth0.ip != net1.ip
    release(ipam, attachment("pod", "eth0"))
    assert held(ipam, attachment("pod", "net1")) == net1


def test_a_second_reservation_is_refused_and_harms_nothing(node: Node) -> None:
    ipam = node.ready()
    made = reserve(ipam, P1, owner(call_id="first"), ANY)
    with pytest.raises(AlreadyReserved, match=r"pod-1, eth0 already holds 10\.0\.0\.5") as refused:
        reserve(ipam, P1, owner(call_id="second"), ANY)
    assert refused.value.reservations == (made,)
    assert ipam.reservations() == (made,)


def test_release_is_idempotent_and_tells_what_it_was(node: Node) -> None:
    ipam = node.ready()
    made = reserve(ipam, P1, owner(), ANY)
    assert release(ipam, P1) == made
    assert release(ipam, P1) is None
    assert release(ipam, attachment("never-heard-of")) is None


def test_release_of_an_expected_reservation_spares_its_successor(node: Node) -> None:
    ipam = node.ready()
    old = reserve(ipam, P1, owner(call_id="1"), ANY)
    release(ipam, P1)
    node.wall.advance(1)
    new = reserve(ipam, P1, owner(call_id="2"), ANY)
    assert release(ipam, P1, expected=old) is None
    assert held(ipam, P1) == new
    assert release(ipam, P1, expected=new) == new


@pytest.mark.parametrize("changed", [{"created_at": 1.0}, {"owner": owner(call_id="2")}])
def test_another_time_or_another_call_is_another_reservation(node: Node, changed: dict[str, Any]) -> None:
    """A clock may stand still between two calls, and a call may be made again."""
    ipam = node.ready(5)
    made = reserve(ipam, P1, owner(call_id="1"), ANY)
    assert release(ipam, P1, expected=replace(made, **changed)) is None
    assert release(ipam, P1, expected=made) == made


def test_a_released_address_rests_for_its_cooldown(node: Node) -> None:
    ipam = node.ready(5, 6)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    assert counts(ipam, 30) == PoolCounts(free=1, assigned=0, cooling=1, quarantined=0)
    node.clock.advance(29.9)
    assert counts(ipam, 30).cooling == 1
    node.clock.advance(0.2)
    assert counts(ipam, 30) == PoolCounts(free=2, assigned=0, cooling=0, quarantined=0)


def test_never_used_addresses_are_given_out_before_rested_ones(node: Node) -> None:
    ipam = node.ready(5, 6, 7)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    node.clock.advance(1000)
    given = [reserve(ipam, attachment(f"p{i}"), owner(), ANY).ip for i in range(3)]
    assert given == list(ips(6, 7, 5))


def test_under_pressure_the_longest_resting_address_is_taken_and_counted(node: Node) -> None:
    ipam = node.ready(5, 6)
    for pod in (P1, P2):
        reserve(ipam, pod, owner(), ANY)
    for pod in (P2, P1):
        release(ipam, pod)
        node.clock.advance(1)
    assert reserve(ipam, P3, owner(), ANY).ip == ips(6)[0]
    assert counters(ipam)["cooldown_shortened"] == 1


def test_the_cooldown_survives_the_process(node: Node) -> None:
    ipam = node.ready(5, 6)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    ipam.close()
    assert reserve(node.process(), P2, owner(), ANY).ip == ips(6)[0]


def test_the_wall_clock_decides_nothing(node: Node) -> None:
    ipam = node.ready(5)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    for jump in (-86400 * 365 * 60, 86400 * 365 * 11):
        node.wall.now = 1_800_000_000 + jump
        assert counts(ipam, 30).cooling == 1
        assert not ipam.needs_adoption()
    state = ipam.source_state(CONFIG)
    assert state.success_age == 0


def test_an_address_of_the_node_itself_is_not_given_out(node: Node) -> None:
    ipam = node.ready(5, 6)
    request = asking(excluded=frozenset(ips(5)))
    assert reserve(ipam, P1, owner(), request).ip == ips(6)[0]


class TestRequestedAddress:
    def test_it_is_given(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        assert reserve(ipam, P1, owner(), asking(requested=ips(7)[0])).ip == ips(7)[0]

    def test_even_while_it_cools_and_that_is_counted(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        assert reserve(ipam, P1, owner(), asking(requested=ips(5)[0])).ip == ips(5)[0]
        assert counters(ipam)["cooldown_shortened"] == 1
        release(ipam, P1)
        node.clock.advance(DEFAULT_COOLDOWN_SECONDS)
        reserve(ipam, P1, owner(), asking(requested=ips(5)[0]))
        assert counters(ipam)["cooldown_shortened"] == 1, "it was over"

    @pytest.mark.parametrize(
        ("requested", "why"),
        [
            ("10.0.0.5", "is held by default/web, eth0"),
            ("10.0.0.6", "the node itself carries it"),
            ("10.0.0.7", "can't be given out: somebody answers for it"),
            ("10.0.0.8", "does not list it any more"),
            ("10.0.0.9", "is not an address of this node's NIC; imds was read 0 s ago"),
            ("fd00::9", "is not an address of this node's NIC"),
        ],
    )
    def test_it_is_refused_with_the_reason(self, node: Node, requested: str, why: str) -> None:
        ipam = node.ready(5, 6, 7, 8)
        reserve(ipam, P1, owner("web"), ANY)
        ipam.quarantine(ips(7)[0], "somebody answers for it", 60)
        node.says = listing_of(*ips(5, 6, 7))
        refresh(ipam)
        before = counts(ipam)
        with pytest.raises(AddressUnavailable, match=why) as refused:
            reserve(ipam, P2, owner(), asking(requested=ip_address(requested), excluded=frozenset(ips(6))))
        assert refused.value.remedy
        assert counts(ipam) == before


class TestConfirm:
    def test_a_del_in_between_makes_the_add_fail(self, node: Node) -> None:
        ipam = node.ready()
        made = reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        with pytest.raises(ReservationLost, match="a DEL came in between"):
            confirm(ipam, made)
        assert ipam.reservations() == ()

    def test_a_del_and_another_add_in_between_make_the_first_fail(self, node: Node) -> None:
        ipam = node.ready(5)
        first = reserve(ipam, P1, owner(call_id="1"), ANY)
        release(ipam, P1)
        node.wall.advance(1)
        second = reserve(ipam, P1, owner(call_id="2"), ANY)
        assert second.ip == first.ip
        with pytest.raises(ReservationLost):
            confirm(ipam, first)
        assert confirm(ipam, second).confirmed

    def test_it_can_be_done_again(self, node: Node) -> None:
        ipam = node.ready()
        made = reserve(ipam, P1, owner(), ANY)
        assert confirm(ipam, confirm(ipam, made)) == confirm(ipam, made)


class TestAbandon:
    def test_an_address_no_pod_ever_had_needs_no_rest(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        made = reserve(ipam, P1, owner(), ANY)
        assert ipam.abandon(made)
        assert counts(ipam) == PoolCounts(free=2, assigned=0, cooling=0, quarantined=0)
        assert reserve(ipam, P2, owner(), ANY).ip == made.ip

    def test_it_still_rests_from_the_holder_before(self, node: Node) -> None:
        ipam = node.ready(5)
        reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        node.clock.advance(10)
        ipam.abandon(reserve(ipam, P2, owner(), ANY))
        (status,) = ipam.addresses(30)
        assert (status.state, status.cooling_left) == (AddressState.COOLING, 20)

    def test_only_that_very_reservation_is_given_back(self, node: Node) -> None:
        ipam = node.ready(5)
        first = reserve(ipam, P1, owner(call_id="1"), ANY)
        release(ipam, P1)
        node.wall.advance(1)
        second = reserve(ipam, P1, owner(call_id="2"), ANY)
        assert not ipam.abandon(first)
        confirm(ipam, second)
        assert not ipam.abandon(second), "a pod uses it by now"
        assert held(ipam, P1) is not None


class TestQuarantine:
    def test_nobody_gets_it_until_it_is_over(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        assert ipam.quarantine(ips(5)[0], "somebody answers for it", 60)
        assert counts(ipam) == PoolCounts(free=1, assigned=0, cooling=0, quarantined=1)
        assert reserve(ipam, P1, owner(), ANY).ip == ips(6)[0]
        with pytest.raises(PoolExhausted, match=r"1 in quarantine \(1: somebody answers for it\)"):
            reserve(ipam, P2, owner(), ANY)
        node.clock.advance(60)
        assert counts(ipam) == PoolCounts(free=1, assigned=1, cooling=0, quarantined=0)
        assert reserve(ipam, P2, owner(), ANY).ip == ips(5)[0]
        assert counters(ipam)["quarantined"] == 1

    def test_its_holder_keeps_it(self, node: Node) -> None:
        ipam = node.ready(5)
        made = reserve(ipam, P1, owner(), ANY)
        ipam.quarantine(made.ip, "seen twice", 60)
        assert counts(ipam) == PoolCounts(free=0, assigned=1, cooling=0, quarantined=0)
        ipam.abandon(made)
        assert counts(ipam) == PoolCounts(free=0, assigned=0, cooling=0, quarantined=1)

    def test_an_unknown_address_is_no_error(self, node: Node) -> None:
        ipam = node.ready(5)
        assert not ipam.quarantine(ips(99)[0], "?", 60)
        assert counters(ipam)["quarantined"] == 0


class TestExhaustion:
    def test_the_error_names_the_holders_and_what_to_do(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7, 8)
        for number in range(3):
            reserve(ipam, attachment(f"sandbox-{number}"), owner("web"), ANY)
        reserve(ipam, attachment("0123456789abcdef"), owner(), ANY)
        node.clock.advance(42)
        with pytest.raises(PoolExhausted) as refused:
            reserve(ipam, P1, owner(), ANY)
        assert str(refused.value) == (
            "no free IPv4 address: 4 known, 4 held (default/web x3, container 0123456789ab); "
            "imds was read 42 s ago"
        )
        assert "az network nic ip-config create" in refused.value.remedy
        assert "max-pods to 4" in refused.value.remedy
        assert counters(ipam)["exhausted ipv4"] == 1

    @pytest.mark.parametrize(("pods", "end"), [(5, r"default/web-4\)"), (6, r"default/web-4, \.\.\.\)")])
    def test_of_many_holders_the_first_five_are_named(self, node: Node, pods: int, end: str) -> None:
        ipam = node.ready(*range(5, 5 + pods))
        for number in range(pods):
            reserve(ipam, attachment(f"sandbox-{number}"), owner(f"web-{number}"), ANY)
        with pytest.raises(PoolExhausted, match=end):
            reserve(ipam, P1, owner(), ANY)

    def test_the_error_names_the_last_failure_of_the_source(self, node: Node) -> None:
        ipam = node.ready(5)
        reserve(ipam, P1, owner(), ANY)
        node.says = SourceUnreadable("source imds: GET http://x: 500", "look")
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        with pytest.raises(PoolExhausted, match="last attempt failed: source imds: GET http://x: 500"):
            reserve(ipam, P2, owner(), ANY)

    def test_the_error_names_cloud_init_when_the_node_carries_them_all(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        request = asking(excluded=frozenset(ips(5, 6)))
        with pytest.raises(
            PoolExhausted, match=r"2 carried by the node itself \(10.0.0.5, 10.0.0.6\)"
        ) as refused:
            reserve(ipam, P1, owner(), request)
        assert "2 known, 0 held, 2 carried" in str(refused.value)
        assert "apply_network_config_for_secondary_ips: false" in refused.value.remedy

    def test_what_a_pod_holds_or_is_in_quarantine_is_not_said_to_be_the_nodes(self, node: Node) -> None:
        ipam = node.ready(5, 6, 7)
        reserve(ipam, P1, owner("web"), ANY)
        ipam.quarantine(ips(6)[0], "why", 60)
        with pytest.raises(PoolExhausted) as refused:
            reserve(ipam, P2, owner(), asking(excluded=frozenset(ips(5, 6, 7))))
        assert (
            "3 known, 1 held (default/web), 1 carried by the node itself (10.0.0.7), 1 in quarantine"
            in str(refused.value)
        )

    def test_the_error_says_when_the_next_one_has_cooled_down(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        reserve(ipam, P2, owner(), ANY)
        release(ipam, P1)
        node.clock.advance(10)
        release(ipam, P2)
        request = asking(cooldown=30, excluded=frozenset(ips(5, 6)))
        with pytest.raises(PoolExhausted, match="2 cooling, the next one for 20 s"):
            reserve(ipam, P3, owner(), request)
        node.clock.advance(29.4)
        with pytest.raises(PoolExhausted, match="1 cooling, the next one for 1 s"):
            reserve(ipam, P3, owner(), request)

    def test_a_source_that_was_never_readable_is_another_error(self, node: Node) -> None:
        ipam = node.process()
        ipam.adopt(())
        with pytest.raises(NoAddressesKnown, match="its source has not been read yet"):
            reserve(ipam, P1, owner(), ANY)
        node.says = SourceUnreadable("source imds: no answer", "ask the platform team")
        with pytest.raises(SourceUnreadable):
            refresh(ipam)
        with pytest.raises(
            NoAddressesKnown, match="has never been read successfully, last attempt failed: source imds: no"
        ) as e:
            reserve(ipam, P1, owner(), ANY)
        assert e.value.remedy == "ask the platform team"
        assert counters(ipam)["exhausted ipv4"] == 0


def test_the_four_states_are_told_address_by_address(node: Node) -> None:
    ipam = node.ready(5, 6, 7, 8)
    held = confirm(ipam, reserve(ipam, P1, owner("web"), ANY))
    reserve(ipam, P2, owner(), ANY)
    release(ipam, P2)
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
    assert counts(ipam, 30) == PoolCounts(free=1, assigned=1, cooling=1, quarantined=1)


def test_reservations_of_one_network_only(node: Node) -> None:
    ipam = node.ready(5, 6)
    reserve(ipam, P1, owner(), ANY)
    other = reserve(ipam, P2, replace(owner(), network="other"), ANY)
    assert ipam.reservations("other") == (other,)
    assert len(ipam.reservations()) == 2


class TestNics:
    """A source that lists two NICs, as on a node with two."""

    SECOND = "00:0d:3a:00:00:02"

    def two(self, node: Node, *, primary: str = "") -> Ipam:
        first, second = listing_of(*ips(5, 6)).nics[0], listing_of(*ips(261, 262), mac=self.SECOND).nics[0]
        told = {"": None, MAC: primary == MAC}
        nics = [replace(nic, primary=nic.mac == primary if primary else told[""]) for nic in (first, second)]
        node.says = Listing("imds", tuple(nics))
        return node.ready()

    def test_only_the_addresses_of_the_nic_that_is_asked_for_are_given(self, node: Node) -> None:
        ipam = self.two(node)
        assert reserve(ipam, P1, owner(), asking(nic_mac=self.SECOND)).ip == ips(261)[0]
        assert reserve(ipam, P2, owner(), asking(nic_mac=MAC)).ip == ips(5)[0]
        with pytest.raises(AddressUnavailable, match=f"belongs to NIC {MAC}, not to {self.SECOND}"):
            reserve(ipam, P3, owner(), asking(nic_mac=self.SECOND, requested=ips(6)[0]))

    def test_a_nic_is_exhausted_by_itself(self, node: Node) -> None:
        ipam = self.two(node)
        for pod in (P1, P2):
            reserve(ipam, pod, owner("web"), asking(nic_mac=self.SECOND))
        with pytest.raises(PoolExhausted, match=r"2 known, 2 held \(default/web x2\)") as refused:
            reserve(ipam, P3, owner(), asking(nic_mac=self.SECOND))
        assert "max-pods to 2" in refused.value.remedy

    def test_where_it_is_unknown_the_primary_one_is_taken(self, node: Node) -> None:
        ipam = self.two(node, primary=self.SECOND)
        assert reserve(ipam, P1, owner(), ANY).ip == ips(261)[0]

    def test_where_nothing_says_which_none_is_taken(self, node: Node) -> None:
        ipam = self.two(node)
        with pytest.raises(NicUnclear, match=f"lists NICs {self.SECOND}, {MAC}") as refused:
            reserve(ipam, P1, owner(), ANY)
        assert "master" in refused.value.remedy
        assert ipam.reservations() == ()

    def test_a_nic_that_is_not_listed_is_told_from_one_without_addresses(self, node: Node) -> None:
        ipam = node.ready(5)
        with pytest.raises(SourceEmpty, match=f"no NIC with MAC 00:0d:3a:00:00:99, only {MAC}") as other:
            reserve(ipam, P1, owner(), asking(nic_mac="00:0d:3a:00:00:99"))
        assert "master" in other.value.remedy
        bare = Nic(self.SECOND, None, (), ())
        node.says = Listing("imds", (*listing_of(*ips(5)).nics, bare))
        refresh(ipam)
        with pytest.raises(SourceEmpty, match=f"no address for pods on NIC {self.SECOND}"):
            reserve(ipam, P1, owner(), asking(nic_mac=self.SECOND))

    def test_a_star_in_the_document_fits_any_nic(self, node: Node) -> None:
        node.says = listing_of(*ips(5), mac="*")
        assert reserve(node.ready(), P1, owner(), asking(nic_mac="00:0d:3a:00:00:99")).ip == ips(5)[0]


def test_seconds_are_left_only_of_what_an_address_is_in(node: Node) -> None:
    ipam = node.ready(5)
    made = reserve(ipam, P1, owner(), ANY)

    def left() -> tuple[AddressState, float, float]:
        (status,) = ipam.addresses()
        return status.state, status.cooling_left, status.quarantine_left

    assert left() == (AddressState.ASSIGNED, 0, 0)
    release(ipam, P1)
    node.clock.advance(10)
    assert left() == (AddressState.COOLING, 20, 0)
    ipam.quarantine(made.ip, "why", 5)
    assert left() == (AddressState.QUARANTINED, 0, 5)
    node.clock.advance(6)
    assert left() == (AddressState.COOLING, 14, 0)
    node.clock.advance(15)
    assert left() == (AddressState.FREE, 0, 0)
