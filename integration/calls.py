"""CNI calls as a container runtime makes them: a real process with environment and stdin.

Owns what a caller sees of a plugin. Must not know which plugin it is.
Source: CNI specification 1.1.0, sections 2 and 4.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from integration.plugins import BIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.fabric import Machine


class CallError(Exception):
    """A call that was expected to succeed did not, or printed what is no JSON document."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one process did."""

    what: str
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    """Wall time of the whole process."""

    @property
    def ok(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.exit_code == 0

    def done(self) -> Outcome:
        """This outcome. Raises CallError when it is a failure."""
        if not self.ok:
            raise CallError(
                f"{self.what} ended with {self.exit_code}: {self.stdout.strip()} {self.stderr.strip()}"
            )
        return self

    @property
    def result(self) -> dict[str, Any]:
        """The document that a successful call printed. Raises CallError."""
        return self.done().document

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object on stdout. Raises CallError."""
        try:
            document = json.loads(self.stdout)
        except ValueError as error:
            raise CallError(
                f"{self.what} printed no JSON ({error}): {self.stdout!r} {self.stderr!r}"
            ) from error
        if not isinstance(document, dict):
            raise CallError(f"{self.what} printed no JSON object: {self.stdout!r}")
        return document


def run(node: Machine, argv: list[str], *, env: Mapping[str, str] | None = None, stdin: str = "") -> Outcome:
    """Run a program in a node and time it."""
    started = time.monotonic()
    done = node.run(argv, input=stdin, env=env, check=False, timeout=60)
    return Outcome(" ".join(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def call(
    node: Machine,
    command: str,
    netconf: Mapping[str, Any],
    *,
    container_id: str,
    netns: str = "",
    ifname: str = "eth0",
    args: str = "",
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """One CNI command to the plugin that ``netconf`` names, without a library in between."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_IFNAME": ifname,
        "CNI_PATH": BIN,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        **({"CNI_NETNS": netns} if netns else {}),
        **({"CNI_ARGS": args} if args else {}),
        **(env or {}),
    }
    return run(node, [f"{BIN}/{netconf['type']}"], env=variables, stdin=json.dumps(netconf))


def cnitool(
    node: Machine,
    command: str,
    network: str,
    netns: str,
    *,
    ifname: str = "eth0",
    args: str = "",
    capabilities: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """One command of cnitool, so libcni with its cache of results, in a node."""
    from integration.tools import tools

    variables = {
        "CNI_PATH": BIN,
        "CNI_IFNAME": ifname,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        **({"CNI_ARGS": args} if args else {}),
        **({"CAP_ARGS": json.dumps(capabilities)} if capabilities else {}),
        **(env or {}),
    }
    return run(node, [str(tools() / "cnitool"), command, network, netns], env=variables)
