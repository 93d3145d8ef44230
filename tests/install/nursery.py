"""Carries out command lines in forked processes, and kills them where it is told to.

Reads JSON lines from stdin: ``{"argv": [...], "step": N}`` kills at the N-th change or opening of a file
(``"begin": TEXT``: counted from the first that names it), ``{"argv": [...], "seconds": S}`` after a time,
neither: never. Answers each with the exit code (negative: a signal), the steps it took where it was not
killed, and what it wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from typing import Any, NoReturn

from cni_plugin import cli
from cni_plugin.cli import install, uninstall
from cni_plugin.install import installing, removing
from cni_plugin.node import Node

LOADED = (cli, install, uninstall, installing, removing, Node)
"""Before the forks, so that every one is quick."""
EVENTS = frozenset(
    {"open", "os.rename", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.utime"}
    | {"subprocess.Popen", "fcntl.flock", "shutil.rmtree"}
)


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if pid == 0:
                _child(asked, output.fileno())
            timer = threading.Timer(asked.get("seconds") or 0, os.kill, (pid, signal.SIGKILL))
            if asked.get("seconds") is not None:
                timer.start()
            _, status = os.waitpid(pid, 0)
            timer.cancel()
            if timer.is_alive():
                timer.join()
            output.seek(0)
            said = output.read().decode()
        text, _, steps = said.rpartition("\nsteps ") if "\nsteps " in said else (said, "", "")
        answer = {"code": os.waitstatus_to_exitcode(status), "steps": int(steps or 0), "said": text or said}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _child(asked: dict[str, Any], output: int) -> NoReturn:
    os.dup2(output, 1)
    os.dup2(output, 2)
    steps = 0
    begin = asked.get("begin") or ""

    def count(event: str, named: tuple[object, ...]) -> None:
        nonlocal steps, begin
        if event in EVENTS:
            if begin and not any(begin in str(each) for each in named):
                return
            begin = ""
            steps += 1
            if steps == asked.get("step"):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    code = 120
    with contextlib.suppress(SystemExit):
        code = cli.run(asked["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(1, f"\nsteps {steps}".encode())
    os._exit(code)


if __name__ == "__main__":
    main()
