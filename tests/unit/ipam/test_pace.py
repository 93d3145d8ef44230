"""When Azure Resource Manager is asked again: after a failure, and within a node's own budget."""

from __future__ import annotations

import pytest

from ipam.provision.pace import Bucket, pause
from tests.unit.ipam.node import Clock


@pytest.mark.parametrize(
    ("failures", "retry_after", "chance", "seconds"),
    [
        (1, 0.0, 0.0, 2.5),
        (1, 0.0, 0.5, 3.75),
        (2, 0.0, 0.0, 5.0),
        (4, 0.0, 0.0, 20.0),
        (100, 0.0, 0.0, 300.0),
        (100, 0.0, 0.5, 450.0),
        (1, 100.0, 0.0, 100.0),
        (1, 100.0, 0.5, 112.5),
        (100, 100.0, 0.0, 300.0),
    ],
)
def test_pauses_double_up_to_ten_minutes_and_are_spread(
    failures: int, retry_after: float, chance: float, seconds: float
) -> None:
    assert pause(failures, retry_after, chance) == seconds


def test_pauses_of_others_begin_and_end_elsewhere() -> None:
    assert pause(1, 0.0, 0.0, first=1.0, most=8.0) == 0.5
    assert pause(10, 0.0, 0.0, first=1.0, most=8.0) == 4.0
    assert pause(10_000, 0.0, 0.0, first=1.0, most=1e9) == 2.0**15, "no number of failures is too large"


def test_a_bucket_lets_some_through_at_once_and_then_one_every_so_often() -> None:
    clock = Clock()
    bucket = Bucket(2, 10.0, clock)
    assert [bucket.take() for _ in range(4)] == [0, 0, 10, 20]
    clock.advance(25)
    assert bucket.take() == 5
    clock.advance(15)
    assert bucket.take() == 0
    clock.advance(1000)
    assert [bucket.take() for _ in range(3)] == [0, 0, 10]
