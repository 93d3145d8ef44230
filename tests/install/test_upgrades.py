"""Upgrades while a runtime calls, two installers at once, and installers killed at every step."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Self

from tests.install.conftest import Nursery
from tests.install.forge import Forge, number_of
from tests.install.node import Node, tree

UPGRADES = 50
ROUNDS = 100
COMPLETE_EVERY = 5


class Storm:
    """A runtime that calls all the time."""

    def __init__(self, node: Node, callers: int = 2) -> None:
        self.failures: list[str] = []
        self.calls = 0
        self._node = node
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, which: int) -> None:
        newest = 0
        while not self._over.is_set():
            try:
                number = self._node.number(("azvnet", "azvnet-ipam")[which % 2])
            except (AssertionError, OSError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            if number < newest:
                self.failures.append(f"{number} answers after {newest}")
            newest = number
            self.calls += 1


def test_no_call_fails_or_goes_back_while_versions_are_switched(
    forge: Forge, either_node: Node, nursery: Nursery
) -> None:
    node = either_node
    bundle = forge.bundle()
    node.install(bundle)
    with Storm(node) as storm:
        for _ in range(UPGRADES):
            bundle = forge.bundle()
            done = nursery.run(node.argv("install", f"--bundle={bundle}"))
            assert done["code"] == 0, done["said"]
            node.let_rest_but(2)

    assert storm.failures == []
    assert storm.calls >= UPGRADES
    assert node.number() == number_of(bundle)
    assert len(node.versions) <= 3
    assert not node.left_overs()


def test_two_installers_at_once_leave_one_whole_installation(
    forge: Forge, either_node: Node, nurseries: tuple[Nursery, Nursery]
) -> None:
    node = either_node
    node.install(forge.bundle())
    with Storm(node, callers=1) as storm:
        storm_failures = storm.failures
        for turn in range(10):
            bundles = forge.bundle(), forge.bundle()
            same = bundles[0], bundles[0]
            pair = same if turn % 3 == 0 else bundles
            for nursery, bundle in zip(nurseries, pair, strict=True):
                nursery.start(node.argv("install", f"--bundle={bundle}"))
            answers = [nursery.finish() for nursery in nurseries]
            assert [each["code"] for each in answers] == [0, 0], answers
            assert node.number() in {number_of(each) for each in pair}
            assert not node.left_overs()
            assert node.run("verify").returncode == 0

    assert [each for each in storm_failures if "after" not in each] == []


def test_an_installer_that_is_killed_anywhere_leaves_the_old_version_or_the_new(
    forge: Forge, either_node: Node, nursery: Nursery
) -> None:
    node = either_node
    chance = random.Random(5)
    bundle = forge.bundle()
    node.install(bundle)
    whole = nursery.run(node.argv("install", f"--bundle={forge.bundle()}"))
    assert whole["code"] == 0, whole["said"]
    expected = {node.number()}
    killed = 0
    for turn in range(ROUNDS):
        bundle = forge.bundle()
        node.let_rest()
        argv = node.argv("install", f"--bundle={bundle}", "--keep=1")
        if turn % 4 == 0:
            done = nursery.run(argv, seconds=chance.uniform(0, 0.2))
        elif turn % 4 == 1:
            done = nursery.run(argv, step=1 + turn // 4 % 8, begin="/.current.")
        else:
            done = nursery.run(argv, step=1 + turn * whole["steps"] // ROUNDS)
        killed += done["code"] == -9
        assert done["code"] in {0, -9}, done["said"]
        number = node.number()
        assert number in expected | {number_of(bundle)}
        expected = {number}
        if turn % COMPLETE_EVERY == 0:
            done = nursery.run(argv)
            assert done["code"] == 0, done["said"]
            assert node.number() == number_of(bundle)
            assert not node.left_overs()
            expected = {number_of(bundle)}

    assert killed >= ROUNDS // 2
    node.install(bundle)
    assert node.run("verify").returncode == 0


def test_no_call_fails_or_goes_back_while_installers_are_killed_at_random(
    forge: Forge, either_node: Node, nursery: Nursery
) -> None:
    node = either_node
    chance = random.Random(7)
    node.install(forge.bundle())
    killed = 0
    with Storm(node) as storm:
        for _ in range(UPGRADES):
            argv = node.argv("install", f"--bundle={forge.bundle()}")
            done = nursery.run(argv, seconds=chance.uniform(0, 0.2))
            assert done["code"] in {0, -9}, done["said"]
            killed += done["code"] == -9
            node.let_rest_but(2)
        bundle = forge.bundle()
        assert nursery.run(node.argv("install", f"--bundle={bundle}"))["code"] == 0

    assert killed >= UPGRADES // 5
    assert storm.failures == []
    assert storm.calls >= UPGRADES
    assert node.number() == number_of(bundle)
    assert not node.left_overs()
    assert node.run("verify").returncode == 0


def test_a_first_installation_that_is_killed_anywhere_promises_no_network_that_does_not_work(
    forge: Forge, tmp_path: Path, nursery: Nursery
) -> None:
    bundle = forge.bundle()
    whole = nursery.run(Node(tmp_path / "whole").furnish().argv("install", f"--bundle={bundle}"))
    for turn in range(0, whole["steps"], 7):
        node = Node(tmp_path / f"node-{turn}").furnish()
        before = tree(node.root)
        argv = node.argv("install", f"--bundle={bundle}")

        assert nursery.run(argv, step=1 + turn)["code"] == -9

        if node.conflist.exists():
            assert node.number() == number_of(bundle)
        if turn % 2:
            assert nursery.run(argv)["code"] == 0
            assert node.number() == number_of(bundle)
        done = nursery.run(node.argv("uninstall"))
        assert done["code"] == 0, done["said"]
        assert tree(node.root) == before, turn


def test_an_uninstallation_that_is_killed_anywhere_is_finished_by_the_next(
    forge: Forge, tmp_path: Path, nursery: Nursery
) -> None:
    bundle = forge.bundle()
    steps = 400
    turn = 0
    while turn < steps:
        node = Node(tmp_path / f"node-{turn}").furnish()
        before = tree(node.root)
        node.install(bundle)

        if turn == 0:
            steps = nursery.run(node.argv("uninstall"))["steps"]
            assert steps > 10
        else:
            assert nursery.run(node.argv("uninstall"), step=turn)["code"] == -9

        if node.conflist.exists():
            assert node.number() == number_of(bundle)
        done = nursery.run(node.argv("uninstall"))
        assert done["code"] == 0, done["said"]
        assert tree(node.root) == before, turn
        turn += 5
