"""Many real processes on one store, some of them killed: no address twice, none lost, nobody blocked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from ipam.errors import PoolExhausted
from ipam.model import PoolCounts
from tests.unit.ipam.node import ANY, attachment, confirm, counters, counts, find, owner, release, reserve
from tests.unit.ipam.worker import COOLDOWN, carries, detach
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.ipam.node import Node

PROCESSES = 8
CYCLES = 50
POOL = 60


class Workers:
    """Keeps ``PROCESSES`` workers running; what a killed one left is deleted as a runtime would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started = 0
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        name = f"worker{self.started}"
        self.started += 1
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.ipam.worker", self.directory, name, str(CYCLES)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill_one(self, later: float) -> str:
        """Kill one of them, so many seconds after it was seen to hold addresses, or to have ended."""
        name = random.choice(sorted(self.running))
        eventually(lambda: self.is_under_way(name), f"{name} holds an address")
        time.sleep(later)
        self.running[name].send_signal(signal.SIGKILL)
        return name

    def is_under_way(self, name: str) -> bool:
        return carries(self.directory / "kernel", name) or self.running[name].poll() is not None

    def end(self, name: str) -> tuple[int, str]:
        process = self.running.pop(name)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def kill_all(self) -> None:
        for process in self.running.values():
            process.kill()
            process.communicate()


def test_eight_processes_and_random_kills(node: Node) -> None:
    node.clock.now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ipam = node.ready(*range(5, 5 + POOL))
    (node.directory / "kernel").mkdir()
    workers = Workers(node.directory)
    killed = 0
    try:
        for _ in range(PROCESSES):
            workers.start()
        while workers.started < PROCESSES + 8:
            name = workers.kill_one(random.uniform(0, 0.05))
            code, said = workers.end(name)
            assert code in {0, -signal.SIGKILL}, said
            killed += code == -signal.SIGKILL
            for held in ipam.reservations():
                if held.attachment.container_id.startswith(f"{name}-"):
                    detach(node.directory / "kernel", held.attachment.container_id)
                    release(ipam, held.attachment)
            workers.start()
        for name in sorted(workers.running):
            code, said = workers.end(name)
            assert code == 0, said
    finally:
        workers.kill_all()
    assert killed > 3
    assert ipam.reservations() == ()
    assert list((node.directory / "kernel").iterdir()) == []
    node.clock.now = time.clock_gettime(time.CLOCK_BOOTTIME) + COOLDOWN
    assert counts(ipam, COOLDOWN) == PoolCounts(free=POOL, assigned=0, cooling=0, quarantined=0)


def test_a_hundred_processes_at_once_on_a_node_that_was_just_started(node: Node) -> None:
    """They make the store together; each gets an address, each another one."""
    node.clock.now = time.clock_gettime(time.CLOCK_BOOTTIME)
    reading, writing = os.pipe()
    children = [fork_one(node, number, writing) for number in range(100)]
    os.close(writing)
    with os.fdopen(reading) as pipe:
        given = [line.split() for line in pipe]
    for child in children:
        os.waitpid(child, 0)
    assert sorted(int(number) for number, _ in given) == list(range(100))
    assert len({ip for _, ip in given}) == 100
    assert [path.name for path in node.run_dir.glob("*corrupt*")] == []


def fork_one(node: Node, number: int, writing: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        ipam = node.ready(*range(5, 105))
        made = reserve(ipam, attachment(f"pod-{number}"), owner(), ANY)
        os.write(writing, f"{number} {made.ip}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the child must not run on as pytest
        os.write(writing, f"{number} {type(error).__name__}:{error}\n".replace(" ", "_").encode())
    os._exit(0)


def test_sixteen_threads_of_one_process(node: Node) -> None:
    ipam = node.ready(*range(5, 25))
    failures: list[BaseException] = []
    exhausted: list[int] = []

    def pods(number: int) -> None:
        try:
            for turn in range(40):
                me = attachment(f"pod-{number}-{turn}")
                try:
                    made = reserve(ipam, me, owner(), ANY)
                except PoolExhausted:
                    exhausted.append(number)
                    continue
                found = find(ipam, made.ip)
                assert found is not None
                assert found.attachment == me
                confirm(ipam, made)
                assert release(ipam, me) is not None
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=pods, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert counts(ipam, 0) == PoolCounts(free=20, assigned=0, cooling=0, quarantined=0)
    assert counters(ipam)["exhausted ipv4"] == len(exhausted)
