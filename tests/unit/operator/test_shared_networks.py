"""What the operator knows of networks that nodes share."""

from __future__ import annotations

import pytest

from ipam.azure_limits import VNET_CONFIGURATIONS
from ipam.operator.record import NodeRecord
from ipam.operator.rounds import COUNT_SECONDS
from ipam.operator.shared_networks import PROBE_SECONDS, SharedNetworks
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
    asked: int = 1,
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
    made = NodeRecord(AzvnetNode(name, spec=NodeSpec(sizes=Sizes(prefixes=prefixes)), status=status), NOW)
    made.asked = asked
    return made


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


def test_any_number_may_be_requested_where_no_network_is_full() -> None:
    only = record("1")
    known = networks(only)
    known.note_room(only, 16)
    assert known.room(only, NOW) is None


def test_in_a_full_network_one_node_asks_each_minute_whether_something_else_gave_back() -> None:
    first, second = record("1"), record("2")
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    assert known.room(second, NOW + PROBE_SECONDS - 1) == 0
    assert known.room(second, NOW + PROBE_SECONDS) == 1
    known.note_request(second, 1, NOW + PROBE_SECONDS)
    assert known.room(first, NOW + PROBE_SECONDS + 1) == 0
    assert known.room(first, NOW + 2 * PROBE_SECONDS) == 1


def test_half_of_what_was_refused_is_requested_at_once_by_one_node() -> None:
    """A PUT is refused as a whole."""
    first, second = record("1", asked=9), record("2")
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    assert known.room(second, NOW) == 4
    known.note_request(second, 4, NOW)
    assert known.room(first, NOW) == 0
    second.asked = 4
    known.note_full(Kind.SUBNET_FULL, second, NOW + 1)
    assert known.room(first, NOW + 1) == 2


@pytest.mark.parametrize(("asked", "room"), [(16, 0), (32, 16)])
def test_less_than_a_block_can_not_be_requested_where_nodes_take_blocks(asked: int, room: int) -> None:
    only = record("1", prefixes=True, asked=asked)
    known = networks(only)
    known.note_full(Kind.VNET_FULL, only, NOW)
    assert known.room(only, NOW) == room


def test_where_azure_grants_a_request_in_a_full_network_twice_as_many_are_requested_at_once() -> None:
    first, second = record("1"), record("2")
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    known.note_request(first, 1, NOW)
    known.note_added(first, NOW + 1)
    assert known.room(second, NOW + 1) == 2


def test_what_a_nic_gave_back_may_be_requested_once() -> None:
    first, second = record("1"), record("2", "One/subnets/b")
    known = networks(first, second)
    known.note_full(Kind.VNET_FULL, first, NOW)
    known.note_room(first, 16)
    assert known.room(second, NOW) == 16
    known.note_request(second, 5, NOW)
    assert known.room(first, NOW) == 11
    known.note_request(first, 16, NOW)
    assert known.room(first, NOW) == 0


def test_a_refusal_leaves_what_others_have_given_back_since() -> None:
    first, second = record("1"), record("2")
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    known.note_room(second, 16)
    known.note_full(Kind.SUBNET_FULL, first, NOW + 1)
    assert known.room(first, NOW + 1) == 16
    known.note_full(Kind.SUBNET_FULL, first, NOW + 1 + SCARCE_SECONDS)
    assert known.room(first, NOW + 1 + SCARCE_SECONDS) == 0, "that was long ago"


def test_after_ten_minutes_one_node_asks_first_and_all_when_azure_has_granted_that() -> None:
    """Each that is refused costs a write."""
    first, second = record("1"), record("2")
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    later = NOW + SCARCE_SECONDS
    assert known.room(first, later) == 1
    known.note_request(first, 1, later)
    assert known.room(second, later) == 0
    known.note_added(first, later + 1)
    assert known.room(second, later + 1) is None


def test_what_was_requested_before_others_were_refused_does_not_raise_what_is_tried() -> None:
    first, second = record("1", asked=4), record("2", asked=30)
    known = networks(first, second)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    known.note_full(Kind.SUBNET_FULL, second, NOW + 1)
    assert known.room(first, NOW + 1) == 2


def test_a_nic_in_a_full_subnet_of_a_full_virtual_network_needs_room_in_both() -> None:
    first, other = record("1"), record("2", "One/subnets/b")
    known = networks(first, other)
    known.note_full(Kind.SUBNET_FULL, first, NOW)
    known.note_full(Kind.VNET_FULL, first, NOW)
    known.note_room(other, 9)
    assert (known.room(first, NOW), known.room(other, NOW)) == (0, 9)
    known.note_room(first, 3)
    assert (known.room(first, NOW), known.room(other, NOW)) == (3, 12)
