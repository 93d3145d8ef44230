"""The arithmetic of ``azvnet plan``: what it recommends fits, and nothing smaller does."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.fabric.changes import RefusedChange, add_addresses, add_block, free_addresses
from integration.fabric.model import Estate, IpConfiguration, Nic, Subnet, Vm, Vnet
from ipam.azure_limits import BLOCK, VNET_CONFIGURATIONS
from ipam.planning import (
    LARGEST,
    MONTH,
    RESERVED,
    SMALLEST,
    CannotPlan,
    Cluster,
    Growth,
    Surge,
    per_node,
    subnet_size,
    uses,
)

LENGTHS = st.integers(LARGEST, SMALLEST)
NODES = st.integers(0, 5000)
SINGLE = st.builds(lambda pods, batch: per_node(pods, batch=batch), st.integers(1, 255), st.integers(1, 255))
BLOCKS = st.builds(lambda pods: per_node(pods, prefixes=True), st.integers(1, 4080))
SURGES = st.builds(Surge, st.integers(0, 100), st.booleans())
GROWTHS = st.builds(
    Growth,
    st.floats(0, 500),
    st.sampled_from(["nodes", "pods", "percent"]),
    st.sampled_from([1.0, 7.0, MONTH]),
)
CLUSTERS = st.builds(
    Cluster, NODES, SINGLE | BLOCKS, SURGES, GROWTHS, st.integers(0, 3000), st.integers(0, 3000)
)


class TestPublished:
    """Numbers that Microsoft publishes."""

    @pytest.mark.parametrize(("nodes", "addresses", "length"), [(50, 1_581, 21), (60, 1_891, 21)])
    def test_examples_of_aks(self, nodes: int, addresses: int, length: int) -> None:
        """Configure Azure CNI networking: (nodes + surge) + (nodes + surge) * max pods."""
        cluster = Cluster(nodes, per_node(30), Surge(1))
        assert cluster.taken(cluster.with_surge(nodes)) == addresses
        assert cluster.smallest(cluster.with_surge(nodes)) == length

    @given(nodes=NODES, pods=st.integers(1, 255), surge=SURGES)
    def test_single_addresses_follow_the_formula_of_aks(self, nodes: int, pods: int, surge: Surge) -> None:
        cluster = Cluster(nodes, per_node(pods), surge)
        assert cluster.taken(cluster.with_surge(nodes)) == (nodes + surge.of(nodes)) * (pods + 1)

    @pytest.mark.parametrize(("pods", "blocks", "unused"), [(31, 2, 1), (30, 2, 2), (32, 2, 0), (110, 7, 2)])
    def test_blocks_of_a_node(self, pods: int, blocks: int, unused: int) -> None:
        node = per_node(pods, prefixes=True)
        assert (node.blocks, node.unused) == (blocks, unused)

    def test_a_percentage_of_surge_is_rounded_up(self) -> None:
        assert [Surge(10, percent=True).of(nodes) for nodes in (0, 1, 10, 11)] == [0, 1, 1, 2]

    @pytest.mark.parametrize(("length", "usable"), [(29, 3), (24, 251), (16, 65_531)])
    def test_azure_keeps_five_addresses(self, length: int, usable: int) -> None:
        assert Cluster(1, per_node(1)).capacity(length) == usable

    def test_no_block_fits_where_azure_has_addresses_at_both_ends(self) -> None:
        blocks = Cluster(0, per_node(16, prefixes=True))
        assert [blocks.capacity(length) for length in (29, 28, 27, 26)] == [0, 0, 0, 32]

    def test_in_order_27_nodes_have_their_own_address_beside_azures(self) -> None:
        cluster = Cluster(0, per_node(16, prefixes=True))
        assert [cluster.smallest_in_order(nodes) for nodes in (27, 28, 29, 30)] == [23, 23, 23, 22]
        assert Cluster(0, per_node(16, prefixes=True), others=1).smallest_in_order(29) == 23
        assert Cluster(0, per_node(16, prefixes=True), others=15).smallest_in_order(29) == 22

    @given(nodes=NODES, pods=st.integers(1, 255))
    def test_the_order_of_single_addresses_makes_no_difference(self, nodes: int, pods: int) -> None:
        cluster = Cluster(0, per_node(pods))
        assert cluster.smallest_in_order(nodes) == cluster.smallest(nodes)

    def test_what_is_missing_includes_the_ends_where_no_block_can_be(self) -> None:
        blocks = Cluster(20, per_node(30, prefixes=True))
        assert uses(blocks, 24, 0).missing == 20 * 3 * 16 + 2 * 16 - 256
        assert uses(Cluster(20, per_node(30)), 24, 0).missing == 20 * 31 + RESERVED - 256

    def test_what_others_have_counts_in_the_virtual_network_as_well(self) -> None:
        cluster = Cluster(3, per_node(30), others=7, elsewhere=100)
        assert cluster.configurations(3) == 100 + 7 + 3 * 31

    def test_a_cluster_without_nodes_grows_by_nodes_but_not_by_a_share_of_none(self) -> None:
        assert Growth(2, "nodes", 7).days_until_more_than(4, 0, 30) == 14
        assert Growth(60, "pods", 7).days_until_more_than(4, 0, 30) == 14
        assert Growth(50, "percent", 7).days_until_more_than(4, 0, 30) is None


class TestLimits:
    """What Azure does not allow is refused with the limit's name."""

    def test_a_nic_has_255_single_addresses_for_pods(self) -> None:
        assert per_node(255).configurations == 256
        with pytest.raises(CannotPlan, match="256 IP configurations") as refused:
            per_node(256)
        assert "--prefixes" in refused.value.remedy

    def test_a_nic_has_255_blocks(self) -> None:
        assert per_node(4080, prefixes=True).configurations == 256
        with pytest.raises(CannotPlan, match="4,080 addresses"):
            per_node(4081, prefixes=True)

    def test_a_batch_never_exceeds_the_nic(self) -> None:
        assert per_node(250, batch=16).addresses == 255

    def test_a_virtual_network_has_65536_addresses(self) -> None:
        node = per_node(255)
        assert Cluster(256, node).smallest(256) == 15
        assert Cluster(257, node).smallest(257) is None
        assert Cluster(256, node, elsewhere=1).smallest(256) is None

    def test_a_block_counts_as_one_of_them(self) -> None:
        cluster = Cluster(8192, per_node(112, prefixes=True))
        assert cluster.configurations(8192) == VNET_CONFIGURATIONS
        assert cluster.smallest(8192) == 11


class TestSize:
    """Which subnet is large enough."""

    @given(cluster=CLUSTERS)
    def test_what_is_recommended_fits_and_nothing_smaller_does(self, cluster: Cluster) -> None:
        length = cluster.smallest(cluster.nodes)
        if length is None:
            assert not cluster.fits(LARGEST, cluster.nodes)
            return
        assert cluster.fits(length, cluster.nodes)
        assert length == SMALLEST or not cluster.fits(length + 1, cluster.nodes)

    @given(cluster=CLUSTERS)
    def test_order_never_takes_more(self, cluster: Cluster) -> None:
        length, in_order = cluster.smallest(cluster.nodes), cluster.smallest_in_order(cluster.nodes)
        assert length is None or (in_order is not None and in_order >= length)

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_room_is_exact(self, cluster: Cluster, length: int) -> None:
        room = cluster.room(length)
        assert room == 0 or cluster.fits(length, room)
        assert not cluster.fits(length, room + 1)

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_what_surely_fits_fits(self, cluster: Cluster, length: int) -> None:
        surely, fits = cluster.surely_fits(length, cluster.nodes), cluster.fits(length, cluster.nodes)
        assert fits or not surely
        if not cluster.node.blocks or not cluster.others:
            assert surely == fits

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_a_larger_subnet_never_has_less_room(self, cluster: Cluster, length: int) -> None:
        assert length == LARGEST or cluster.room(length - 1) >= cluster.room(length)

    @given(surge=SURGES, room=st.integers(0, 70_000))
    def test_the_most_nodes_with_their_surge_is_exact(self, surge: Surge, room: int) -> None:
        most = surge.nodes_within(room)
        assert most < 0 or most + surge.of(most) <= room
        assert most + 1 + surge.of(most + 1) > room or most < 0

    @given(cluster=CLUSTERS, more=st.integers(1, 500))
    def test_more_of_anything_never_takes_less(self, cluster: Cluster, more: int) -> None:
        node, nodes = cluster.node, cluster.nodes
        assert cluster.taken(nodes + more) > cluster.taken(nodes)
        most = 4080 if node.blocks else 255
        larger = per_node(min(node.pods + more, most), prefixes=bool(node.blocks))
        assert larger.taken >= per_node(node.pods, prefixes=bool(node.blocks)).taken


class TestGrowth:
    """When a subnet is full."""

    @given(cluster=CLUSTERS, one=st.floats(0, 4000), other=st.floats(0, 4000))
    def test_nodes_never_become_fewer(self, cluster: Cluster, one: float, other: float) -> None:
        early, late = sorted([one, other])
        assert cluster.nodes <= cluster.nodes_after(early) <= cluster.nodes_after(late)

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_it_fits_until_the_day_and_not_after_it(self, cluster: Cluster, length: int) -> None:
        day = cluster.nodes_until(length)
        if day is None:
            assert cluster.nodes <= cluster.room(length)
        elif day == 0 and cluster.nodes > cluster.room(length):
            assert not cluster.fits(length, cluster.nodes)
        elif day < 1e5:
            assert cluster.nodes_after(day * 0.999) <= cluster.room(length)
            assert cluster.nodes_after(day * 1.001 + 1e-3) >= cluster.room(length)

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_upgrades_stop_fitting_before_nodes_do(self, cluster: Cluster, length: int) -> None:
        upgrades, nodes = cluster.upgrades_until(length), cluster.nodes_until(length)
        assert (upgrades is None) == (nodes is None) or upgrades == 0
        assert upgrades is None or nodes is None or upgrades <= nodes

    @pytest.mark.parametrize("unit", ["nodes", "pods", "percent"])
    def test_growth_that_no_number_can_hold_is_none(self, unit: str) -> None:
        smallest = Growth(5e-324, unit, 1.0)
        day = smallest.days_until_more_than(200, 10, 30)
        assert day is None or day > 1e5

    def test_growth_is_counted_in_nodes_pods_or_percent(self) -> None:
        assert Growth(3, "nodes").nodes_after(2 * MONTH, 10, 30) == 16
        assert Growth(31, "pods", 1).nodes_after(10, 10, 30) == 21
        assert Growth(5, "percent").nodes_after(12 * MONTH, 50, 110) == 90
        assert Growth().nodes_after(1000, 10, 30) == 10


class TestUses:
    """What becomes of each address."""

    @given(cluster=CLUSTERS, length=LENGTHS, days=st.floats(0, 2000))
    def test_uses_are_the_whole_subnet(self, cluster: Cluster, length: int, days: float) -> None:
        shares = uses(cluster, length, days)
        fields = {name: getattr(shares, name) for name in shares.__match_args__}
        assert min(fields.values()) >= 0
        assert sum(fields.values()) - shares.missing == subnet_size(length)
        assert not (shares.free and shares.missing)

    @given(cluster=CLUSTERS, length=LENGTHS)
    def test_nothing_is_missing_where_the_surge_fits(self, cluster: Cluster, length: int) -> None:
        peak = cluster.with_surge(cluster.nodes)
        if cluster.fits(length, peak):
            assert uses(cluster, length, 0).missing == 0
        if cluster.taken(peak) > cluster.capacity(length):
            assert uses(cluster, length, 0).missing > 0 or length > 27


def of_pods(subnet: Subnet, name: str, primary: IPv4Address) -> Vm:
    configuration = IpConfiguration("ipconfig0", IPv4Network(primary), primary=True)
    return Vm(name, name, name, (Nic(f"{name}-nic", "", "vnet", subnet, (configuration,)),))


class TestAgainstAzure:
    """The subnet as Azure fills it, lowest address first, while nodes come and go."""

    @given(
        seed=st.integers(0, 10**6), pods=st.integers(1, 50), prefixes=st.booleans(), nodes=st.integers(1, 9)
    )
    @settings(max_examples=max(5, settings().max_examples // 3))
    def test_what_is_recommended_never_runs_out(
        self, seed: int, pods: int, prefixes: bool, nodes: int
    ) -> None:
        cluster = Cluster(nodes, per_node(pods, prefixes=prefixes), Surge(1))
        length = cluster.smallest(cluster.with_surge(nodes))
        assert length is not None
        subnet = Subnet("pods", IPv4Network((IPv4Address("10.0.0.0"), length)))
        estate = Estate("s", "g", "l", "c", "t", (Vnet("vnet", subnet.prefix, (subnet,)),))
        chance = random.Random(seed)
        alive: list[str] = []
        for number in range(5 * nodes):
            if len(alive) >= cluster.with_surge(nodes):
                estate = without(estate, alive.pop(chance.randrange(len(alive))))
            estate = with_node(estate, subnet, f"n{number}", cluster)
            alive.append(f"n{number}")

    def test_less_would_run_out(self) -> None:
        """Five nodes of three blocks: a /24 has sixteen places, and no block is in the first and the last."""
        cluster = Cluster(5, per_node(48, prefixes=True))
        assert cluster.smallest(5) == 23
        subnet = Subnet("pods", IPv4Network("10.0.0.0/24"))
        estate = Estate("s", "g", "l", "c", "t", (Vnet("vnet", subnet.prefix, (subnet,)),))
        for number in range(4):
            estate = with_node(estate, subnet, f"n{number}", cluster)
        with pytest.raises(RefusedChange, match="SubnetIsFull"):
            with_node(estate, subnet, "n4", cluster)


def without(estate: Estate, name: str) -> Estate:
    kept = tuple(vm for vm in estate.vms if vm.computer_name != name)
    return replace(estate, vms=kept)


def with_node(estate: Estate, subnet: Subnet, name: str, cluster: Cluster) -> Estate:
    """The estate with one more node: its own address, then those for its pods."""
    primary = next(free_addresses(estate, subnet))
    estate = replace(estate, vms=(*estate.vms, of_pods(subnet, name, primary)))
    if not cluster.node.blocks:
        return add_addresses(estate, name, cluster.node.addresses)
    for _ in range(cluster.node.blocks):
        estate = add_block(estate, name)
    return estate


def test_reserved_and_block_are_azures() -> None:
    from ipam.subnet import reserved_addresses

    assert len(reserved_addresses(IPv4Network("10.0.0.0/24"))) == RESERVED
    assert IPv4Network("10.0.0.0/28").num_addresses == BLOCK
