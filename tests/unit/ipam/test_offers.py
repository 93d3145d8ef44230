"""What was offered to the operator stays in a file until it is certain that nobody takes it."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipam.provision import offers
from ipam.provision.offers import KEPT_SECONDS, NAME, Offer, Offers
from ipam.value import replace

FIRST, SECOND = ip_address("10.1.0.5"), ip_address("10.1.0.6")
ONE = Offer("azvnet-0123456789abcdef", (FIRST,), 1000.0)
WITHDRAWN = Offer("azvnet-fedcba9876543210", (SECOND,), 900.0, withdrawn=7)
BOTH = Offers("uid-1", (ONE, WITHDRAWN))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert offers.read(tmp_path) == Offers()
    offers.keep(tmp_path, BOTH)
    assert offers.read(tmp_path) == BOTH


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"uid": "a"}', '{"uid": "a", "offers": [{"name": "b"}]}', '{"uid": "a", "offers": 5}'],
)
def test_a_file_that_was_not_written_here_offers_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert offers.read(tmp_path) == Offers()


def test_an_offer_is_forgotten_ten_minutes_after_it_was_published_last(tmp_path: Path) -> None:
    offers.keep(tmp_path, BOTH)
    assert offers.kept(tmp_path, 1000.0) == {FIRST, SECOND}
    assert offers.kept(tmp_path, 900.0 + KEPT_SECONDS) == {FIRST}
    assert offers.kept(tmp_path, 1000.0 + KEPT_SECONDS) == frozenset()


def test_an_offer_in_removal_is_kept_and_one_without_a_name_is_dropped() -> None:
    named, nameless = ONE, replace(WITHDRAWN, name="")
    known = Offers("uid-1", (named, nameless))
    assert known.since(5000.0) == Offers("uid-1")
    assert known.since(5000.0, but={ONE.name, ""}) == Offers("uid-1", (named,))


def test_an_offer_outlives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = os.fsync

    def look(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        assert offers.read(tmp_path) == BOTH, "it was not renamed afterwards"
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    offers.keep(tmp_path, BOTH)
    assert synced == [tmp_path / NAME, tmp_path]


def test_an_offer_from_before_the_last_boot_is_kept_for_ten_minutes_of_this_one(tmp_path: Path) -> None:
    offers.keep(tmp_path, BOTH)
    assert offers.kept(tmp_path, 30.0) == {FIRST, SECOND}
    assert offers.kept(tmp_path, KEPT_SECONDS + 30.0) == frozenset()


def test_in_another_resource_nothing_is_offered_and_time_alone_helps() -> None:
    assert BOTH.of_resource("uid-1") is BOTH
    moved = BOTH.of_resource("uid-2")
    assert moved == Offers("uid-2", (Offer("", (FIRST,), 1000.0), Offer("", (SECOND,), 900.0, 7)))
    assert Offers("", (ONE,)).of_resource("uid-1") == Offers("uid-1", (ONE,))


def test_what_somebody_else_marked_counts_as_offered_from_now_on() -> None:
    known = offers.inherited(BOTH, frozenset({FIRST, ip_address("10.1.0.9")}), 2000.0)
    assert known.offers == (*BOTH.offers, Offer("", (ip_address("10.1.0.9"),), 2000.0))
    assert offers.inherited(BOTH, frozenset({FIRST}), 2000.0) is BOTH
