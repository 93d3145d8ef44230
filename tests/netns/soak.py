"""Thousands of pods that come and go, spoken to the agent directly: no executable is started for each.

Owns the callers, and what the agent's process uses. It must not know what that should be.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.netns import wire
from tests.netns.node import NETCONF, Node
from tests.netns.ways import SOCKET

CALLERS = 16
QUIET_SECONDS = 4.0
"""Threads that were started for a load end when they had nothing to do for less than that."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a process uses."""

    kib: int
    descriptors: int
    threads: int


class Soak:
    """Callers on one node, each with a namespace of its own."""

    def __init__(self, node: Node, agent: int) -> None:
        self._node = node
        self._agent = agent
        node.sandbox.new_pods(f"soak-{number}" for number in range(CALLERS))
        self._runs = 0
        self.failures: list[str] = []

    def run(self, cycles: int) -> None:
        """That many ADDs, each followed by its DEL, of containers that there never were before."""
        self._runs += 1
        self.failures += self._node.sandbox.ask(lambda: _blow(cycles, f"soak-{self._runs}"))

    def size(self) -> Size:
        """What the agent uses now."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self._agent}/status").read_text().splitlines()
        )
        return Size(
            kib=int(status["VmRSS"].split()[0]),
            descriptors=len(list(Path(f"/proc/{self._agent}/fd").iterdir())),
            threads=int(status["Threads"]),
        )

    def settled_size(self) -> Size:
        """What the agent uses once the threads that a load needed have ended."""
        fewest, since = self.size().threads, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.2)
            threads = self.size().threads
            if threads < fewest:
                fewest, since = threads, time.monotonic()
        return replace(self.size(), threads=fewest)


def _blow(cycles: int, name: str) -> list[str]:
    failures: list[str] = []
    threads = [
        threading.Thread(target=_one_caller, args=(number, cycles // CALLERS, name, failures))
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures[:10]


def _one_caller(number: int, cycles: int, name: str, failures: list[str]) -> None:
    netns = f"/run/netns/soak-{number}"
    stdin = json.dumps({**NETCONF, "ipam": {**NETCONF["ipam"], "cooldown": 0}}).encode()
    for cycle in range(cycles):
        container = f"{name}-{number}-{cycle}"
        environ = {"CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
        for verb in ("ADD", "DEL"):
            fd = os.open(netns, os.O_RDONLY)
            try:
                answer = wire.ask(SOCKET, {**environ, "CNI_COMMAND": verb}, stdin, fd)
            finally:
                os.close(fd)
            if answer.kind or answer.code:
                failures.append(f"{verb}: {answer}")
                return
