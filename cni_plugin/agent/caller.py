"""The caller's side of the agent: one call, one connection, and what there was instead of a reply.

Owns reaching the agent and telling apart why it gave no reply; what to do then is the caller's business.
It is loaded in the frozen Python before anything else, so it imports next to nothing. The launcher
(packaging/launcher/launcher.c) does the same in C.
"""

from __future__ import annotations

from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, socket

from cni_plugin.agent.protocol import (
    AS_IPAM,
    CARRIED_OUT,
    MAX_PART,
    NOT_TAKEN,
    REPLY_HEADER,
    VERSION,
    Gone,
    Reply,
    Request,
    TooSlow,
    encode_environment,
    encode_request,
    limit,
    peer_uid,
    receive,
    send,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, Literal, TypeAlias

    Absence: TypeAlias = Literal["none", "lost", "hung"]

CONNECT_SECONDS: Final = 1
"""What is waited for while the agent's backlog is full."""


def ask(
    path: str,
    environ: Mapping[str, str] | Mapping[bytes, bytes],
    stdin: bytes,
    netns_fd: int | None,
    as_ipam: bool,  # noqa: FBT001 - one of the facts of a call, always passed by name
    deadline: float,
) -> Reply | Absence:
    """Have the agent carry a call out.

    Args:
        path: the agent's socket.
        environ: the whole environment; its ``AZVNET_CALL_ID`` names the call (``new_call_id``).
        stdin: what came on it, to its end.
        netns_fd: ``CNI_NETNS``, opened; None when it is not set or can't be opened.
        as_ipam: called by the name ``azvnet-ipam``.
        deadline: until when a reply is waited for (``time.monotonic``, seconds).

    Returns:
        The reply, or what there was instead: ``none`` (nobody took the call), ``lost`` (the agent died
        over it, perhaps after it was done) or ``hung`` (no reply until the deadline).
    """
    flags = AS_IPAM if as_ipam else 0
    request = Request(VERSION, flags, encode_environment(environ), stdin, netns_fd)
    if len(request.env) > MAX_PART or len(stdin) > MAX_PART:
        return "none"
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        return _converse(sock, path, request, deadline)
    finally:
        sock.close()


def _converse(sock: socket, path: str, request: Request, deadline: float) -> Reply | Absence:
    try:
        # As a socket option: a timeout of Python's makes connect fail at once when the backlog is full.
        limit(sock, SO_SNDTIMEO, CONNECT_SECONDS)
        sock.connect(path)
        if peer_uid(sock) != 0:
            return "none"
    except (OSError, ValueError):  # ValueError: NUL in the path
        return "none"
    taken = True
    try:
        send(sock, encode_request(request), deadline, request.netns_fd)
    except TooSlow:
        return "hung"
    except Gone:
        taken = False  # but it may have said why before it closed
    try:
        return _read_reply(sock, deadline if taken else 0.0)
    except TooSlow:
        return "hung" if taken else "none"
    except Gone:
        return "lost" if taken else "none"


def _read_reply(sock: socket, deadline: float) -> Reply | Absence:
    header = receive(sock, REPLY_HEADER.size, deadline)
    magic, version, kind, stdout_len, stderr_len, code = REPLY_HEADER.unpack(header)
    if magic != b"AZVR" or version != VERSION or kind == NOT_TAKEN:
        return "none"
    if kind != CARRIED_OUT or stdout_len + stderr_len > MAX_PART:
        return "lost"  # it may have been carried out, so it must be looked for before it is done again
    body = receive(sock, stdout_len + stderr_len, deadline)
    return Reply(body[:stdout_len], body[stdout_len:], code)
