"""What an operator remembers of a node: what is newer, what is another machine, when to look again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ipam.operator.record import NodeRecord, Said, What
from ipam.operator.turns import Region
from ipam.provision import progress
from ipam.provision.exchange import AzvnetNode, Machine, NodeSpec, NodeStatus
from ipam.provision.pace import AT_REST_SECONDS
from ipam.provision.timestamps import rfc3339
from ipam.value import replace

PATH = "/subscriptions/SUB/resourceGroups/Group/providers/Microsoft.Compute/virtualMachines/VM1"
MACHINE = Machine(PATH, "vm-id", "AzurePublicCloud", "WestEurope", "02:00:00:00:00:01")
NODE = AzvnetNode("n1", "u", "7", 1, NodeSpec(machine=MACHINE, renew_time="t1"), NodeStatus(revision=1))


def with_spec(version: str, **changed: Any) -> AzvnetNode:
    return replace(NODE, resource_version=version, spec=replace(NODE.spec, **changed))


def test_only_a_newer_version_of_the_resource_is_taken() -> None:
    record = NodeRecord(NODE, 100.0)
    record.broken = "it was"
    assert not record.take(with_spec("7", renew_time="t2"), 110.0)
    assert not record.take(with_spec("6", renew_time="t2"), 110.0)
    assert (record.node, record.last_heard, record.broken) == (NODE, 100.0, "it was")
    newer = with_spec("10", renew_time="t2")
    assert record.take(newer, 120.0)
    assert (record.node, record.last_heard, record.broken) == (newer, 120.0, "")


def test_a_resource_that_was_made_again_is_taken_whatever_its_version() -> None:
    record = NodeRecord(NODE, 100.0)
    assert record.take(replace(NODE, uid="v", resource_version="1"), 110.0)
    unordered = NodeRecord(replace(NODE, resource_version="a"), 100.0)
    assert not unordered.take(replace(NODE, resource_version="b"), 110.0)
    assert unordered.take(NODE, 110.0)


def test_an_agent_is_heard_of_when_it_renews_and_not_when_others_write() -> None:
    record = NodeRecord(NODE, 100.0)
    record.take(with_spec("8"), 120.0)
    assert (record.renewed_at, record.last_heard) == (None, 100.0)
    record.take(with_spec("9", renew_time="t2"), 130.0)
    assert (record.renewed_at, record.last_heard) == (130.0, 130.0)


@pytest.mark.parametrize(
    ("changed", "another"),
    [
        ({"machine": replace(MACHINE, resource_id=PATH.upper())}, False),
        ({"machine": replace(MACHINE, location="elsewhere")}, False),
        ({"machine": replace(MACHINE, resource_id=PATH + "2")}, True),
        ({"machine": replace(MACHINE, vm_id="other")}, True),
        ({"machine": replace(MACHINE, mac="02:00:00:00:00:02")}, True),
        ({"subnet": "other"}, True),
    ],
)
def test_another_machine_or_nic_is_looked_at_before_anything_is_believed(
    changed: dict[str, Any], another: bool
) -> None:
    record = NodeRecord(NODE, 100.0)
    assert not record.unsure
    record.take(with_spec("8", **changed), 110.0)
    assert (record.is_another_machine, record.unsure) == (another, another)


def test_the_budget_is_that_of_the_subscription_and_region_in_any_case() -> None:
    assert NodeRecord(NODE, 0.0).region() == Region("sub", "westeurope")
    nowhere = with_spec("8", machine=replace(MACHINE, resource_id="/somewhere"))
    assert NodeRecord(nowhere, 0.0).place() is None
    assert NodeRecord(nowhere, 0.0).region() == Region("", "westeurope")


@pytest.mark.parametrize(
    ("age", "least", "most"),
    [(None, 0, 0), (200, 399, 400), (600, 0, 0), (10_000, 0, 0), (-500, AT_REST_SECONDS, AT_REST_SECONDS)],
    ids=["never", "lately", "due", "overdue", "by-a-clock-ahead"],
)
def test_who_leads_next_reads_a_nic_when_it_would_have_been_due(
    age: float | None, least: float, most: float
) -> None:
    read = "" if age is None else rfc3339(time.time() - age)
    record = NodeRecord(replace(NODE, status=NodeStatus(revision=1, last_read_time=read)), 1000.0)
    assert 1000.0 + least - 1 <= record.read_due <= 1000.0 + most


def test_a_node_that_was_just_found_has_failed_at_nothing() -> None:
    record = NodeRecord(NODE, 100.0)
    assert (record.failures, record.not_before, record.trouble, record.broken) == (0, 0.0, None, "")
    assert (record.read_at, record.renewed_at, record.is_another_machine) == (None, None, False)


def test_what_begins_with_a_write_and_what_somebody_should_know() -> None:
    assert {each for each in What if each.writes} == {What.GROW, What.SHRINK, What.LEAVE}
    assert Said("stale", "").is_problem
    assert not any(Said(each, "").is_problem for each in progress.QUIET)
