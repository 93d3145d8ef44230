"""Network namespaces and programs in them, for a process that has threads.

``setns`` concerns one thread only, so every step into a namespace is a short-lived thread: what it
made there (a socket, a child process) stays there, and nothing else of this process ever moves.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from integration.fabric import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_CARRIER_PATIENCE = 10.0
"""Seconds; it takes milliseconds, a bridge up to one second."""


class ToolError(RuntimeError):
    """``ip`` or ``nft`` refused what it was given; the message holds its words."""


def in_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread of its own and give back its result or its exception."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def new_network_namespace() -> int:
    """A descriptor that keeps a new network namespace alive; nothing else does."""

    def make() -> int:
        sc.unshare(sc.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


def in_network(netns: int, function: Callable[[], T]) -> T:
    """Run a function in a network namespace: sockets that it opens stay there."""

    def body() -> T:
        sc.setns(netns, sc.CLONE_NEWNET)
        return function()

    return in_thread(body)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Descriptors of the namespaces of one boot of a node."""

    net: int
    mnt: int
    uts: int
    pid: int

    @classmethod
    def of(cls, pid: int) -> Namespaces:
        """The namespaces of a process. Raises OSError if it is gone."""
        return cls(
            *(
                os.open(f"/proc/{pid}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC)
                for n in ("net", "mnt", "uts", "pid")
            )
        )

    def close(self) -> None:
        """Let the namespaces go."""
        for fd in (self.net, self.mnt, self.uts, self.pid):
            os.close(fd)

    def enter(self) -> None:
        """Move the calling thread in, for good; children that it starts are born in there."""
        sc.unshare(sc.CLONE_FS)  # a thread that shares its root with others can't change it
        sc.setns(self.net, sc.CLONE_NEWNET)
        sc.setns(self.uts, sc.CLONE_NEWUTS)
        sc.setns(self.pid, sc.CLONE_NEWPID)
        sc.setns(self.mnt, sc.CLONE_NEWNS)


def spawn(namespaces: Namespaces, start: Callable[[], subprocess.Popen[T]]) -> subprocess.Popen[T]:  # type: ignore[type-var]
    """Start a process inside; its pid is the program's own, as seen from here."""

    def body() -> subprocess.Popen[T]:  # type: ignore[type-var]
        namespaces.enter()
        return start()

    return in_thread(body)


def write_sysctls(netns: int, values: Mapping[str, str | int]) -> None:
    """Set ``net.*`` sysctls of a network namespace, in the order given. Raises OSError."""

    def body() -> None:
        for name, value in values.items():
            Path("/proc/sys", *name.split("/")).write_text(f"{value}\n", encoding="ascii")

    in_network(netns, body)


def ip_batch(netns: int, lines: Sequence[str], *, force: bool = False) -> None:
    """Run ``ip -batch`` in a network namespace; ``force`` goes on after an error and hides it.

    Raises:
        ToolError: with what ``ip`` said and the line it failed on.
    """
    if not lines:
        return
    argv = ["ip", "-force", "-batch", "-"] if force else ["ip", "-batch", "-"]
    done = run_in_network(netns, argv, stdin="\n".join(lines) + "\n")
    if done.returncode != 0 and not force:
        raise ToolError(f"ip -batch: {done.stderr.strip()}\n{_failed_line(done.stderr, lines)}")


def await_links(netns: int, names: Sequence[str]) -> None:
    """Wait until links in a network namespace are up and can send.

    The end of a cable that was set up first starts to send only when the kernel's link watch got round
    to it; what is sent before is lost. Raises ToolError when it takes too long.
    """
    waiting = list(names)
    deadline = time.monotonic() + _CARRIER_PATIENCE
    while waiting:
        # Asking for one link makes the kernel bring its state up to date (Linux 6.8 and later).
        batch = "".join(f"link show dev {name}\n" for name in waiting)
        done = run_in_network(netns, ["ip", "-brief", "-batch", "-"], stdin=batch)
        states = [line.split() for line in done.stdout.splitlines()]
        up = {words[0].partition("@")[0] for words in states if words[1:2] == ["UP"]}
        waiting = [name for name in waiting if name not in up]
        if waiting and time.monotonic() > deadline:
            raise ToolError(f"no carrier on {', '.join(waiting)}: {done.stderr.strip()}")


def nft(netns: int, script: str) -> None:
    """Run one ``nft -f`` script, which is one transaction, in a network namespace.

    Raises:
        ToolError: with what ``nft`` said.
    """
    done = run_in_network(netns, ["nft", "-f", "-"], stdin=script)
    if done.returncode != 0:
        raise ToolError(f"nft: {done.stderr.strip()}")


def run_in_network(netns: int, argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of this machine in a network namespace, with this machine's files."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    process = in_network(netns, start)
    out, err = process.communicate(stdin)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _failed_line(stderr: str, lines: Sequence[str]) -> str:
    number = stderr.rpartition(":")[2].strip()
    return lines[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(lines) else ""
