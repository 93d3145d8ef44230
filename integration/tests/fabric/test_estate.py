"""The model and its changes, without any process: what Azure would allow, and when it shows."""

from __future__ import annotations

import threading
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.fabric import armdocuments, changes, documents, goalstate
from integration.fabric.goalstate import GoalState
from integration.fabric.model import Estate, Surface
from integration.fabric.topology import Topology, build


def estate(**arguments: int) -> Estate:
    return build(Topology(**{"nodes": 2, "addresses": 2, **arguments}), "seed")  # type: ignore[arg-type]


def addresses(of: Estate, node: str = "node1") -> list[str]:
    return [str(entry.block) for entry in of.vm(node).primary_nic.configurations]


def test_the_first_addresses_of_a_subnet_are_azures_own() -> None:
    assert addresses(estate(nodes=1))[0] == "10.10.0.4/32"


def test_without_ipv6_nothing_has_it_and_with_it_everything() -> None:
    assert {nic.ipv6 for vm in estate().vms for nic in vm.nics} == {()}
    both = estate(ipv6=3, nics=2, peered_hosts=1)
    assert [len(nic.ipv6) for nic in both.vm("node1").nics] == [4, 4]
    assert [len(both.vm(name).primary_nic.ipv6) for name in ("vm1", "peer1")] == [1, 1]
    every = [ip for vm in both.vms for nic in vm.nics for ip in nic.ipv6]
    assert len(set(every)) == len(every)
    for vm in both.vms:
        for nic in vm.nics:
            assert nic.subnet.prefix_v6 is not None
            assert set(nic.ipv6) <= set(islice(nic.subnet.prefix_v6.hosts(), 64))


def test_imds_and_arm_list_the_same_ipv6_addresses_the_machines_own_first() -> None:
    both = estate(ipv6=3)
    vm = both.vm("node1")
    (shown,) = documents.network_document(vm)["interface"]
    listed = [each["privateIpAddress"] for each in shown["ipv6"]["ipAddress"]]
    assert listed == [str(ip) for ip in vm.primary_nic.ipv6]
    nic = armdocuments.nic_document(both, vm, vm.primary_nic)
    entries = [each["properties"] for each in nic["properties"]["ipConfigurations"]]
    v6 = [each for each in entries if each["privateIPAddressVersion"] == "IPv6"]
    assert [each["privateIPAddress"] for each in v6] == listed
    assert not any(each["primary"] for each in v6)
    space = armdocuments.vnet_document(both, both.vnet("vnet1"))["properties"]["addressSpace"]
    assert space["addressPrefixes"] == ["10.10.0.0/16", "fd00:10:10::/48"]


def test_freed_addresses_are_given_again_lowest_first() -> None:
    before = estate()
    freed = changes.remove_addresses(before, "node1", [IPv4Address("10.10.0.5")])
    again = changes.add_addresses(freed, "node2", 1)
    assert addresses(again, "node2")[-1] == "10.10.0.5/32"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.10.0.3", "PrivateIPAddressInReservedRange"),
        ("10.10.15.255", "PrivateIPAddressInReservedRange"),
        ("10.10.0.4", "PrivateIPAddressInUse"),
        ("10.20.0.4", "PrivateIPAddressNotInSubnet"),
    ],
)
def test_addresses_that_azure_refuses(address: str, code: str) -> None:
    with pytest.raises(changes.RefusedChange) as refused:
        changes.add_addresses(estate(), "node1", [IPv4Address(address)])
    assert refused.value.code == code


def test_a_nic_has_at_most_256_configurations() -> None:
    full = estate(nodes=1, addresses=255)
    assert len(addresses(full)) == 256
    with pytest.raises(changes.RefusedChange, match="256"):
        changes.add_addresses(full, "node1", 1)


def test_a_full_subnet_is_refused() -> None:
    with pytest.raises(changes.RefusedChange, match="SubnetIsFull"):
        estate(nodes=17, addresses=255)


def test_the_primary_address_cannot_be_removed() -> None:
    with pytest.raises(changes.RefusedChange):
        changes.remove_addresses(estate(), "node1", [IPv4Address("10.10.0.4")])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["node1", "node2"]),
            st.sampled_from(["add", "remove", "block"]),
            st.integers(0, 5),
        ),
        max_size=12,
    )
)
def test_no_address_is_ever_owned_twice_and_only_the_changed_nic_changes(
    steps: list[tuple[str, str, int]],
) -> None:
    now = estate()
    for node, what, count in steps:
        before = now
        try:
            if what == "add":
                now = changes.add_addresses(now, node, count)
            elif what == "remove":
                now = changes.remove_addresses(now, node, count)
            else:
                now = changes.add_block(now, node)
        except changes.RefusedChange:
            assert now is before
            continue
        for vm in now.vms:
            assert vm.computer_name == node or vm == before.vm(vm.computer_name)
        owned = [address for block in now.used(now.vnets[0].subnets[0]) for address in block]
        assert len(owned) == len(set(owned))
        assert min(owned) == int(IPv4Address("10.10.0.4"))


def test_a_block_is_aligned_and_free() -> None:
    with_block = changes.add_block(estate(nodes=1, addresses=20), "node1")
    assert with_block.vm("node1").primary_nic.secondaries[-1].block == IPv4Network("10.10.0.32/28")


def test_a_nic_may_be_full_of_blocks() -> None:
    full = estate(nodes=1, addresses=0, blocks=250)
    assert sum(entry.block.num_addresses for entry in full.vm("node1").primary_nic.secondaries) == 4000


def test_free_addresses_skip_blocks() -> None:
    with_block = changes.add_block(estate(nodes=1, addresses=0), "node1")
    subnet = with_block.vm("node1").primary_nic.subnet
    found = [str(a) for a in islice(changes.free_addresses(with_block, subnet), 12)]
    assert found[-2:] == ["10.10.0.32", "10.10.0.33"]


def test_a_surface_sees_a_change_after_its_lag_and_no_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(goalstate, "time", SimpleNamespace(monotonic=lambda: now[0]))
    goal = GoalState(estate())
    goal.set_lag(Surface.IMDS, 0.2)
    before = goal.seen_by(Surface.IMDS)
    after = goal.change(lambda e: changes.add_addresses(e, "node1", 1))
    assert goal.seen_by(Surface.ARM) is after
    assert goal.seen_by(Surface.IMDS) is before
    now[0] += 0.19
    assert goal.seen_by(Surface.IMDS) is before
    now[0] += 0.02
    assert goal.seen_by(Surface.IMDS) is after


def test_a_longer_lag_does_not_take_back_what_was_shown() -> None:
    goal = GoalState(estate())
    after = goal.change(lambda e: changes.add_addresses(e, "node1", 1))
    goal.set_lag(Surface.IMDS, 100)
    assert goal.seen_by(Surface.IMDS) is after


def test_a_refused_change_changes_nothing() -> None:
    goal = GoalState(estate())
    before = goal.newest
    with pytest.raises(changes.RefusedChange):
        goal.change(lambda e: changes.remove_addresses(e, "node1", 99))
    assert goal.newest is before


def test_history_is_forgotten_when_no_lag_can_show_it() -> None:
    goal = GoalState(estate())
    for _ in range(50):
        goal.change(lambda e: changes.add_addresses(e, "node1", 1))
    assert len(goal) <= 2


def test_waiting_for_a_late_change_ends_when_it_is_due_or_when_stopped() -> None:
    goal = GoalState(estate())
    goal.set_lag(Surface.FABRIC, 0.1)
    stop = threading.Event()
    seen = goal.seen_by(Surface.FABRIC)
    after = goal.change(lambda e: changes.add_addresses(e, "node1", 1))
    assert goal.wait_for(Surface.FABRIC, seen, stop) is after

    def end() -> None:
        stop.set()
        goal.wake()

    threading.Timer(0.05, end).start()
    assert goal.wait_for(Surface.FABRIC, after, stop) is None


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_lag_is_not_negative(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 seconds or more"):
        GoalState(estate()).set_lag(Surface.IMDS, seconds)
