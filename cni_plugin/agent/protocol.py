"""The agent's side of the protocol: docs/architecture.md, "Agent protocol, version 1".

Owns reading a request from a socket and writing the reply. The other side is the launcher
(packaging/launcher/launcher.c). It must not know what a call means.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import close
from socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_PEERCRED,
    SO_RCVTIMEO,
    SOL_SOCKET,
    socket,
)
from struct import Struct
from typing import Final

from cni_plugin.cni.call import MOST_STDIN_BYTES
from ipam.value import Value

VERSION: Final = 1
AS_IPAM: Final = 1
"""Flag of a request: called by the name ``azvnet-ipam``."""
NETNS_ATTACHED: Final = 2
"""Flag of a request: a descriptor of the namespace is attached."""
HANDLED: Final = 0
"""Kind of a reply: the call was handled, successfully or not."""
NOT_TAKEN: Final = 1
"""Kind of a reply: the caller is to handle the call itself."""

MAX_PART: Final = MOST_STDIN_BYTES
"""Most bytes of an environment, of a stdin, and of stdout and stderr together; LIMIT of the launcher."""

_REQUEST_HEADER = Struct("<4sHHII8x")
_REPLY_HEADER = Struct("<4sHHIIB7x")
"""Magic, version, kind, lengths of stdout and stderr, exit code."""
_CRED = Struct("=iII")  # struct ucred, unix(7): pid, uid, gid
_TIMEVAL = Struct("=qq")
_MAX_DESCRIPTORS = 16  # room for more than is allowed, so that too many are seen and closed


class ProtocolError(Exception):
    """The exchange failed; says why. The connection can't be used any more."""


class Malformed(ProtocolError):
    """It is not a request of this protocol."""


class TooLarge(ProtocolError):
    """A length exceeds the limits."""


class TooSlow(ProtocolError):
    """The other side did not send or take everything before the deadline."""


class Gone(ProtocolError):
    """The other side closed the connection too early."""


class UnknownVersion(ProtocolError):
    """The caller speaks another version; ``refusal`` makes the reply that it understands."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the caller uses protocol version {version}, this agent version {VERSION}")
        self.version = version


@dataclass(slots=True)
class RequestFrame:
    """A caller's request. The owner closes ``netns_fd``, or calls ``close``."""

    version: int
    flags: int
    env: bytes
    stdin: bytes
    netns_fd: int | None

    @property
    def as_ipam(self) -> bool:
        """Whether the caller was called by the name ``azvnet-ipam``."""
        return bool(self.flags & AS_IPAM)

    def environ(self) -> dict[str, str]:
        """The environment as ``os.environ`` would show it: of two equal names the first counts."""
        return decode_environment(self.env)

    def close(self) -> None:
        """Close the namespace's descriptor, if it is still open."""
        if self.netns_fd is not None:
            close(self.netns_fd)
            self.netns_fd = None


class ReplyFrame(Value):
    """What the caller is to print and to exit with."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0
    kind: int = HANDLED
    version: int = VERSION


def _always(_size: int) -> bool:
    return True


def refusal(version: int = VERSION) -> ReplyFrame:
    """The reply that refuses a call, for a caller of the given version: the older of the two is used."""
    return ReplyFrame(kind=NOT_TAKEN, version=min(version, VERSION))


def decode_environment(env: bytes) -> dict[str, str]:
    """The variables of a request. Entries without ``=`` are skipped: they are not variables."""
    environ: dict[str, str] = {}
    for entry in env.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name:
            environ.setdefault(
                name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
            )
    return environ


def encode_reply(reply: ReplyFrame) -> bytes:
    """The bytes of a reply. Only the end of an overlong stderr is sent: it is only a log.

    Raises:
        TooLarge: stdout is beyond the bounds.
    """
    room = MAX_PART - len(reply.stdout)
    if room < 0:
        raise TooLarge(f"a reply of {len(reply.stdout)} bytes; at most {MAX_PART} are possible")
    stderr = reply.stderr[-room:] if room else b""
    header = _REPLY_HEADER.pack(
        b"AZVR", reply.version, reply.kind, len(reply.stdout), len(stderr), reply.code
    )
    return header + reply.stdout + stderr


def peer_uid(sock: socket) -> int:
    """The user at the other end: who connected, or who listens (SO_PEERCRED, unix(7))."""
    _pid, uid, _gid = _CRED.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CRED.size))
    return int(uid)


def caller_alive(sock: socket) -> bool:
    """Whether the caller still waits: it has neither closed nor shut down its side."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return not poll.poll(0)


def read_request(
    sock: socket, deadline: float, *, limit: int = MAX_PART, admit: Callable[[int], bool] = _always
) -> RequestFrame:
    """Read a request to its end.

    Args:
        sock: a connection that was accepted.
        deadline: ``time.monotonic`` by which everything has arrived, however the bytes trickle.
        limit: how many bytes environment and stdin may have each; nothing is allocated for more.
        admit: whether there is room for so many bytes now; called before they are read.

    Raises:
        ProtocolError: one of its kinds. Descriptors that came are closed then.
    """
    descriptors: list[int] = []
    try:
        # No more than the header: what comes with later bytes is not the namespace's descriptor.
        header = _receive_first(sock, descriptors, deadline)
        if len(header) < _REQUEST_HEADER.size:
            header += _receive(sock, _REQUEST_HEADER.size - len(header), deadline)
        magic, version, flags, env_len, stdin_len = _REQUEST_HEADER.unpack(header)
        if magic != b"AZVN" or version == 0:
            raise Malformed("it does not begin as a request does")
        if version != VERSION:
            raise UnknownVersion(version)
        if len(descriptors) != bool(flags & NETNS_ATTACHED):
            raise Malformed(f"flags {flags:#x}, but {len(descriptors)} descriptors are attached")
        if max(env_len, stdin_len) > limit:
            raise TooLarge(
                f"environment of {env_len} and stdin of {stdin_len} bytes; at most {limit} are possible"
            )
        if not admit(env_len + stdin_len):
            raise TooLarge(f"no room for {env_len + stdin_len} bytes next to the calls in progress")
        body = _receive(sock, env_len + stdin_len, deadline)
        if env_len and body[env_len - 1]:
            raise Malformed("the environment does not end with NUL")
        netns_fd = descriptors.pop() if descriptors else None
        return RequestFrame(version, flags, body[:env_len], body[env_len:], netns_fd)
    finally:
        for descriptor in descriptors:
            close(descriptor)


def write_reply(sock: socket, reply: ReplyFrame, deadline: float) -> None:
    """Send a reply. The caller of this closes the socket afterwards.

    Raises:
        TooLarge: stdout is beyond the bounds; nothing was sent.
        TooSlow: the other side did not take it until ``deadline`` (``time.monotonic``, seconds).
        Gone: the other side is gone.
    """
    _send(sock, encode_reply(reply), deadline)


def set_timeout(sock: socket, option: int, seconds: float) -> None:
    """How long each later call on a blocking socket may take: SO_RCVTIMEO or SO_SNDTIMEO (socket(7)), in
    steps of a microsecond; 0 means for ever. With a timeout of Python's, each would be three system calls.
    """
    left = int(seconds * 1_000_000)
    sock.setsockopt(SOL_SOCKET, option, _TIMEVAL.pack(left // 1_000_000, left % 1_000_000))


def _ready(sock: socket, event: int, deadline: float) -> bool:
    """Wait for an event of poll(2); whether it came. Called only after it was tried without: a request
    arrives in one piece, and a reply fits into the socket.
    """
    poll = select.poll()
    poll.register(sock.fileno(), event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _receive(sock: socket, size: int, deadline: float) -> bytes:
    """Exactly that many bytes.

    Raises:
        TooSlow: they did not come until ``deadline``.
        Gone: the connection ended before.
    """
    data = bytearray(size)
    view = memoryview(data)
    have = 0
    while have < size:
        try:
            got = sock.recv_into(view[have:], 0, MSG_DONTWAIT)
        except BlockingIOError:
            if _ready(sock, select.POLLIN, deadline):
                continue
            raise TooSlow(f"only {have} of {size} bytes arrived in time") from None
        except OSError as error:
            raise Gone(f"the connection broke: {error.strerror}") from None
        if not got:
            raise Gone(f"the connection was closed after {have} of {size} bytes")
        have += got
    return bytes(data)


def _receive_first(sock: socket, descriptors: list[int], deadline: float) -> bytes:
    """The first bytes of a request, which the caller sends after it has connected. Descriptors that come with
    them go into the list at once.
    """
    try:
        set_timeout(sock, SO_RCVTIMEO, max(deadline - time.monotonic(), 1e-6))
        data, control, _flags, _address = sock.recvmsg(
            _REQUEST_HEADER.size, CMSG_SPACE(4 * _MAX_DESCRIPTORS), MSG_CMSG_CLOEXEC
        )
    except (TimeoutError, BlockingIOError):
        raise TooSlow("nothing arrived in time") from None
    except OSError as error:
        raise Gone(f"the connection broke: {error.strerror}") from None
    for level, kind, rights in control:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors += [fd for (fd,) in Struct("=i").iter_unpack(rights[: len(rights) // 4 * 4])]
    if not data:
        raise Gone("the connection was closed before anything arrived")
    return data


def _send(sock: socket, data: bytes, deadline: float) -> None:
    """Send everything. Raises TooSlow and Gone, as ``write_reply``."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view, MSG_NOSIGNAL | MSG_DONTWAIT) :]
        except BlockingIOError:
            if not _ready(sock, select.POLLOUT, deadline):
                raise TooSlow("the reply was not read completely in time") from None
        except OSError as error:
            raise Gone(f"the connection broke: {error.strerror}") from None
