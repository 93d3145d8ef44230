"""What the operator knows of networks that nodes share."""

from __future__ import annotations

from ipam.azure_limits import VNET_CONFIGURATIONS
from ipam.operator.record import NodeRecord
from ipam.operator.shared_networks import COUNT_SECONDS, SharedNetworks
from ipam.provision.exchange import (
    GROWING,
    SHRINKING,
    AzvnetNode,
    NicShown,
    NodeSpec,
    NodeStatus,
    Operation,
)
from ipam.provision.nic_document import Configuration
from ipam.provision.pace import SCARCE_SECONDS
from ipam.provision.plan import Sizes
from ipam.provision.refusals import Kind

VNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/"
NOW = 1000.0


def record(
    name: str,
    subnet: str = "One/subnets/a",
    configurations: int = 1,
    operation: Operation | None = None,
    *,
    prefixes: bool = False,
) -> NodeRecord:
    status = NodeStatus(
        revision=1,
        nic=NicShown(subnet=VNET + subnet if subnet else ""),
        configurations=tuple(
            Configuration(f"{number}", None, primary=False, state="Succeeded", is_ours=True)
            for number in range(configurations)
        ),
        operation=operation,
    )
    return NodeRecord(AzvnetNode(name, spec=NodeSpec(sizes=Sizes(prefixes=prefixes)), status=status), NOW)


def networks(*records: NodeRecord) -> SharedNetworks:
    return SharedNetworks(lambda: records)


def test_a_full_subnet_is_full_for_all_its_nodes_and_for_no_others() -> None:
    first, same, other = record("1"), record("2", "oNE/subnets/A"), record("3", "One/subnets/b")
    known = networks(first, same, other)
    assert known.full(first, NOW) is None
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    assert [known.full(each, NOW) for each in (first, same, other)] == [Kind.SUBNET_FULL] * 2 + [None]


def test_a_full_virtual_network_is_full_in_all_its_subnets_and_in_no_other_network() -> None:
    first, same, other = record("1"), record("2", "One/subnets/b"), record("3", "Two/subnets/a")
    known = networks(first, same, other)
    known.note_full(Kind.VNET_FULL, first, NOW)
    assert [known.full(each, NOW) for each in (first, same, other)] == [Kind.VNET_FULL] * 2 + [None]


def test_after_ten_minutes_it_may_have_room_again() -> None:
    only = record("1")
    known = networks(only)
    known.note_full(Kind.VNET_FULL, only, NOW)
    assert known.full(only, NOW + SCARCE_SECONDS - 1) is Kind.VNET_FULL
    assert known.full(only, NOW + SCARCE_SECONDS) is None


def test_what_a_virtual_network_has_left_is_shared_by_its_nodes() -> None:
    first, second, other = record("1", configurations=31), record("2", configurations=5), record("3", "Two/x")
    known = networks(first, second, other)
    assert known.share(first, NOW) == known.share(second, NOW) == (VNET_CONFIGURATIONS - 36) // 2
    assert known.share(other, NOW) == VNET_CONFIGURATIONS - 1


def test_what_is_being_added_is_not_left() -> None:
    growing = record("1", configurations=6, operation=Operation(GROWING, 32))
    assert networks(growing).share(growing, NOW) == VNET_CONFIGURATIONS - 38
    blocks = record("1", configurations=6, operation=Operation(GROWING, 32), prefixes=True)
    assert networks(blocks).share(blocks, NOW) == VNET_CONFIGURATIONS - 8
    going = record("1", configurations=6, operation=Operation(SHRINKING, 32))
    assert networks(going).share(going, NOW) == VNET_CONFIGURATIONS - 6


def test_more_than_the_limit_leaves_nothing_and_not_less() -> None:
    nodes = [record(f"{number}", configurations=256) for number in range(VNET_CONFIGURATIONS // 256 + 1)]
    assert networks(*nodes).share(nodes[0], NOW) == 0


def test_nics_are_counted_again_after_some_seconds() -> None:
    nodes = [record("1")]
    known = SharedNetworks(lambda: nodes)
    before = known.share(nodes[0], NOW)
    nodes.append(record("2"))
    assert known.share(nodes[0], NOW + COUNT_SECONDS - 1) == before
    assert known.share(nodes[0], NOW + COUNT_SECONDS) < before


def test_nodes_to_which_azure_refused_addresses_are_found_where_some_became_free() -> None:
    free = record("free")
    in_subnet, elsewhere = record("subnet"), record("elsewhere", "One/subnets/b")
    in_vnet, in_other = record("vnet", "One/subnets/b"), record("other", "Two/subnets/a")
    busy = record("busy")
    for each in (in_subnet, elsewhere, free):
        each.refused = Kind.SUBNET_FULL
    for each in (in_vnet, in_other):
        each.refused = Kind.VNET_FULL
    busy.refused = Kind.BUSY
    known = networks(free, in_subnet, elsewhere, in_vnet, in_other, busy)
    assert known.refused(free) == [in_subnet, in_vnet]
