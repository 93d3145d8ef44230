"""Executing a bundle in place, as a runtime would: one that can't be executed is never switched to."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cni_plugin.install.place import Refused

SECONDS = 60
NO_AGENT = {"AZVNET_RUN_DIR": "/nonexistent/azvnet"}
"""So that it answers itself: a running agent may be of another version."""
_VERSION = re.compile(r"azvnet ([0-9A-Za-z.+_-]{1,64})\n")


def require_answer(program: Path) -> None:
    """Whether it answers VERSION (CNI specification 1.1.0, section 4).

    Raises:
        Refused: it does not, with the reason.
    """
    done = _run(program, {"CNI_COMMAND": "VERSION", **NO_AGENT}, ())
    try:
        answer = json.loads(done.stdout)
        understood = done.returncode == 0 and "1.0.0" in answer["supportedVersions"]
    except (ValueError, KeyError, TypeError):
        understood = False
    if not understood:
        raise Refused(
            f"{program} does not answer VERSION: exit code {done.returncode}, {_output(done)}",
            "The bundle is for another system: it needs glibc 2.35 or newer.",
        )


def version(program: Path) -> str:
    """The version that a bundle reports. Raises Refused: it reports none."""
    done = _run(program, NO_AGENT, ("--version",))
    match = _VERSION.fullmatch(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or match is None:
        raise Refused(f"{program} does not report its version: {_output(done)}", "The bundle is damaged.")
    return match[1]


def _run(
    program: Path, environ: Mapping[str, str], arguments: tuple[str, ...]
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [program, *arguments],
            env=environ,
            input=b'{"cniVersion":"1.1.0"}',
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{program} did not answer in {SECONDS} s", "Look at the load of the node.") from error
    except OSError as error:
        raise Refused(f"{program} can't be executed: {error.strerror}", _remedy(error, program)) from error


def _remedy(error: OSError, program: Path) -> str:
    if error.errno == errno.ENOEXEC:
        return "The bundle is for another architecture."
    if error.errno in {errno.EACCES, errno.EPERM}:
        if is_noexec(program.parent):
            return "Its file system is mounted noexec: remount it, or install with another --prefix."
        return "A security module (SELinux, AppArmor, fapolicyd) forbids it: see its log."
    return "The bundle is damaged: install it again."


def is_noexec(directory: Path) -> bool:
    """Whether nothing can be executed from the directory's file system."""
    return bool(os.statvfs(directory).f_flag & os.ST_NOEXEC)


def _output(done: subprocess.CompletedProcess[bytes]) -> str:
    words = (done.stderr or done.stdout).decode(errors="replace").strip()
    return repr(words[-200:]) if words else "no output"
