"""Counters of what is done to a NIC, by their names in the store."""

from __future__ import annotations

import pytest

from ipam import nic_counts


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
