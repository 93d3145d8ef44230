"""Processes started as a container runtime starts a plugin, and what each cost.

Owns starting, timing and reaping. It must not know what the programs do. The environment is given,
the configuration comes on stdin through a pipe, stdout is read to its end, the process is waited for:
that is what libcni does. One thread and one poll(2) serve any number of processes at a time, so that
the measuring takes as little of the machine as can be.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

PATIENCE_MS = 60_000
READ_BYTES = 1 << 16
Action = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """One process to be started."""

    argv: list[str]
    """The program's path, which is its name too, and its arguments."""
    environ: Mapping[str, str]
    stdin: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """What one process did."""

    seconds: float
    """From before it was started until it was reaped."""
    cpu: float
    """Processor seconds of it and of the processes it waited for (wait4(2))."""
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(slots=True)
class _Running:
    number: int
    pid: int
    started: float
    stdin: int
    stdout: int
    stderr: int
    output: bytearray


def run(calls: Sequence[Call], width: int = 1) -> tuple[float, list[Done]]:
    """Carry the calls out, ``width`` at a time; seconds for all of them, and each one's outcome.

    Raises:
        TimeoutError: one did not end within a minute; all that run are killed.
        OSError: a program can't be started.
    """
    outcomes: list[Done | None] = [None] * len(calls)
    waiting = list(enumerate(calls))[::-1]
    running: dict[int, _Running] = {}
    poll = select.poll()
    begun = perf_counter()
    try:
        while waiting or running:
            while waiting and len(running) < width:
                started = _start(*waiting.pop())
                running[started.stdout] = started
                poll.register(started.stdout, select.POLLIN)
            ready = poll.poll(PATIENCE_MS)
            if not ready:
                raise TimeoutError(f"a process did not end within {PATIENCE_MS // 1000} s")
            for fd, _ in ready:
                each = running[fd]
                if part := os.read(fd, READ_BYTES):
                    each.output += part
                    continue
                poll.unregister(fd)
                del running[fd]
                outcomes[each.number] = _reap(each)
    finally:
        for each in running.values():
            os.kill(each.pid, signal.SIGKILL)
            _reap(each)
    return perf_counter() - begun, [each for each in outcomes if each is not None]


def _start(number: int, call: Call) -> _Running:
    stdin, to_stdin = os.pipe2(os.O_CLOEXEC)
    stdout, to_stdout = os.pipe2(os.O_CLOEXEC)
    # A file, so that nobody has to read while it is written.
    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    os.write(to_stdin, call.stdin)
    os.close(to_stdin)
    actions: list[Action] = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, to_stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    started = perf_counter()
    try:
        pid = os.posix_spawn(call.argv[0], call.argv, call.environ, file_actions=actions)
    except BaseException:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        raise
    finally:
        os.close(to_stdout)
    return _Running(number, pid, started, stdin, stdout, stderr, bytearray())


def _reap(each: _Running) -> Done:
    _, status, usage = os.wait4(each.pid, 0)
    seconds = perf_counter() - each.started
    said = os.pread(each.stderr, READ_BYTES, 0)
    for fd in (each.stdin, each.stdout, each.stderr):
        os.close(fd)
    code = os.waitstatus_to_exitcode(status)
    return Done(seconds, usage.ru_utime + usage.ru_stime, code, bytes(each.output), said)
