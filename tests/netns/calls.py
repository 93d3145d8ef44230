"""Calls as a container runtime makes them, and what came of them.

Owns how a call is started: the executable under test as a process of its own, or, for the hundreds of calls
that one test makes, a fork of this process that runs the same entry without paying the interpreter's start
each time. It must not know what a verb does, only what the contract promises of every call.
"""

from __future__ import annotations

import json
import os
import posix
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.netns.sandbox import Forked, Sandbox
from tests.waiting import eventually, has_stopped

SILENT = ("CHECK", "DEL", "GC", "STATUS")
"""Verbs whose success prints nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call came to."""

    verb: str
    exit_code: int
    """Negative: it was ended by that signal."""
    stdout: bytes
    stderr: str
    seconds: float
    """From its start until it was waited for."""

    @property
    def ok(self) -> bool:
        """Whether it says that it succeeded."""
        return self.exit_code == 0

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict), self
        return document

    @property
    def result(self) -> dict[str, Any]:
        """The document of a call that has to have succeeded."""
        self.done()
        return self.document

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a call that has to have failed."""
        assert self.exit_code > 0, f"{self.verb} succeeded: {self.stdout!r}"
        return self.document

    @property
    def code(self) -> int:
        """The code of its error object."""
        return int(self.error["code"])

    @property
    def msg(self) -> str:
        """The ``msg`` of its error object."""
        return str(self.error["msg"])

    @property
    def address(self) -> str:
        """The first address of a result with ``ips``, without its prefix length."""
        return str(self.result["ips"][0]["address"]).split("/")[0]

    def done(self) -> Outcome:
        """This outcome, which has to be a success."""
        assert self.ok, f"{self.verb} ended with {self.exit_code}: {self.stdout.decode()} {self.stderr}"
        return self

    def check_contract(self) -> Outcome:
        """One JSON object or nothing on stdout, and an error object exactly when it failed (CNI spec)."""
        if self.exit_code < 0:
            assert not self.stdout or self.document, "killed, but not in the middle of its document"
        elif self.exit_code:
            document = self.document
            assert isinstance(document["code"], int), self
            assert document["code"] > 0, self
            assert document["msg"], self
            assert isinstance(document["cniVersion"], str), self
            assert "Traceback" not in self.stdout.decode() + self.stderr, self
        elif self.verb in SILENT:
            assert self.stdout == b"", self
        else:
            assert self.document["cniVersion"], self
        return self


class Process(Protocol):
    """What a ``subprocess.Popen`` and a ``Forked`` have in common."""

    pid: int

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def wait(self) -> int:
        """Wait for the exit code."""


class Running:
    """A call that was started. stdin, stdout and stderr are files in memory: nobody has to read along."""

    def __init__(self, verb: str, start: Callable[[int, int, int], Process], stdin: bytes) -> None:
        self._verb = verb
        self._out, self._err = os.memfd_create("stdout"), os.memfd_create("stderr")
        given = os.memfd_create("stdin")
        try:
            os.write(given, stdin)
            os.lseek(given, 0, os.SEEK_SET)
            self._started = time.monotonic()
            self._process = start(given, self._out, self._err)
        finally:
            os.close(given)

    @property
    def pid(self) -> int:
        """The process that a runtime would see."""
        return self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs. After SIGSTOP it has stopped or ended when this returns."""
        if not self.over:
            os.kill(self.pid, number)
            if number == signal.SIGSTOP:
                eventually(lambda: self.over or has_stopped(self.pid), "the call has stopped")

    def kill(self) -> Outcome:
        """SIGKILL, and what it had come to by then."""
        self.signal(signal.SIGKILL)
        return self.finish()

    def finish(self) -> Outcome:
        """Wait for its end. Raises AssertionError when stdout is not what the contract allows."""
        code = self._process.wait()
        seconds = time.monotonic() - self._started
        printed, said = (os.pread(fd, 1 << 20, 0) for fd in (self._out, self._err))
        os.close(self._out)
        os.close(self._err)
        return Outcome(self._verb, code, printed, said.decode(errors="replace"), seconds).check_contract()


class Caller(Protocol):
    """A way to start a call."""

    def start(self, sandbox: Sandbox, environ: Mapping[str, str], stdin: bytes, *, as_ipam: bool) -> Running:
        """Start a call with exactly this environment and stdin."""


@dataclass(frozen=True, slots=True)
class Executable:
    """The executable under test, as a process of its own."""

    program: Path
    environ: Mapping[str, str]
    """What it needs in its environment when it is run from source."""

    def start(self, sandbox: Sandbox, environ: Mapping[str, str], stdin: bytes, *, as_ipam: bool) -> Running:
        """Start a call with exactly this environment and stdin."""
        name = "azvnet-ipam" if as_ipam else "azvnet"

        def popen(given: int, out: int, err: int) -> subprocess.Popen[bytes]:
            stdio = [os.fdopen(os.dup(fd), "r+b", buffering=0) for fd in (given, out, err)]
            try:
                return sandbox.popen(
                    [str(self.program.with_name(name))],
                    executable=self.program,
                    env={**self.environ, **environ},
                    stdin=stdio[0],
                    stdout=stdio[1],
                    stderr=stdio[2],
                )
            finally:
                for each in stdio:
                    each.close()

        return Running(environ.get("CNI_COMMAND", ""), popen, stdin)

    def command(self, sandbox: Sandbox, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``azvnet ARGV`` on the node, as a person does, to its end."""
        whole = [str(self.program), *argv]
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        process = sandbox.popen(whole, env={**path, **environ, **self.environ})
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(whole, process.returncode, out.decode(), err.decode())


class Engine:
    """The same entry in a fork of this process: real processes, real kernel, no interpreter to start."""

    def start(self, sandbox: Sandbox, environ: Mapping[str, str], stdin: bytes, *, as_ipam: bool) -> Running:
        """Start a call with exactly this environment and stdin."""

        def work() -> int:
            from cni_plugin.entry import main

            raw = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
            raw.setdefault(b"AZVNET_AGENT", b"none")
            posix.environ.clear()
            posix.environ.update(raw)
            os.environ.clear()
            os.environ.update({os.fsdecode(name): os.fsdecode(value) for name, value in raw.items()})
            sys.argv = ["azvnet-ipam" if as_ipam else "azvnet"]
            return main()

        def fork(given: int, out: int, err: int) -> Forked:
            return sandbox.fork(work, stdin=given, stdout=out, stderr=err)

        return Running(environ.get("CNI_COMMAND", ""), fork, stdin)


def preload() -> None:
    """Import now what every forked call would import by itself."""
    import importlib

    for name in (
        *(f"cni_plugin.verbs.{verb}" for verb in ("add", "check", "delete", "gc", "status")),
        "cni_plugin.entry",
        "cni_plugin.process",
        "ipam.store",
        "ipam.sources.file",
        "sqlite3",
    ):
        importlib.import_module(name)
