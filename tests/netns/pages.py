"""The agent's pages, asked for on its Unix socket.

Owns one request and its answer. It must not know what should be on a page.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tests.netns.sandbox import Sandbox

HTTP_SOCKET = "/run/azvnet/http.sock"
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page said."""

    status: int
    body: str


def get(sandbox: Sandbox, page: str) -> Answer:
    """A page of the agent's. Raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(str(sandbox.path(HTTP_SOCKET)))
        sock.sendall(f"GET {page} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
        reply = b""
        while received := sock.recv(1 << 16):
            reply += received
    head, _, body = reply.decode().partition("\r\n\r\n")
    return Answer(int(head.split(" ")[1]), body)


def works(sandbox: Sandbox) -> bool:
    """Whether an agent does all of its work: it has read the source, so each of its threads was started."""
    try:
        return get(sandbox, "/agentz").status == 200
    except OSError:
        return False
