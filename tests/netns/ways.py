"""The two ways in which the same tests are run, and what is executed in each.

``alone``: the executable handles a call itself. ``launcher``: it hands the call to a resident agent.

What is executed is the bundle in dist/azvnet, or another one that AZVNET_TEST_EXECUTABLE names, or, where
that is ``source`` or there is no bundle, the sources with the interpreter that runs the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.netns.calls import Caller, Engine, Executable
from tests.netns.sandbox import Sandbox
from tests.waiting import eventually, has_stopped

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "dist" / "azvnet"
SOCKET = "/run/azvnet/agent.sock"
SETTINGS = "/etc/azvnet/agent.json"
AGENT_SECONDS = 20.0
ACCEPTS_CONNECTIONS = "00010000"
"""The flag of a listening socket, __SO_ACCEPTCON."""


class Way(Enum):
    """Who handles a call."""

    ALONE = "alone"
    LAUNCHER = "launcher"


@dataclass(frozen=True, slots=True)
class Executables:
    """What stands for the product in this run: a bundle."""

    described: str
    bundle: Path
    environ: Mapping[str, str]
    """What it needs in its environment when it is run from source."""

    @property
    def python(self) -> Path:
        """The frozen Python."""
        return self.bundle / "azvnet-python"

    def caller(self) -> Executable:
        """What a runtime executes."""
        return Executable(self.bundle / "azvnet", self.environ)


def executables(scratch: Path) -> Executables:
    """What AZVNET_TEST_EXECUTABLE asks for; ``scratch`` is for what has to be built first."""
    asked = os.environ.get("AZVNET_TEST_EXECUTABLE", "")
    if asked == "source" or not (asked or (BUNDLE / "azvnet-python").exists()):
        return _from_source(scratch)
    bundle = Path(asked).resolve() if asked else BUNDLE
    for name in ("azvnet", "azvnet-python"):
        if not (bundle / name).is_file():
            raise FileNotFoundError(f"{bundle / name} does not exist: run make build")
    return Executables(str(bundle), bundle, {})


def _from_source(scratch: Path) -> Executables:
    """A bundle whose frozen Python is the interpreter of the tests."""
    subprocess.run([ROOT / "packaging/launcher/build.sh", scratch / "azvnet"], check=True)
    stand_in(scratch / "azvnet-python", ROOT)
    return Executables("the sources", scratch, {"PYTHONDONTWRITEBYTECODE": "1"})


def stand_in(target: Path, sources: Path) -> None:
    """Build what stands for the frozen Python, with the product's sources in a folder."""
    definitions = [f'-DPYTHON="{sys.executable}"', f'-DROOT="{sources}"']
    source = Path(__file__).with_name("stand_in.c")
    subprocess.run(["gcc", "-O2", "-Wall", *definitions, "-o", target, source], check=True)


def many(way: Way, chosen: Executables) -> Caller:
    """The caller for tests that make hundreds of calls: alone, the entry is forked instead of executed."""
    return Engine() if way is Way.ALONE else chosen.caller()


def connections(sandbox: Sandbox) -> list[bool]:
    """The agent's ends of its connections from inside the sandbox: whether it has accepted each of them.

    One from outside is listed in the network namespace of who connected.
    Source: unix(7), /proc/net/unix; the column St is 03, SS_CONNECTED, once there is a descriptor for it.
    """
    lines = [line.split() for line in Path(f"/proc/{sandbox.holder}/net/unix").read_text().splitlines()[1:]]
    ours = [words for words in lines if "/agent.sock" in words[-1] and words[3] != ACCEPTS_CONNECTIONS]
    return [words[5] == "03" for words in ours]


def pid_of_agent(sandbox: Sandbox) -> int:
    """Process id of the agent that answers at the socket, not of one that it took over from; 0: none does."""
    with socket.socket(socket.AF_UNIX) as attempt, contextlib.suppress(OSError):
        attempt.connect(str(sandbox.path(SOCKET)))
        return int(struct.unpack("=i", attempt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4))[0])
    return 0


class Agent:
    """The resident agent of one node."""

    def __init__(
        self,
        chosen: Executables,
        sandbox: Sandbox,
        settings: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._log = os.fdopen(os.memfd_create("agent"), "w+b", buffering=0)
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **chosen.environ, **(environ or {})}
        self._process = sandbox.popen(
            [str(chosen.python), "agent", *self._arguments(settings)],
            env=variables,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._await_socket()

    def _arguments(self, settings: Mapping[str, object] | None) -> list[str]:
        if settings is None:
            return []
        self._sandbox.write(SETTINGS, json.dumps(settings))
        return ["--config", SETTINGS]

    @property
    def pid(self) -> int:
        """Of the agent's process."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal. After SIGSTOP it has stopped when this returns."""
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            eventually(lambda: has_stopped(self.pid), "the agent has stopped")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def said(self) -> str:
        """What it printed so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self._process.terminate()
        try:
            self._process.wait(timeout=AGENT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._log.close()

    def _await_socket(self) -> None:
        try:
            eventually(
                lambda: self.over or pid_of_agent(self._sandbox) == self.pid,
                lambda: self.said() or "it listens",
                pause=0.01,
            )
            assert not self.over, f"the agent does not listen on {SOCKET}: {self.said()}"
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
