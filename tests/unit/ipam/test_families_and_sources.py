"""Several addresses of one attachment, and several sources of one node."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from ipam.errors import (
    AddressUnavailable,
    AlreadyReserved,
    ListingStale,
    NoAddressesKnown,
    PoolExhausted,
    ReservationLost,
    SourceEmpty,
    SourceUnreadable,
)
from ipam.model import AddressState, Holder, Listing, Nic, PoolAddress, SourceConfig
from ipam.reclaim import GRACE
from ipam.store.source_records import FORGOTTEN_AFTER, HISTORY_SECONDS
from ipam.value import replace
from tests.unit.ipam.node import (
    ANY,
    CONFIG,
    MAC,
    Node,
    asking,
    attachment,
    counters,
    counts,
    find,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
    sweep,
)

if TYPE_CHECKING:
    from ipam.ipam import Ipam
    from ipam.model import IPAddress

P1, P2, P3, P4 = (attachment(f"pod-{number}") for number in range(1, 5))
BOTH = asking(families=(4, 6))
V6 = tuple(ip_address(f"fd00::{number}") for number in range(5, 8))


def dual_stack(node: Node, v4: tuple[IPAddress, ...], v6: tuple[IPAddress, ...]) -> Ipam:
    plain = listing_of(*v4).nics[0]
    more = tuple(PoolAddress(ip_interface(f"{ip}/64"), ip_address("fd00::1"), MAC) for ip in v6)
    node.says = Listing("imds", (replace(plain, addresses=(*plain.addresses, *more)),))
    return node.ready()


class TestBothFamilies:
    def test_an_attachment_gets_one_address_of_each(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5, 6), V6)
        made = ipam.reserve(P1, owner("web"), BOTH)
        assert [each.ip for each in made] == [ips(5)[0], V6[0]]
        assert [str(each.gateway) for each in made] == ["10.0.0.1", "fd00::1"]
        confirmed = ipam.confirm(*made)
        assert ipam.held_by(P1) == confirmed == tuple(replace(each, confirmed=True) for each in made)
        with pytest.raises(AlreadyReserved, match=r"already holds 10\.0\.0\.5, fd00::5") as refused:
            ipam.reserve(P1, owner("web"), BOTH)
        assert refused.value.reservations == confirmed

    def test_all_or_none_are_reserved(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5, 6), V6[:1])
        ipam.reserve(P1, owner(), BOTH)
        with pytest.raises(PoolExhausted, match="no free IPv6 address: 1 known, 1 held"):
            ipam.reserve(P2, owner(), BOTH)
        assert ipam.held_by(P2) == ()
        assert counts(ipam).free == 1
        counted = {name: times for name, times in ipam.overview().counters.items() if "exhausted" in name}
        assert counted == {"exhausted ipv4": 0, "exhausted ipv6": 1}
        assert ipam.require_available(ANY)[0].ip == ips(6)[0]
        with pytest.raises(PoolExhausted):
            ipam.require_available(BOTH)

    def test_a_family_that_the_nic_does_not_have_is_named(self, node: Node) -> None:
        with pytest.raises(SourceEmpty, match=f"no address for pods on NIC {MAC} for IPv6"):
            dual_stack(node, ips(5), ()).reserve(P1, owner(), BOTH)

    def test_all_are_released_together(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        made = ipam.reserve(P1, owner(), BOTH)
        assert ipam.release(P1, expected=made[1]) == made
        assert ipam.release(P1) == ()
        assert counts(ipam).cooling == 2

    def test_all_are_abandoned_together(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        made = ipam.reserve(P1, owner(), BOTH)
        assert not ipam.abandon(made[0], replace(made[1], created_at=0.0)), "all of it or nothing"
        assert ipam.held_by(P1) == made
        assert ipam.abandon(*made)
        assert not ipam.abandon(*made)
        assert counts(ipam).free == 2

    def test_what_one_of_them_lost_neither_is_confirmed(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        made = ipam.reserve(P1, owner(), BOTH)
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        ipam.adopt([replace(made[1], attachment=P2)])
        with pytest.raises(ReservationLost, match="fd00::5"):
            ipam.confirm(*made)
        assert ipam.held_by(P1) == ()

    def test_after_the_store_was_lost_both_are_written_again(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5, 6), V6[:2])
        made = ipam.reserve(P1, owner(), BOTH)
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        assert [each.ip for each in ipam.confirm(*made)] == [ips(5)[0], V6[0]]
        ipam.adopt(made)
        refresh(ipam)
        assert [each.ip for each in ipam.reserve(P2, owner(), BOTH)] == [ips(6)[0], V6[1]]

    def test_a_dead_attachment_gives_both_back(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        ipam.confirm(*ipam.reserve(P1, owner(), BOTH))
        assert sweep(ipam, [P1]) == ()
        node.clock.advance(60)
        (freed,) = sweep(ipam, [P1])
        assert freed.attachment == P1
        assert counts(ipam).cooling == 2
        assert counters(ipam)["reclaimed"] == 2

    def test_each_may_be_adopted_at_another_time(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        made = ipam.confirm(*ipam.reserve(P1, owner(), BOTH))
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        assert [ipam.adopt([each]) for each in made] == [(), ()]
        assert [each.ip for each in ipam.held_by(P1)] == [ips(5)[0], V6[0]]

    def test_an_attachment_is_dead_when_both_were_missing_for_long_enough(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5), V6[:1])
        first, second = ipam.confirm(*ipam.reserve(P1, owner(), BOTH))
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        ipam.adopt([first])
        assert ipam.note_missing([P1]) == ()
        node.clock.advance(GRACE)
        ipam.adopt([second])
        for _ in range(2):
            assert ipam.note_missing([P1]) == (), "one of them was there until now"
            node.clock.advance(GRACE / 2)
        assert {each.ip for each in ipam.note_missing([P1])} == {first.ip, second.ip}

    def test_one_of_each_may_be_requested(self, node: Node) -> None:
        ipam = dual_stack(node, ips(5, 6), V6)
        made = ipam.reserve(P1, owner(), replace(BOTH, requested=(V6[2],)))
        assert [each.ip for each in made] == [ips(5)[0], V6[2]]
        with pytest.raises(AddressUnavailable, match="fd00::7 is held by"):
            ipam.reserve(P2, owner(), replace(BOTH, requested=(ips(6)[0], V6[2])))
        assert ipam.held_by(P2) == ()


FILE = SourceConfig("file", "/etc/addresses.json")


class TestTwoSources:
    def both(self, node: Node) -> Ipam:
        """``auto`` lists .5 and .6, the file .6 and .7 of another NIC."""
        ipam = node.ready(5, 6)
        ipam.refresh(CONFIG, deadline=5, force=True, in_use=True)
        node.says = listing_of(*ips(6, 7), mac="00:0d:3a:00:00:02", source="file")
        ipam.refresh(FILE, deadline=5, in_use=True)
        return ipam

    def test_a_network_gets_addresses_of_its_own_source(self, node: Node) -> None:
        ipam = self.both(node)
        assert reserve(ipam, P1, owner(), asking(FILE.key)).ip == ips(6)[0]
        assert reserve(ipam, P2, owner(), ANY).ip == ips(5)[0]
        assert counts(ipam).total == 3

    def test_an_address_that_both_list_is_given_once_and_cools_for_both(self, node: Node) -> None:
        ipam = self.both(node)
        shared = asking(FILE.key, requested=ips(6)[0])
        made = reserve(ipam, P1, owner("web"), shared)
        assert (made.source, made.nic_mac) == ("file", "00:0d:3a:00:00:02")
        with pytest.raises(AddressUnavailable, match="held by default/web"):
            reserve(ipam, P2, owner(), asking(requested=ips(6)[0]))
        release(ipam, P1)
        again = reserve(ipam, P2, owner(), asking(requested=ips(6)[0]))
        assert (again.source, again.nic_mac) == ("imds", MAC)
        assert counters(ipam)["cooldown_shortened"] == 1

    def test_a_source_is_exhausted_by_itself(self, node: Node) -> None:
        ipam = self.both(node)
        for pod in (P1, P2):
            reserve(ipam, pod, owner(), asking(FILE.key))
        with pytest.raises(PoolExhausted, match=r"2 known, 2 held .*; file was read 0 s ago"):
            reserve(ipam, attachment("pod-3"), owner(), asking(FILE.key))

    def test_what_one_does_not_list_any_more_the_other_still_offers(self, node: Node) -> None:
        ipam = self.both(node)
        node.says = listing_of(*ips(7), mac="00:0d:3a:00:00:02", source="file")
        for _ in range(2):
            ipam.refresh(FILE, deadline=5, force=True)
        with pytest.raises(AddressUnavailable, match="not an address of this node's NIC"):
            reserve(ipam, P1, owner(), asking(FILE.key, requested=ips(6)[0]))
        assert reserve(ipam, P1, owner(), asking(requested=ips(6)[0])).source == "imds"

    def test_what_is_written_again_is_of_the_source_that_lists_it_still(self, node: Node) -> None:
        ipam = self.both(node)
        made = reserve(ipam, P1, owner(), asking(FILE.key, requested=ips(6)[0]))
        for path in node.run_dir.glob("azvnet.db*"):
            path.unlink()
        ipam = self.both(node)
        node.says = listing_of(*ips(7), mac="00:0d:3a:00:00:02", source="file")
        ipam.refresh(FILE, deadline=5, force=True)
        (again,) = ipam.confirm(made)
        assert (again.ip, again.source, again.nic_mac) == (ips(6)[0], "imds", MAC)

    def test_a_held_address_is_of_the_source_that_it_was_given_from(self, node: Node) -> None:
        ipam = self.both(node)
        status = {str(each.address.ip): each for each in ipam.addresses()}
        assert [status[f"10.0.0.{n}"].source for n in (5, 6, 7)] == ["imds", "imds", "file"]
        reserve(ipam, P1, owner(), asking(FILE.key, requested=ips(6)[0]))
        status = {str(each.address.ip): each for each in ipam.addresses()}
        assert [status[f"10.0.0.{n}"].source for n in (5, 6, 7)] == ["imds", "file", "file"]

    def test_every_address_is_counted_that_is_listed_or_held(self, node: Node) -> None:
        ipam = self.both(node)
        reserve(ipam, P1, owner(), asking(requested=ips(5)[0]))
        assert ipam.overview().known == 3
        node.says = listing_of(*ips(6))
        for _ in range(2):
            ipam.refresh(CONFIG, deadline=5, force=True)
        assert (ipam.overview().known, counts(ipam).total) == (3, 3)
        release(ipam, P1)
        assert (ipam.overview().known, counts(ipam).total) == (2, 2)

    def test_a_source_that_was_never_read_gives_nothing_though_another_was(self, node: Node) -> None:
        ipam = node.ready(5)
        with pytest.raises(NoAddressesKnown, match="its source has not been read yet"):
            reserve(ipam, P1, owner(), asking(FILE.key))

    def test_the_overview_shows_each_and_the_worst_first(self, node: Node) -> None:
        ipam = self.both(node)
        assert [each.config.key for each in ipam.overview().sources] == [CONFIG.key, FILE.key]
        node.says = SourceUnreadable("gone")
        with pytest.raises(SourceUnreadable):
            ipam.refresh(FILE, deadline=5, force=True)
        assert ipam.overview().source.error == "gone"

    def test_a_network_may_change_to_another_source_before_that_was_read(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        ipam.refresh(CONFIG, deadline=5, force=True, in_use=True)
        assert [each.key for each in ipam.sources_in_use()] == [CONFIG.key]
        ipam.replace_source(CONFIG, FILE)
        assert [each.key for each in ipam.sources_in_use()] == [FILE.key]
        assert not ipam.source_state(FILE).source, "it was not asked yet"

    def test_one_that_no_network_uses_any_more_is_forgotten(self, node: Node) -> None:
        ipam = self.both(node)
        made = reserve(ipam, P1, owner(), asking(FILE.key))
        for _ in range(3):
            node.clock.advance(FORGOTTEN_AFTER / 2)
            reserve(ipam, P2, owner(), ANY)
            release(ipam, P2)
            node.says = listing_of(*ips(5, 6))
            refresh(ipam)
        assert [each.config.key for each in ipam.overview().sources] == [CONFIG.key]
        assert find(ipam, made.ip) == made, "what a pod holds stays"
        assert counts(ipam).total == 2

    def test_the_one_that_was_read_before_any_call_is_forgotten_when_calls_use_another(
        self, node: Node
    ) -> None:
        ipam = node.ready(5, 6)
        ipam.require_available(ANY)  # as a probe of the agent's does
        node.says = listing_of(*ips(7))
        ipam.refresh(FILE, deadline=5, in_use=True)
        assert [each.config.key for each in ipam.overview().sources] == [FILE.key]
        assert counts(ipam).total == 1

    def test_an_adopted_stranger_stays_until_it_is_released_and_is_none_of_the_pools(
        self, node: Node
    ) -> None:
        ipam = self.both(node)
        stranger = reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        elsewhere = replace(
            stranger,
            address=ip_interface("10.0.0.99/16"),
            owner=replace(stranger.owner, holder=type(stranger.owner.holder).DELEGATED),
        )
        node.clock.advance(1)
        ipam.adopt([elsewhere])
        for _ in range(3):
            node.clock.advance(20)
            ipam.refresh(FILE, deadline=5)
            node.says = listing_of(*ips(5, 6))
            refresh(ipam)
        assert find(ipam, elsewhere.ip) is not None, "a later listing may have it"
        assert counts(ipam).assigned == 0
        assert elsewhere.ip not in {each.address.ip for each in ipam.addresses(0)}
        release(ipam, P1)
        assert find(ipam, elsewhere.ip) is None


def test_an_exhausted_pool_counts_addresses_of_the_pods_nic_alone(node: Node) -> None:
    """Not those of another NIC, nor what some other plugin's pod carries: they would raise max-pods."""
    other = listing_of(*ips(7, 8, 9), mac="00:0d:3a:00:00:02")
    node.says = Listing("imds", (*listing_of(*ips(5, 6)).nics, *other.nics))
    ipam = node.ready()
    asked = replace(ANY, nic_mac=MAC)
    first = reserve(ipam, P1, owner(), asked)
    reserve(ipam, P2, owner(), asked)
    foreign = replace(first.owner, holder=Holder.DELEGATED)
    ipam.adopt(
        [replace(first, attachment=P3, address=ip_interface("10.0.0.99/16"), owner=foreign, nic_mac="")]
    )
    with pytest.raises(PoolExhausted, match="no free IPv4 address: 2 known, 2 held") as raised:
        reserve(ipam, P4, owner(), asked)
    assert raised.value.remedy.endswith("max-pods to 2 or less.")


class TestHistory:
    def test_the_cooldown_goes_on_when_an_address_leaves_the_listing_and_comes_back(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        for listed in ((6,), (6,), (5, 6)):
            node.says = listing_of(*ips(*listed))
            refresh(ipam)
        node.clock.advance(10)
        (status,) = (each for each in ipam.addresses(30) if each.address.ip == ips(5)[0])
        assert (status.state, status.cooling_left) == (AddressState.COOLING, 20)
        assert reserve(ipam, P2, owner(), ANY).ip == ips(6)[0]

    def test_a_quarantine_goes_on_too(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        ipam.quarantine(ips(5)[0], "somebody carries it", 300)
        for listed in ((6,), (6,), (5, 6)):
            node.says = listing_of(*ips(*listed))
            refresh(ipam)
        assert counts(ipam).quarantined == 1

    def test_while_nobody_offers_it_it_is_in_no_pool(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        node.says = listing_of(*ips(6))
        for _ in range(2):
            refresh(ipam)
        release(ipam, P1)
        assert counts(ipam).total == len(ipam.addresses()) == ipam.overview().known == 1

    def test_it_ends(self, node: Node) -> None:
        ipam = node.ready(5, 6)
        reserve(ipam, P1, owner(), ANY)
        release(ipam, P1)
        node.says = listing_of(*ips(6))
        for _ in range(2):
            refresh(ipam)
        rows = "SELECT count(*) AS rows FROM address"
        assert ipam._store.read(lambda tx: tx.rows(rows))[0]["rows"] == 2
        node.clock.advance(HISTORY_SECONDS + 1)
        refresh(ipam)
        assert ipam._store.read(lambda tx: tx.rows(rows))[0]["rows"] == 1


class TestAge:
    def test_a_listing_from_before_the_node_was_suspended_is_read_again_first(self, node: Node) -> None:
        ipam = node.ready(5)
        fresh = replace(ANY, max_age=300.0)
        node.clock.advance(300)
        ipam.require_available(fresh)
        node.clock.advance(1)
        with pytest.raises(ListingStale, match="read 301 s ago"):
            ipam.reserve(P1, owner(), fresh)
        assert ipam.reserve(P1, owner(), ANY)
        ipam.release(P1)
        refresh(ipam)
        assert ipam.reserve(P1, owner(), fresh)


def test_a_nic_that_lists_nothing_any_more_takes_only_its_own_addresses_away(node: Node) -> None:
    ipam = node.ready(5)
    node.says = Listing("imds", (*listing_of(*ips(6)).nics, Nic("00:0d:3a:00:00:02", None, (), ())))
    for _ in range(2):
        refresh(ipam)
    assert [str(each.address.ip) for each in ipam.addresses()] == ["10.0.0.6"]
