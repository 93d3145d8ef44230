"""Random histories of one node against a model: whatever happens in whatever order, no address is held
twice, the four states add up, and the address given out is the one that should be.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipam import reservations
from ipam.errors import (
    AddressUnavailable,
    AdoptionNeeded,
    AlreadyReserved,
    NoAddressesKnown,
    PoolExhausted,
    ReservationLost,
    SourceEmpty,
    SourceUnreadable,
)
from ipam.model import AddressRequest, Listing
from tests.unit.ipam.model_pool import COOLDOWN, GRACE, ModelPool
from tests.unit.ipam.node import (
    Node,
    asking,
    attachment,
    confirm,
    counters,
    counts,
    ips,
    listing_of,
    owner,
    refresh,
    release,
    reserve,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipam.ipam import Ipam
    from ipam.model import Attachment, IPAddress, Reservation
    from ipam.store.transaction import Transaction

PODS = [attachment(f"pod-{number}") for number in range(7)]
POOL = ips(5, 6, 7, 8, 9)

pods = st.sampled_from(PODS)
addresses = st.sampled_from(POOL)
some_addresses = st.sets(addresses)


class Killed(BaseException):
    """Stands for the death of the process in the middle of a transaction."""


class NodeHistory(RuleBasedStateMachine):
    """One node with seven pods and five addresses, which are too few."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="azvnet-history-"))
        self.node = Node(self.directory)
        self.ipam: Ipam = self.node.process()
        self.model = ModelPool()
        self.under_way: dict[Attachment, Reservation] = {}
        self.calls = 0
        self.boots = 1
        self.adopted = False

    @property
    def now(self) -> float:
        return self.node.clock.now

    @initialize(ready=st.sampled_from([True, True, True, False]))
    def first_start(self, ready: bool) -> None:
        self.node.says = listing_of(*POOL)
        if ready:
            self.adopt_nothing_but_what_lives()
            self.read_the_source()

    # The life of an address

    @rule(pod=pods, excluded=some_addresses)
    def add(self, pod: Attachment, excluded: set[IPAddress]) -> None:
        self.reserve(pod, asking(cooldown=COOLDOWN, excluded=frozenset(excluded)))

    @rule(pod=pods, wanted=addresses, excluded=some_addresses)
    def add_with_address(self, pod: Attachment, wanted: IPAddress, excluded: set[IPAddress]) -> None:
        self.reserve(pod, asking(requested=wanted, cooldown=COOLDOWN, excluded=frozenset(excluded)))

    def reserve(self, pod: Attachment, request: AddressRequest) -> None:
        self.calls += 1
        before = counters(self.ipam)
        choices = self.model.choices(self.now, request.excluded)
        expected: Any
        if not self.adopted:
            expected = AdoptionNeeded
        elif pod in self.model.held:
            expected = AlreadyReserved
        elif not self.model.ever_read:
            expected = NoAddressesKnown
        elif request.requested:
            (wanted,) = request.requested
            expected = wanted if wanted in choices else AddressUnavailable
        elif choices:
            expected = choices[0]
        else:
            expected = PoolExhausted
        try:
            made = reserve(self.ipam, pod, owner(pod.container_id, call_id=str(self.calls)), request)
        except (
            AdoptionNeeded,
            AlreadyReserved,
            AddressUnavailable,
            PoolExhausted,
            NoAddressesKnown,
        ) as error:
            refused: type[Exception] = type(error)
        else:
            self.given(made, expected, before, request)
            return
        assert refused is expected
        exhausted = counters(self.ipam)["exhausted ipv4"] - before["exhausted ipv4"]
        assert exhausted == int(expected is PoolExhausted)

    def given(
        self, made: Reservation, expected: object, before: Mapping[str, int], request: AddressRequest
    ) -> None:
        assert made.ip == expected
        shortened = counters(self.ipam)["cooldown_shortened"] - before["cooldown_shortened"]
        assert shortened == int(self.model.rests(made.ip, self.now))
        if shortened and not request.requested:
            others = self.model.choices(self.now, request.excluded)
            assert all(self.model.rests(ip, self.now) for ip in others), "another one had rested enough"
        self.model.held[made.attachment] = made
        self.under_way[made.attachment] = made

    @rule(pod=pods)
    def add_ends(self, pod: Attachment) -> None:
        reservation = self.under_way.pop(pod, None)
        if reservation is None:
            return
        same_store = reservation.generation == self.ipam._store.read(lambda tx: tx.generation)
        held = self.model.held.get(pod)
        other = self.model.holder_of(reservation.ip)
        try:
            confirmed = confirm(self.ipam, reservation)
        except ReservationLost:
            assert held != reservation
            assert same_store or held is not None or other is not None
            return
        assert confirmed.confirmed
        assert confirmed.ip == reservation.ip
        if held is None:
            assert not same_store
            assert other is None
            self.model.hold_again(reservation)
        self.model.confirmed.add(pod)
        self.model.missing_since.pop(pod, None)

    @rule(pod=pods)
    def add_fails(self, pod: Attachment) -> None:
        reservation = self.under_way.pop(pod, None)
        if reservation is not None:
            mine = self.model.held.get(pod) == reservation and pod not in self.model.confirmed
            assert self.ipam.abandon(reservation) == mine
            if mine:
                self.model.let_go(pod, None)

    @rule(pod=pods)
    def delete(self, pod: Attachment) -> None:
        released = release(self.ipam, pod)
        assert (released is None) == (pod not in self.model.held)
        if released is not None:
            assert released.ip == self.model.held[pod].ip
            self.model.let_go(pod, self.now)

    @rule(ip=addresses, seconds=st.sampled_from([1, 45]))
    def quarantine(self, ip: IPAddress, seconds: float) -> None:
        assert self.ipam.quarantine(ip, "seen elsewhere", seconds) == (ip in self.model.addresses)
        if ip in self.model.addresses:
            self.model.addresses[ip].quarantined_until = self.now + seconds

    @rule(missing=st.sets(pods), present=st.sets(pods))
    def look(self, missing: set[Attachment], present: set[Attachment]) -> None:
        expected = set()
        for pod in present & set(self.model.held):
            self.model.missing_since.pop(pod, None)
        for pod in missing & set(self.model.held):
            if self.now - self.model.missing_since.setdefault(pod, self.now) >= GRACE:
                expected.add(pod)
        freed = sweep(self.ipam, sorted(missing), sorted(present), grace=GRACE)
        assert {each.attachment for each in freed} == expected
        for pod in expected:
            self.model.let_go(pod, self.now)

    # The source

    @rule(listed=some_addresses)
    def the_cloud_lists(self, listed: set[IPAddress]) -> None:
        self.node.says = listing_of(*listed, digest=",".join(sorted(map(str, listed))))

    @rule(fault=st.sampled_from([SourceUnreadable("500"), Listing("imds", ())]))
    def the_cloud_fails(self, fault: Listing | Exception) -> None:
        self.node.says = fault

    @rule()
    def read_the_source(self) -> None:
        says = self.node.says
        listed = set() if isinstance(says, Exception) else {a.ip for nic in says.nics for a in nic.addresses}
        try:
            refresh(self.ipam)
        except (SourceUnreadable, SourceEmpty):
            assert not listed
        else:
            assert listed
            self.model.read(listed, self.now)

    # The world around

    @rule(seconds=st.sampled_from([1.0, 7.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.node.clock.advance(seconds)
        self.node.wall.advance(seconds)

    @rule()
    def another_process(self) -> None:
        self.ipam = self.node.process()

    @rule()
    def process_ends(self) -> None:
        self.ipam.close()

    @rule(pod=pods, deleted=pods)
    def killed_within_a_transaction(self, pod: Attachment, deleted: Attachment) -> None:
        def half(tx: Transaction) -> None:
            reservations.release(tx, deleted, None)
            reservations.reserve(tx, pod, owner("half"), asking())
            raise Killed

        try:
            self.ipam._store.write(half)
        except Killed:
            return
        raise AssertionError

    @rule()
    @precondition(lambda self: not self.adopted)
    def adopt_nothing_but_what_lives(self) -> None:
        # Everything that lives was adopted when the store was lost.
        assert self.ipam.adopt(()) == ()
        self.adopted = True

    @rule(adopted=st.booleans())
    def the_store_is_lost(self, adopted: bool) -> None:
        for path in self.node.run_dir.glob("azvnet.db*"):
            path.unlink()
        alive = self.model.lost()
        assert self.ipam.adopt(alive.values()) == ()
        for reservation in alive.values():
            self.model.hold_again(reservation)
        self.adopted = True

    @rule()
    def the_node_is_started_anew(self) -> None:
        self.boots += 1
        self.node.start_anew(f"boot-{self.boots}")
        self.node.clock.now = 10.0
        self.ipam = self.node.process()
        self.model.rebooted()
        self.under_way.clear()
        self.adopted = False

    # What is always true

    @invariant()
    def no_address_is_held_twice(self) -> None:
        held = self.ipam.reservations()
        assert len({each.ip for each in held}) == len(held)
        assert {each.attachment: each.ip for each in held} == {
            pod: reservation.ip for pod, reservation in self.model.held.items()
        }
        assert {each.attachment for each in held if each.confirmed} == self.model.confirmed

    @invariant()
    def the_four_states_add_up(self) -> None:
        seen = counts(self.ipam, COOLDOWN)
        assert seen == self.model.counts(self.now)
        told = [status.state.value for status in self.ipam.addresses(COOLDOWN)]
        assert seen.total == len(told) == len(self.model.pool())
        assert told.count("free") == seen.free
        assert told.count("cooling") == seen.cooling

    def teardown(self) -> None:
        self.ipam.close()
        shutil.rmtree(self.directory)


TestRandomHistories = NodeHistory.TestCase
TestRandomHistories.settings = settings(max_examples=settings().max_examples * 3 // 5, stateful_step_count=40)
