"""A long build beside the tests: it uses the processor time that they leave, and its output goes to a file.

Owns that process, from its start to its end. It must not know what is built, nor which tests need it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_IDLE = Path(__file__).with_name("idle.sh")
_LOOK_SECONDS = 0.5
_END_SECONDS = 10.0
"""Seconds that compilers get to remove unfinished files before they are killed."""
_LAST_LINES = 60


class Beside:
    """A command that runs while others do.

    A context manager: whatever ends the block ends the command and all that it has started.

    Args:
        name: of what is built, for people.
        command: what is run.
        log: the file for its output.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self._name = name
        self._command = command
        self._log = log
        self._shown = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [_IDLE, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # For idle.sh; and so that all its processes can be ended by one signal.
                start_new_session=True,
            )
        print(
            f"==> {self._name}: in the background, as the processors are free; its output: {self._log}",
            flush=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def failed(self) -> bool:
        """Whether it has ended with a failure."""
        return self._running.poll() not in (None, 0)

    @property
    def done(self) -> bool:
        """Whether it has ended successfully."""
        return self._running.poll() == 0

    def stands(self) -> str:
        """How far it is, in a line."""
        if self.failed:
            return f"{self._name}: FAILED with code {self._running.returncode}"
        return f"{self._name}: {'done' if self.done else self._last_line() or 'begun'}"

    def wait(self) -> bool:
        """Wait for the end, and print what it prints; returns whether it succeeded."""
        if self._running.poll() is None:
            print(f"==> {self._name}: what follows needs it", flush=True)
            self._shown = self._log.stat().st_size
            started = time.monotonic()
            while self._running.poll() is None:
                time.sleep(_LOOK_SECONDS)
                self._show_more()
            self._show_more()
            print(f"    {self._name}: waited for {time.monotonic() - started:.0f} s", flush=True)
        return self.done

    def why(self) -> str:
        """The end of its output, for when it has failed."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([*lines[-_LAST_LINES:], f"{self.stands()}; all its output: {self._log}"])

    def end(self) -> None:
        """End it with all its processes, if it still runs."""
        process = self._running
        if process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return lines[-2].strip() if len(lines) > 1 else ""

    def _show_more(self) -> None:
        with self._log.open("rb") as output:
            output.seek(self._shown)
            more = output.read()
        self._shown += len(more)
        sys.stdout.buffer.write(more)
        sys.stdout.flush()
