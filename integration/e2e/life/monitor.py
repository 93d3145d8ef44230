"""Keeping an eye on pods all the time: no two of a node with one address, none that loses a packet.

Owns the two watches. They look at the kernel: what the API server says of an address is older. Must not
know what happens meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster import wait_until
from integration.fabric import namespaces as ns
from integration.fabric import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import IO, Self

    from integration.fabric import Machine

_SIOCGIFADDR = 0x8915
_PAUSE = 0.1
_INTERVAL = "0.05"
"""Seconds between two packets: so long may a pod have no network without anybody noticing."""
_NETNS = "/run/netns"
_PATIENCE = 60.0


def addresses(machine: Machine) -> dict[str, str]:
    """What the eth0 of every pod of a node carries now: path of the namespace in the node → address."""
    folder = Path(f"/proc/{machine.holder_pid}/root{_NETNS}")
    found: dict[str, str] = {}

    def look() -> None:
        for name in os.listdir(folder):  # noqa: PTH208 - names, and many times a second
            with contextlib.suppress(OSError):  # it is being made, or goes
                fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    sc.setns(fd, sc.CLONE_NEWNET)
                finally:
                    os.close(fd)
                found[f"{_NETNS}/{name}"] = _of_eth0()

    with contextlib.suppress(FileNotFoundError):  # a boot, before its first pod
        ns.in_thread(look)
    return found


def _of_eth0() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", b"eth0"))
    return socket.inet_ntoa(answer[20:24])


class Doubles:
    """Looks for one address in two pods of a node; a context manager, ``failures`` says what it saw."""

    def __init__(self, machines: Iterable[Machine]) -> None:
        self.failures: list[str] = []
        self.looks = 0
        self._machines = list(machines)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doubles")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_PAUSE):
            for machine in self._machines:
                seen = addresses(machine)
                for address in {a for a in seen.values() if list(seen.values()).count(a) > 1}:
                    # Not one after the other while it was looked: both have it still.
                    again = [path for path, a in addresses(machine).items() if a == address and path in seen]
                    if len(again) > 1:
                        said = f"{machine.name}: {address} is in {' and '.join(sorted(again))}"
                        self.failures += [said] if said not in self.failures else []
            self.looks += 1


class Line:
    """Somebody who pings somebody else without a pause; a context manager, then `lost` says what came of it.

    Args:
        machine: where it starts.
        address: whom.
        netns: path of a pod's namespace in that machine; empty: the machine's own.
    """

    def __init__(self, machine: Machine, address: str, netns: str = "") -> None:
        self.name = f"{machine.name} {netns.rpartition('/')[2]} -> {address}"
        self._machine = machine
        enter = ["nsenter", f"--net={netns}", "--"] if netns else []
        self._argv = [*enter, "busybox", "ping", "-i", _INTERVAL, address]
        self._log: IO[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._said = ""

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        self._process = self._machine.popen(self._argv, stdout=self._log, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._log is not None
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._log.seek(0)
        self._said = self._log.read()
        self._log.close()

    @property
    def answers(self) -> int:
        """How many packets were answered until now."""
        assert self._log is not None
        # The position of the file is ping's as well: reading must not move it.
        return os.pread(self._log.fileno(), 1 << 20, 0).count(b" seq=")

    @property
    def lost(self) -> list[str]:
        """The packets without an answer; the last one may have been on its way."""
        came = {int(number) for number in re.findall(r" seq=(\d+) ", self._said)}
        sent = re.search(r"(\d+) packets transmitted", self._said)
        if sent is None or not came:
            return [f"{self.name}: no answer at all: {self._said.strip()[-300:]}"]
        missing = sorted(set(range(int(sent[1]) - 1)) - came)
        return [f"{self.name}: {len(missing)} of {sent[1]} lost, {missing[:10]}…"] if missing else []


class Lines:
    """Many lines at once; ``failures`` after the block."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        self.failures: list[str] = []
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for line in self.lines:
                undo.enter_context(line)
            self._undo = undo.pop_all()
        return self

    def await_answers(self, count: int) -> None:
        """Wait until every line had so many answers. Raises ClusterError."""
        wait_until(
            f"{count} answers on every line",
            lambda: all(line.answers >= count for line in self.lines),
            patience=_PATIENCE,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
        self.failures += [said for line in self.lines for said in line.lost]
