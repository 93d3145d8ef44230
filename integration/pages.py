"""Pages of docs/ as programs: their commands are run in order, and what they print is compared.

In a ``console`` block a line that begins with ``# `` is a command of root's, one that begins with ``> ``
continues it, and what follows is what it prints; a line ``...`` stands for any lines. Commands after ``$ ``
are typed elsewhere and are not run here. Owns reading a page, running a shell, and ``VARIES``: what of an
output is different each time. It must not know what any page is about.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "end-of-what-was-printed"
SECONDS = 60.0
READS = ("azvnet show", "ip -", "ip route show", "on ip", "on /opt/cni/bin/azvnet show")
"""Beginnings of commands that only look. The kernel finishes some things by itself after a command (IPv6
link-local addresses): these are run again until they print what the page says."""

Varies = tuple[tuple[re.Pattern[str], str], ...]
VARIES: Varies = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, \w+ ago"), "TIME"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "CALL"),
    (re.compile(r"(?<=index )\d+(?=, MTU)"), "INDEX"),
    (re.compile(r"00:0d:3a(:[0-9a-f]{2}){3}"), "NIC"),
    (re.compile(r"\b(reachable|stale|delay|probe)\b"), "LEARNED"),
    (re.compile(r"link-netnsid \d+"), "link-netnsid N"),
    (re.compile(r" (group default )?qlen \d+"), ""),
    (re.compile(r" tentative"), ""),
    (re.compile(r"[ \t]+"), " "),
)
"""What of an output is different each time or on another machine, and what stands for it: times, calls, the
index and MAC of a NIC, how fresh a learned neighbour is, what ``ip`` adds. Names, MACs and indexes of a pod's
two ends are not: they are derived from the names of pod and container."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page."""

    text: str
    prints: tuple[str, ...]


def commands(text: str) -> Iterator[Command]:
    """Root's commands of a page, or of a part of it, in order, with what they print."""
    for block in BLOCK.findall(text):
        for part in re.split(r"^(?=[#$] )", block, flags=re.MULTILINE):
            lines = part.splitlines()
            if not lines or not lines[0].startswith("# "):
                continue
            rest = lines[1:]
            more = next((n for n, line in enumerate(rest) if not line.startswith("> ")), len(rest))
            text = "\n".join([lines[0][2:], *(line[2:] for line in rest[:more])])
            yield Command(text, tuple(rest[more:]))


def normal(lines: Sequence[str], varies: Varies = VARIES) -> list[str]:
    """Lines without what varies, and without empty ones."""
    text = "\n".join(lines)
    for pattern, replacement in varies:
        text = pattern.sub(replacement, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def as_shown(shown: Sequence[str], printed: Sequence[str], varies: Varies = VARIES) -> bool:
    """Whether what was printed is what a page shows."""
    parts = [re.escape(line) if line != "..." else r"(?:.*\n)*?.*" for line in normal(shown, varies)]
    return re.fullmatch("\n".join(parts), "\n".join(normal(printed, varies))) is not None


class Shell:
    """A shell that runs one command after the other, in network and mount namespaces of its own."""

    def __init__(
        self, environ: Mapping[str, str], enter: Sequence[str] = (), varies: Varies = VARIES
    ) -> None:
        self._varies = varies
        # Whatever a page does wrong, it does not do to this machine.
        own = ["unshare", "--net", "--mount", "--propagation", "private", "bash", "--norc"]
        self._process = subprocess.Popen(
            list(enter) or own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=DOCS.parent,
            env={**environ, "LC_ALL": "C.UTF-8"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, command: str) -> tuple[int, list[str]]:
        """The exit code of a command, and the lines that it printed on both streams."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\nprintf '\\n{MARK} %d\\n' $?\n".encode())
        self._process.stdin.flush()
        printed = self._read()
        text, _, code = printed.rpartition(f"\n{MARK} ")
        return int(code), text.splitlines()

    def follow(self, command: Command) -> None:
        """Run a command of a page. Raises AssertionError when it fails, or prints something else."""
        until = time.monotonic() + SECONDS
        while True:
            code, printed = self.run(command.text)
            fits = code == 0 and as_shown(command.prints, printed, self._varies)
            if fits or not command.text.startswith(READS) or time.monotonic() > until:
                break
        said, wanted = ("\n".join(normal(lines, self._varies)) for lines in (printed, command.prints))
        assert fits, f"{command.text}\nended with {code} and printed\n{said}\ninstead of\n{wanted}"

    def _read(self) -> str:
        assert self._process.stdout is not None
        fd, received = self._process.stdout.fileno(), b""
        until = time.monotonic() + SECONDS
        while not re.search(rb"\n%s \d+\n$" % MARK.encode(), received):
            ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(fd, 1 << 16) if ready else b""
            assert piece, f"the shell ended, or did not end a command within {SECONDS:g} s: {received!r}"
            received += piece
        return received.decode(errors="replace")
