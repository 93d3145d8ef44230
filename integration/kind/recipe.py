"""docs/kind.md as a program: the commands that a person reads there are those that run.

Owns reading the page and running what it says, with the output in a log. Must not know what it says.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.kind.places import LOGS, ROOT, KindError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PAGE = ROOT / "docs" / "kind.md"
LOG = LOGS / "recipe.log"
_SHOWN = 15
"""Lines of output in an error."""


@dataclass(frozen=True, slots=True)
class Step:
    """One heading of the page with the commands below it."""

    title: str
    script: str


def steps(section: str, page: str | None = None) -> list[Step]:
    """The steps of a section: its own commands, or those of the headings in it.

    Raises:
        KindError: the page has no such section, or it has no commands.
    """
    text = PAGE.read_text(encoding="utf-8") if page is None else page
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KindError(f"{PAGE.name} has no section '{section}'")
    parts = re.split(r"^### (.+)\n", found[1], flags=re.MULTILINE)
    titled = [(section, parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    commands = [
        (title, re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)) for title, body in titled
    ]
    made = [Step(title, "".join(blocks)) for title, blocks in commands if blocks]
    if not made:
        raise KindError(f"{PAGE.name}: section '{section}' has no commands")
    return made


def run(step: Step, environment: Mapping[str, str], each_line: Callable[[str], None] = lambda _: None) -> str:
    """Run a step's commands as a shell does that stops at the first failure; returns what they printed.

    ``each_line`` gets the output as it comes.

    Raises:
        KindError: a command failed; the message ends with what was printed last.
    """
    LOG.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"### {step.title}\n")
        process = subprocess.Popen(
            ["sh", "-euc", step.script],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that it can be ended with what it started
        )
        try:
            with process:
                for line in process.stdout or ():
                    log.write(line)
                    log.flush()
                    lines.append(line)
                    each_line(line.rstrip("\n"))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode:
        tail = "".join(lines[-_SHOWN:]).rstrip()
        raise KindError(f"'{step.title}' of docs/{PAGE.name} failed; all it printed: {LOG}\n{tail}")
    return "".join(lines)
