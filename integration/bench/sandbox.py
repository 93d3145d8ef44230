"""A contender in a place of its own, as the benchmark sees it.

Owns the process inside and the words with it. It must not know namespaces.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.bench.contenders import Contender

ROOT = Path(__file__).parents[2]


class SandboxError(Exception):
    """The place can't be made, or its process died; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one call took."""

    seconds: float
    cpu: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What several calls took together."""

    wall: float
    calls: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the agent has used since it started; bytes and seconds."""

    cpu: float
    idle_cpu: float
    """The same as ``cpu`` in finer steps, of the threads that live."""
    rss: int
    peak: int
    not_taken: int
    """Calls that somebody else than the agent carried out."""


class Sandbox:
    """One place with ``pods`` network namespaces to attach, numbered from 0."""

    def __init__(self, contender: Contender, pods: int) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.bench.inside"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        spec = {
            "program": _argv(contender),
            "netconf": contender.netconf,
            "cni_path": contender.cni_path,
            "files": contender.files,
            "pods": pods,
        }
        try:
            self._ask(spec)
        except BaseException:
            self.close()
            raise

    def start_agent(self) -> str:
        """Start the contender's agent; what is wrong with it, or an empty string."""
        return str(self._ask({"do": "start_agent", "argv": self.contender.agent}).get("said", ""))

    def become(self, contender: Contender) -> None:
        """Stop the agent and go on with another contender's program on the same state."""
        self._ask({"do": "stop_agent"})
        self.use(_argv(contender))
        self.contender = contender

    def use(self, program: list[str]) -> None:
        """Take another program, with arguments, for the calls from now on."""
        self._ask({"do": "use", "program": program})

    def calls(self, verb: str, pods: Sequence[int], width: int = 1) -> Batch:
        """One call for each of these pods, ``width`` at a time."""
        answer = self._ask({"do": "calls", "verb": verb, "pods": list(pods), "width": width})
        return Batch(answer["wall"], tuple(Timing(*row) for row in answer["calls"]))

    def usage(self) -> Usage:
        """What the agent has used."""
        return Usage(**self._ask({"do": "usage"}))

    def close(self) -> None:
        """End everything inside; the namespaces and what is in them go with it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise SandboxError(f"the place of {self.contender.name} ended with {code}; it needs root")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SandboxError(f"{self.contender.name}: {answer['error']}")
        return answer


def _argv(contender: Contender) -> list[str]:
    return [contender.program, *(("-I", "-S", "-c", "pass") if contender.verbs == ("VERSION",) else ())]
