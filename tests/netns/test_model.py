"""Random interleavings of ADD, DEL, CHECK, GC, kill -9, namespaces that vanish and lost stores (row 6)."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.netns import model
from tests.netns.calls import Outcome, Running
from tests.netns.conftest import NewNode
from tests.netns.model import Model
from tests.netns.node import FIRST_POD_ADDRESS, RUN_DIR, Node
from tests.netns.sandbox import Pod

PODS, ADDRESSES = 20, 8
ROUNDS = int(os.environ.get("AZVNET_TEST_ROUNDS", "60"))
LONGEST_CALL = 0.06


@dataclass(frozen=True)
class Step:
    """One call of a round, or something that befalls the node meanwhile."""

    what: str
    pod: int = 0
    killed_after: float | None = None
    """Seconds after which the call gets SIGKILL."""


VERBS = st.sampled_from(["ADD"] * 6 + ["DEL"] * 5 + ["CHECK"] * 2 + ["GC", "namespace", "store"])
KILLS = st.sampled_from([None] * 12 + [0.0, 0.25, 0.5, 0.75, 1.0]).map(
    lambda part: part and part * LONGEST_CALL
)
STEPS = st.builds(Step, VERBS, st.integers(0, PODS - 1), KILLS)
ROUND = st.lists(STEPS, min_size=1, max_size=6)


class Play:
    """One node on which rounds are played."""

    def __init__(self, node: Node, *, lose: bool) -> None:
        self.node = node
        self.lose = lose
        self.pods = node.sandbox.pods(*(f"c{number}" for number in range(PODS)))
        known = (str(FIRST_POD_ADDRESS + number) for number in range(ADDRESSES))
        self.model = Model(frozenset(known))
        node.add(self.pods[0]).done()
        node.delete(self.pods[0]).done()
        self.model.read_since_loss = True
        self.facts = model.read(node, self.pods)

    def round(self, steps: list[Step]) -> None:
        """Start every call of a round, let happen what happens, wait for all, and look."""
        running: list[tuple[Step, Running]] = []
        disturbed: set[str] = set()
        involved = [self.pods[step.pod].container_id for step in steps]
        for step in steps:
            if step.what == "GC":
                running.append((step, self._collect(involved)))
            elif step.what == "namespace":
                disturbed.add(self._renew_namespace(self.pods[step.pod]))
            elif step.what == "store":
                if self.lose:
                    self._lose_store()
                    disturbed.update(involved)
            else:
                running.append((step, self._start(step)))
        done: dict[str, list[tuple[str, Outcome]]] = defaultdict(list)
        for step, call in running:
            name = self.pods[step.pod].container_id
            if step.killed_after is not None and step.what in ("ADD", "DEL"):
                time.sleep(step.killed_after)
                outcome = call.kill()
                disturbed.add(name)
            else:
                outcome = call.finish()
                sure = involved.count(name) == 1 and name not in disturbed
                self.model.judge(step.what, self.pods[step.pod], outcome, alone=sure)
            if step.what != "GC":
                done[name].append((step.what, outcome))
        if not self.facts.adopted:
            disturbed.update(involved)
        if self.lose and any(step.what == "store" for step in steps):
            self.model.lose_store()  # an ADD that succeeded may have read the source before
        self.facts = model.read(self.node, self.pods)
        self.model.settle(self.facts, done, disturbed)
        self.model.check(self.facts)

    def end(self) -> None:
        """The runtime takes every pod away: nothing may be left, whatever happened before."""
        for pod in self.pods:
            self.node.delete(pod).done()
        self.node.add(self.pods[0]).done()
        self.node.delete(self.pods[0]).done()
        assert not self.node.residue()
        facts = model.read(self.node, self.pods)
        assert not facts.held
        assert facts.states == ADDRESSES

    def _start(self, step: Step) -> Running:
        pod = self.pods[step.pod]
        conf = self.node.conf(ipam={"cooldown": 0, "queryInterval": 0})
        if step.what == "CHECK":
            previous = self.model.attached.get(pod.container_id) or {"ips": [{"address": "10.10.0.5/16"}]}
            conf["prevResult"] = previous
        return self.node.start(step.what, pod, conf=conf)

    def _collect(self, involved: list[str]) -> Running:
        """As a runtime does: with the pods that it has, and those that it is just making."""
        valid = {*self.model.attached, *self.model.doubtful, *involved}
        listed = [{"containerID": name, "ifname": "eth0"} for name in sorted(valid)]
        return self.node.start("GC", conf=self.node.conf() | {"cni.dev/valid-attachments": listed})

    def _renew_namespace(self, pod: Pod) -> str:
        """A namespace vanishes, and another one takes its place at the same path."""
        pod.remove()
        self.node.sandbox.new_pods([pod.container_id])
        self.model.attached.pop(pod.container_id, None)
        self.model.doubtful.add(pod.container_id)
        return pod.container_id

    def _lose_store(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.node.sandbox.path(f"{RUN_DIR}/azvnet.db{suffix}").unlink(missing_ok=True)
        self.model.lose_store()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lose", [False, True], ids=["store kept", "store lost now and then"])
@pytest.mark.parametrize("number", [1, 2])
def test_every_address_is_free_or_held_by_the_one_live_pod_that_carries_it(
    new_node: NewNode, number: int, lose: bool
) -> None:
    start = int(os.environ.get("AZVNET_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30) + number

    @seed(start)
    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.lists(ROUND, min_size=ROUNDS, max_size=ROUNDS))
    def play(rounds: list[list[Step]]) -> None:
        if rounds.count(rounds[0]) == len(rounds):
            return  # hypothesis begins with the simplest of all plays: always the same step
        game = Play(new_node(many=True, addresses=ADDRESSES), lose=lose)
        for at, steps in enumerate(rounds):
            try:
                game.round(steps)
            except AssertionError as error:
                said = f"seed {start}, round {at}: {steps}\nbefore: {game.facts}\n{game.model}"
                raise AssertionError(f"{said}\n{error}") from error
        game.end()

    play()
