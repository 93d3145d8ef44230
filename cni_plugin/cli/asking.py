"""Querying a running agent for the command line, and distinguishing a dead one from one that hangs.

It must not know the store or the kernel, which are read without an agent.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from cni_plugin import checks
from ipam.model import DEFAULT_COOLDOWN_SECONDS
from ipam.value import Value

SECONDS = 2.0
AGENT_SOCKET, HTTP_SOCKET = "agent.sock", "http.sock"
RUNNING, NONE, HANGS, FORBIDDEN = "running", "none", "hangs", "forbidden"
UCRED = struct.Struct("=iII")
"""struct ucred of unix(7): pid, uid, gid."""


class AgentSeen(Value):
    """The agent as a caller finds it."""

    state: str
    """``running``, ``none``, ``hangs`` (it has the socket and does not answer), ``forbidden`` (not root)."""
    socket: str
    pid: int = 0
    """0: not known."""
    version: str = ""
    protocol: int = 0
    started: float = 0.0
    """Seconds since the epoch; 0: not known."""
    settings: str = ""
    """The file of its settings; empty: it has the defaults."""
    ready: bool = False
    reason: str = ""
    """Why it is not ready, or what is wrong with it."""
    warnings: tuple[str, ...] = ()
    provision: str = ""
    """How the NIC's addresses follow demand, in words; empty: they are not provisioned."""
    cooldown: float = DEFAULT_COOLDOWN_SECONDS
    """Cooldown of a released address in seconds, as the agent has it."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__match_args__}


def _provision_words(shown: dict[str, Any] | None) -> str:
    """An older agent shows nothing, or less."""
    if not shown:
        return ""
    words = f"{shown['state']}: {shown['text']}"
    if coming := shown.get("coming"):
        words += f"; {coming} {'pods are' if coming > 1 else 'pod is'} scheduled here without an address yet"
    if unseen := shown.get("unseen"):
        words += f"; {checks.UNSEEN}: {unseen}"
    return words


def ask_agent(run_dir: Path) -> AgentSeen:
    """The agent's state, within a few seconds."""
    path = run_dir / AGENT_SOCKET
    try:
        pid = _listener(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return AgentSeen(NONE, str(path))
    except PermissionError:
        return AgentSeen(FORBIDDEN, str(path), reason="only root can read the state directory")
    except OSError as error:
        return AgentSeen(
            HANGS, str(path), reason=f"it does not accept connections: {error.strerror or error}"
        )
    try:
        info = json.loads(get_page(run_dir / HTTP_SOCKET, "/info"))
        return AgentSeen(
            RUNNING,
            str(path),
            pid=pid or int(info["pid"]),  # in a container it has another pid
            version=str(info["version"]),
            protocol=int(info["protocol"]),
            started=float(info["started"]),
            settings=str(info["settings"]),
            ready=bool(info["ready"]),
            reason=str(info["reason"]),
            warnings=tuple(map(str, info["warnings"])),
            provision=_provision_words(info.get("provision")),
            cooldown=float(info["cooldown"]),
        )
    except TimeoutError:
        return AgentSeen(HANGS, str(path), pid, reason=f"it does not answer within {SECONDS:g} s")
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return AgentSeen(RUNNING, str(path), pid, reason=f"its page /info can't be read: {why}")


def get_page(path: Path, page: str) -> bytes:
    """The body of a page that the agent serves on a Unix socket. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(SECONDS)
        sock.connect(str(path))
        sock.sendall(f"GET {page} HTTP/1.1\r\nHost: azvnet\r\n\r\n".encode())
        reply = b""
        while received := sock.recv(1 << 16):
            reply += received
    return reply.partition(b"\r\n\r\n")[2]


def _listener(path: Path) -> int:
    """The process that listens; 0 where it is in a pid namespace that can't be seen from here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(SECONDS)
        sock.connect(os.fspath(path))
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid: int = UCRED.unpack(credentials)[0]
    return pid
