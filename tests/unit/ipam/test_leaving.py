"""An address that is being taken from the NIC is given to nobody, whatever happens to whoever takes it."""

from __future__ import annotations

import json
import os
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipam import leaving_file
from ipam.errors import AddressUnavailable, PoolExhausted, StoreUnavailable
from ipam.ipam import Ipam
from ipam.model import AddressState, PoolCounts
from ipam.store.source_records import LEAVING_SECONDS
from tests.unit.ipam.node import (
    ANY,
    Node,
    asking,
    attachment,
    confirm,
    counts,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
)

P1, P2 = attachment("pod-1"), attachment("pod-2")
FIVE, SIX, SEVEN = ips(5, 6, 7)


def test_it_is_given_to_nobody_and_says_why(node: Node) -> None:
    ipam = node.ready(5, 6)
    assert ipam.mark_leaving([(FIVE,), (SIX,)], 30.0) == ((FIVE,), (SIX,))
    with pytest.raises(PoolExhausted, match="it is being removed from the NIC"):
        reserve(ipam, P1, owner(), ANY)
    with pytest.raises(AddressUnavailable, match="it is being removed from the NIC"):
        reserve(ipam, P1, owner(), asking(requested=FIVE))
    assert counts(ipam) == PoolCounts(free=0, assigned=0, cooling=0, quarantined=2)
    assert [each.state for each in ipam.addresses()] == [AddressState.QUARANTINED] * 2


def test_what_a_pod_holds_is_never_marked(node: Node) -> None:
    ipam = node.ready(5, 6)
    confirm(ipam, reserve(ipam, P1, owner(), ANY))
    assert ipam.mark_leaving([(FIVE,), (SIX,)], 0.0) == ((SIX,),)
    assert ipam.leaving() == {SIX}


def test_what_has_not_cooled_down_is_not_marked(node: Node) -> None:
    ipam = node.ready(5)
    reserve(ipam, P1, owner(), ANY)
    release(ipam, P1)
    assert ipam.mark_leaving([(FIVE,)], 30.0) == ()
    node.clock.advance(30)
    assert ipam.mark_leaving([(FIVE,)], 30.0) == ((FIVE,),)


def test_a_block_is_marked_as_a_whole_or_not_at_all(node: Node) -> None:
    ipam = node.ready(5, 6, 7)
    reserve(ipam, P1, owner(), asking(requested=SIX))
    assert ipam.mark_leaving([(FIVE, SIX, SEVEN)], 0.0) == ()
    assert ipam.leaving() == frozenset()
    assert reserve(ipam, P2, owner(), ANY).ip == FIVE


def test_it_is_given_again_when_it_stays(node: Node) -> None:
    ipam = node.ready(5)
    ipam.mark_leaving([(FIVE,)], 0.0)
    ipam.unmark_leaving([FIVE])
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def test_the_mark_outlives_the_process_and_the_boot(node: Node) -> None:
    node.ready(5).mark_leaving([(FIVE,)], 0.0)
    assert node.process().leaving() == {FIVE}
    node.start_anew("boot-2")
    ipam = node.process()
    ipam.adopt(())
    node.says = listing_of(FIVE)
    refresh(ipam)
    with pytest.raises(PoolExhausted):
        reserve(ipam, P1, owner(), ANY)


def test_one_that_no_source_lists_yet_is_kept_back_when_it_does(node: Node) -> None:
    ipam = node.ready(5)
    assert ipam.mark_leaving([(SEVEN,)], 30.0) == ((SEVEN,),)
    node.says = listing_of(FIVE, SEVEN)
    refresh(ipam)
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE
    with pytest.raises(PoolExhausted):
        reserve(ipam, P2, owner(), ANY)


def test_it_is_forgotten_when_nobody_says_so_for_an_hour(node: Node) -> None:
    ipam = node.ready(5)
    ipam.mark_leaving([(FIVE,)], 0.0)
    node.clock.advance(LEAVING_SECONDS - 1)
    ipam.mark_leaving([(FIVE,)], 0.0)
    node.clock.advance(LEAVING_SECONDS - 1)
    refresh(ipam)
    assert ipam.leaving() == {FIVE}
    node.clock.advance(2)
    refresh(ipam)
    assert ipam.leaving() == frozenset()
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def lose_store(node: Node) -> Ipam:
    """The store's files are removed while nobody has them open; an ADD would be told to adopt first."""
    for path in node.run_dir.glob("azvnet.db*"):
        path.unlink()
    ipam = node.process()
    assert ipam.needs_adoption()
    return ipam


def test_the_mark_outlives_the_store(node: Node) -> None:
    node.ready(5, 6).mark_leaving([(FIVE,)], 0.0)
    ipam = lose_store(node)
    ipam.adopt(())
    refresh(ipam)
    assert ipam.leaving() == {FIVE}
    assert reserve(ipam, P1, owner(), ANY).ip == SIX
    with pytest.raises(PoolExhausted, match="it is being removed from the NIC"):
        reserve(ipam, P2, owner(), ANY)


def test_what_is_marked_or_unmarked_before_the_adoption_costs_no_other_mark(node: Node) -> None:
    node.ready(5, 6, 7).mark_leaving([(FIVE,)], 0.0)
    ipam = lose_store(node)
    ipam.mark_gone([SIX])
    ipam.unmark_leaving([SEVEN])
    ipam.adopt(())
    assert ipam.leaving() == {FIVE, SIX}
    ipam.unmark_leaving([FIVE])
    ipam = lose_store(node)
    ipam.adopt(())
    assert ipam.leaving() == {SIX}


def test_a_store_that_was_lost_after_the_end_keeps_nothing_back(node: Node) -> None:
    ipam = node.ready(5)
    ipam.mark_leaving([(FIVE,)], 0.0)
    ipam.unmark_leaving([FIVE])
    ipam = lose_store(node)
    ipam.adopt(())
    refresh(ipam)
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


@pytest.mark.parametrize("content", [b"", b"no JSON", b"{}", b"null", b"[1.5]", b'["10.0.0"]'])
def test_a_file_of_somebody_else_keeps_no_store_from_being_made(node: Node, content: bytes) -> None:
    node.ready(5)
    node.lib_dir.mkdir()
    (node.lib_dir / leaving_file.NAME).write_bytes(content)
    ipam = lose_store(node)
    ipam.adopt(())
    refresh(ipam)
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def test_what_is_gone_stays_with_its_pod_and_is_given_to_nobody_after_it(node: Node) -> None:
    ipam = node.ready(5)
    confirm(ipam, reserve(ipam, P1, owner(), ANY))
    ipam.mark_gone([FIVE])
    assert [each.ip for each in ipam.held_by(P1)] == [FIVE]
    assert counts(ipam) == PoolCounts(free=0, assigned=1, cooling=0, quarantined=0)
    release(ipam, P1)
    node.clock.advance(1000)
    with pytest.raises(PoolExhausted, match="or is no longer on it"):
        reserve(ipam, P2, owner(), ANY)


def test_what_is_gone_is_given_to_nobody_after_the_store_was_lost_either(node: Node) -> None:
    ipam = node.ready(5)
    alive = confirm(ipam, reserve(ipam, P1, owner(), ANY))
    ipam.mark_gone([FIVE])
    ipam = lose_store(node)
    ipam.adopt([alive])
    refresh(ipam)
    assert ipam.leaving() == {FIVE}
    release(ipam, P1)
    node.clock.advance(1000)
    with pytest.raises(PoolExhausted, match="or is no longer on it"):
        reserve(ipam, P2, owner(), ANY)


def test_a_pod_that_is_found_alive_with_it_keeps_it(node: Node) -> None:
    ipam = node.ready(5, 6)
    alive = confirm(ipam, reserve(ipam, P1, owner(), ANY))
    release(ipam, P1)
    ipam.mark_leaving([(FIVE,)], 0.0)
    assert ipam.adopt([alive]) == ()
    assert [each.ip for each in ipam.reservations()] == [FIVE]
    assert counts(ipam).assigned == 1


def test_the_file_says_what_was_kept_last_and_is_written_only_if_that_changes(tmp_path: Path) -> None:
    assert leaving_file.kept_in(tmp_path) == frozenset()
    some = frozenset({*ips(5, 6, 7, 8), ip_address("fd00::5")})
    leaving_file.keep_in(tmp_path, some)
    path = tmp_path / leaving_file.NAME
    written = path.stat().st_ino
    assert leaving_file.kept_in(tmp_path) == some
    assert json.loads(path.read_bytes()) == ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "fd00::5"]
    leaving_file.keep_in(tmp_path, some)
    assert path.stat().st_ino == written
    leaving_file.keep_in(tmp_path, frozenset(ips(5)))
    assert leaving_file.kept_in(tmp_path) == frozenset(ips(5))


def test_after_a_reboot_it_is_given_to_nobody_either_since_azure_goes_on_taking_it(node: Node) -> None:
    ipam = node.ready(5, 6)
    ipam.mark_leaving([(FIVE,)], 0.0)
    ipam.close()
    for left in node.run_dir.iterdir():
        left.unlink()
    node.start_anew("boot-2")
    ipam = node.process()
    ipam.adopt(())
    refresh(ipam)
    assert ipam.leaving() == {FIVE}
    assert reserve(ipam, P1, owner(), ANY).ip == SIX


def test_nothing_is_marked_where_it_could_not_be_kept(node: Node) -> None:
    ipam = node.ready(5)
    node.lib_dir.write_text("in the way")
    with pytest.raises(StoreUnavailable, match="/lib"):
        ipam.mark_leaving([(FIVE,)], 0.0)
    assert ipam.leaving() == frozenset()
    assert reserve(ipam, P1, owner(), ANY).ip == FIVE


def test_a_file_that_is_older_than_any_mark_keeps_nothing_back(tmp_path: Path) -> None:
    """The store forgets its marks after an hour without writing the file, where no growth is configured."""
    leaving_file.keep_in(tmp_path, frozenset({FIVE}))
    aged(tmp_path, LEAVING_SECONDS - 60)
    assert leaving_file.kept_in(tmp_path) == {FIVE}
    aged(tmp_path, LEAVING_SECONDS + 60)
    assert leaving_file.kept_in(tmp_path) == frozenset()


def test_marks_that_go_on_are_written_again_before_their_file_is_too_old(tmp_path: Path) -> None:
    leaving_file.keep_in(tmp_path, frozenset({FIVE}))
    aged(tmp_path, LEAVING_SECONDS / 2 + 60)
    leaving_file.keep_in(tmp_path, frozenset({FIVE}))
    assert time.time() - (tmp_path / leaving_file.NAME).stat().st_mtime < LEAVING_SECONDS / 2


def aged(directory: Path, seconds: float) -> None:
    """Make the file so old."""
    path = directory / leaving_file.NAME
    os.utime(path, (time.time() - seconds,) * 2)
