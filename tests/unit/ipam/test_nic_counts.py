"""Counters of what is done to a NIC, by their names in the store."""

from __future__ import annotations

import pytest

from ipam import nic_counts
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.tally import Tally
from tests.unit.ipam.node import Clock


@pytest.mark.parametrize(
    ("seconds", "counter"),
    [
        (0.0, "provision_write_bucket 10"),
        (10.0, "provision_write_bucket 10"),
        (10.1, "provision_write_bucket 20"),
        (300.0, "provision_write_bucket 300"),
        (300.1, "provision_write_bucket more"),
    ],
)
def test_a_write_is_counted_in_the_first_bucket_that_it_fits_into(seconds: float, counter: str) -> None:
    assert nic_counts.bucket_of(seconds) == counter


def test_the_outcome_of_a_write_is_in_the_name_of_its_counter() -> None:
    assert nic_counts.outcome_of(nic_counts.writes_ended("subnet-full")) == "subnet-full"
    assert nic_counts.outcome_of(nic_counts.READS) == ""
    assert nic_counts.outcome_of(nic_counts.bucket(0)) == ""


@pytest.mark.parametrize(
    ("ends", "counted"),
    [(Refusal(Kind.BUSY, "busy"), "busy"), (RuntimeError("stopped"), "interrupted")],
)
def test_a_failed_write_is_counted_once_and_its_reason_is_raised(ends: Exception, counted: str) -> None:
    found: list[dict[str, int]] = []
    tally = Tally(lambda events: found.append(dict(events)), Clock())
    with pytest.raises(type(ends)), tally.write():
        raise ends
    assert found == [{nic_counts.writes_ended(counted): 1}]
