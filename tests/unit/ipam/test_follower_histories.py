"""Random histories of agent, operator and API server: no live pod loses its address, nothing is left over.

Agent and operator are killed at any change and any request, writes arrive late or not at all, what is watched
is out of date, the mode is switched and the resource deleted under live pods.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipam.provision import offers
from ipam.provision.plan import Sizes
from tests.unit.ipam.arm_service import ArmService
from tests.unit.ipam.cluster import ApiServer, FollowedMachine
from tests.unit.ipam.machine import KilledError
from tests.unit.ipam.node import Node

pytestmark = pytest.mark.timeout(600)

few = st.integers(0, 12)
maybe = st.none() | few


class Histories(RuleBasedStateMachine):
    """One node; the machine itself asserts that no pod loses an address or is given one that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.number = 0

    @initialize(prefixes=st.booleans(), pods=st.integers(0, 30))
    def begin(self, *, prefixes: bool, pods: int) -> None:
        sizes = Sizes(shrink_after=30.0, batch=4, low=2, high=6, prefixes=prefixes)
        self.machine = FollowedMachine(
            Node(self.folder),
            ArmService(subnet="10.0.0.0/22"),
            sizes,
            api=ApiServer(),
            patch=self.patch,
        )
        self.machine.arm.polls = 1
        self.machine.waiting_pods = {f"default/none-{number}" for number in range(pods)}
        self.machine.run(60)
        self.machine.waiting_pods = set()

    @rule()
    def a_pod_comes(self) -> None:
        self.number += 1
        self.machine.add_pod(self.number)
        self.machine.waiting_pods = set(list(self.machine.waiting_pods)[-3:])

    @precondition(lambda self: self.machine.pods)
    @rule(which=few)
    def a_pod_goes(self, which: int) -> None:
        pods = list(self.machine.pods)
        self.machine.delete_pod(pods[which % len(pods)])

    @precondition(lambda self: self.machine.mode == "operator")
    @rule(
        outcome=st.sampled_from(["done", "done", "done", "lost", "late", "unknown"]),
        late=maybe,
        killed_in=maybe,
    )
    def the_agent_looks(self, outcome: str, late: int | None, killed_in: int | None) -> None:
        machine = self.machine
        shown = machine.api.shown[-12:]
        machine.fuse.left = killed_in
        try:
            machine.follow(outcome, shown[late % len(shown)] if late is not None and shown else None)
        except KilledError:
            machine.start()
        machine.fuse.left = None

    @precondition(lambda self: self.machine.mode == "node")
    @rule(killed_in=maybe)
    def the_agent_writes_the_nic_itself(self, killed_in: int | None) -> None:
        machine = self.machine
        machine.kill_at = None if killed_in is None else machine.asked + killed_in
        try:
            machine.provisioner.step()
        except KilledError:
            machine.start()
        machine.kill_at = None

    @rule(killed_in=maybe, meanwhile=st.booleans())
    def the_operator_works(self, killed_in: int | None, *, meanwhile: bool) -> None:
        machine = self.machine
        machine.operator.kill_in = killed_in
        machine.while_waiting = (
            [machine.agent, self.a_pod_comes] if meanwhile and machine.mode != "node" else []
        )
        machine.operator.work()
        machine.operator.kill_in = None
        machine.while_waiting = []

    @precondition(lambda self: self.machine.late)
    @rule()
    def a_late_write_arrives(self) -> None:
        self.machine.arrive()

    @rule(seconds=st.sampled_from([5.0, 35.0, 65.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.machine.wait(seconds)

    @rule(lag=st.sampled_from([0.0, 45.0]))
    def the_source_is_read(self, lag: float) -> None:
        self.machine.lag = lag
        self.machine.refresh()

    @rule()
    def the_api_server_comes_or_goes(self) -> None:
        self.machine.api.away = not self.machine.api.away

    @rule(mode=st.sampled_from(["operator", "operator", "node", "off"]))
    def the_agent_is_started_in_a_mode(self, mode: str) -> None:
        self.machine.mode = mode
        self.machine.start()

    @precondition(lambda self: self.machine.api.document is not None)
    @rule()
    def the_resource_is_deleted(self) -> None:
        self.machine.api.delete()

    @invariant()
    def what_is_published_is_marked(self) -> None:
        """As long as the operator could act on it."""
        machine = getattr(self, "machine", None)
        if machine is None or machine.mode != "operator" or not machine.operator._is_fresh():
            return
        named = {
            ip
            for each in offers.read(machine.ipam.lasting).offers
            if each.name in machine.offered
            for ip in each.addresses
        }
        assert not named & set(machine.pods.values())

    def teardown(self) -> None:
        try:
            machine = getattr(self, "machine", None)
            if machine is not None:
                self._everything_works_again(machine)
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    def _everything_works_again(self, machine: FollowedMachine) -> None:
        while machine.late:
            machine.arrive()
        machine.api.away, machine.lag, machine.mode = False, 0.0, "operator"
        machine.waiting_pods = set()
        machine.start()
        for _ in range(120):
            machine.agent()
            machine.operator.work()
            machine.agent()
            machine.wait(15)
            machine.refresh()
        assert machine.phase == "idle", machine.follower.progress
        assert machine.ipam.leaving() == frozenset()
        assert machine.offered == ()
        assert offers.read(machine.ipam.lasting).offers == ()
        assert machine.free() | set(machine.pods.values()) == machine.on_nic()
        batch = 16 if machine.sizes.prefixes else 4
        assert 2 <= len(machine.free()) < 6 + 2 * batch


TestHistories = Histories.TestCase
# Each history ends with half an hour in which everything has to work again: it takes a second by itself.
TestHistories.settings = settings(max_examples=max(5, settings().max_examples // 4), stateful_step_count=40)
