"""The words between a caller and the agent: docs/architecture.md, "Agent protocol, version 1".

Owns the encoding of requests and replies and their way through a socket, for both sides; the launcher
(packaging/launcher/launcher.c) speaks the same from C. It must not know what a call means.

``caller`` needs it in the frozen Python before anything else is loaded, so nothing is imported here that
costs time: no ``socket``, no ``dataclasses``, no ``typing``.
"""

from __future__ import annotations

import time
from _socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_PEERCRED,
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    SOL_SOCKET,
    socket,
)
from _struct import Struct
from posix import close, urandom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

VERSION: Final = 1
AS_IPAM: Final = 1
"""Flag of a request: called by the name ``azvnet-ipam``."""
NETNS_ATTACHED: Final = 2
"""Flag of a request: a descriptor of the namespace is attached."""
CARRIED_OUT: Final = 0
"""Kind of a reply: the call is done, with success or not."""
NOT_TAKEN: Final = 1
"""Kind of a reply: the caller is to carry the call out itself."""

MAX_PART: Final = 1 << 20
"""Bytes of an environment, of a stdin, and of stdout and stderr together, that travel at most."""
REPLY_SECONDS: Final = 25.0
"""What a caller grants the agent for a call."""

_REQUEST = Struct("<4sHHII8x")
REPLY_HEADER = Struct("<4sHHIIB7x")
"""Magic, version, kind, lengths of stdout and stderr, exit code."""
_CRED = Struct("=iII")  # struct ucred, unix(7): pid, uid, gid
_TIMEVAL = Struct("=qq")
_MAX_DESCRIPTORS = 16  # room for more than is allowed, so that too many are seen and closed


class ProtocolError(Exception):
    """A request that can't be answered as asked; says why. The connection is of no more use."""


class Malformed(ProtocolError):
    """It is no request of this protocol."""


class TooLarge(ProtocolError):
    """A length is beyond the bounds."""


class TooSlow(ProtocolError):
    """The other side did not send or take everything before the deadline."""


class Gone(ProtocolError):
    """The other side closed the connection before everything was said."""


class UnknownVersion(ProtocolError):
    """The caller speaks another version; ``refusal`` makes the reply that it understands."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the caller speaks version {version} of the protocol, this agent version {VERSION}")
        self.version = version


class Request:
    """What a caller asks. Whoever has it closes ``netns_fd``, or calls ``close``."""

    __slots__ = ("env", "flags", "netns_fd", "stdin", "version")

    def __init__(self, version: int, flags: int, env: bytes, stdin: bytes, netns_fd: int | None) -> None:
        self.version = version
        self.flags = flags
        self.env = env
        self.stdin = stdin
        self.netns_fd = netns_fd

    @property
    def as_ipam(self) -> bool:
        """Whether the caller was called by the name ``azvnet-ipam``."""
        return bool(self.flags & AS_IPAM)

    def environ(self) -> dict[str, str]:
        """The environment as ``os.environ`` would show it: of two equal names the first counts."""
        return decode_environment(self.env)

    def close(self) -> None:
        """Close the descriptor of the namespace, if there is one still."""
        if self.netns_fd is not None:
            close(self.netns_fd)
            self.netns_fd = None


class Reply:
    """What the caller is to print and to exit with."""

    __slots__ = ("code", "kind", "stderr", "stdout", "version")

    def __init__(
        self,
        stdout: bytes = b"",
        stderr: bytes = b"",
        code: int = 0,
        *,
        kind: int = CARRIED_OUT,
        version: int = VERSION,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.code = code
        self.kind = kind
        self.version = version


class Limits:
    """How many bytes of environment and stdin a request may bring."""

    __slots__ = ("env", "stdin")

    def __init__(self, env: int = MAX_PART, stdin: int = MAX_PART) -> None:
        self.env = env
        self.stdin = stdin


def refusal(version: int = VERSION) -> Reply:
    """The reply by which a call is not taken, to a caller of the given version: the older one is spoken."""
    return Reply(kind=NOT_TAKEN, version=min(version, VERSION))


def new_call_id() -> str:
    """A name for a call: 32 hex digits."""
    return urandom(16).hex()


def encode_environment(environ: Mapping[str, str] | Mapping[bytes, bytes]) -> bytes:
    """``NAME=VALUE`` entries, each ended by NUL.

    ``AZVNET_AGENT`` is left out: it is what a caller tells the frozen Python, the agent must not take it
    for its own case. The name of the call goes to the end.
    """
    pairs = {_raw(name): _raw(value) for name, value in environ.items()}
    pairs.pop(b"AZVNET_AGENT", None)
    call_id = pairs.pop(b"AZVNET_CALL_ID", None)
    if call_id is not None:
        pairs[b"AZVNET_CALL_ID"] = call_id
    return b"".join(b"%b=%b\0" % pair for pair in pairs.items())


def decode_environment(env: bytes) -> dict[str, str]:
    """The reverse; entries without ``=`` are no variables, as for any program, and are left out."""
    environ: dict[str, str] = {}
    for entry in env.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name:
            environ.setdefault(
                name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
            )
    return environ


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def encode_request(request: Request) -> bytes:
    """The bytes of a request; its descriptor travels beside them."""
    attached = 0 if request.netns_fd is None else NETNS_ATTACHED
    flags = request.flags & ~NETNS_ATTACHED | attached
    header = _REQUEST.pack(b"AZVN", request.version, flags, len(request.env), len(request.stdin))
    return header + request.env + request.stdin


def encode_reply(reply: Reply) -> bytes:
    """The bytes of a reply. Of a stderr that is too long the end is sent: it is only a log.

    Raises:
        TooLarge: stdout is beyond the bounds.
    """
    room = MAX_PART - len(reply.stdout)
    if room < 0:
        raise TooLarge(f"a reply of {len(reply.stdout)} bytes; {MAX_PART} are possible")
    stderr = reply.stderr[-room:] if room else b""
    header = REPLY_HEADER.pack(b"AZVR", reply.version, reply.kind, len(reply.stdout), len(stderr), reply.code)
    return header + reply.stdout + stderr


def peer_uid(sock: socket) -> int:
    """The user at the other end: who connected, or who listens (SO_PEERCRED, unix(7))."""
    _pid, uid, _gid = _CRED.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CRED.size))
    return int(uid)


def caller_alive(sock: socket) -> bool:
    """Whether the caller still waits: it has neither closed nor shut down its side."""
    import select

    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return not poll.poll(0)


def read_request(sock: socket, deadline: float, limits: Limits | None = None) -> Request:
    """Read a request to its end.

    Args:
        sock: a connection that was accepted.
        deadline: until when, on the clock of ``time.monotonic``, in seconds; however the bytes trickle.
        limits: how large the parts may be; nothing is allocated for larger ones.

    Raises:
        ProtocolError: one of its kinds. Descriptors that came are closed then.
    """
    limits = limits or Limits()
    descriptors: list[int] = []
    try:
        # No more than the header: what comes with later bytes is not the namespace's descriptor.
        header = _receive_first(sock, descriptors, deadline)
        header += receive(sock, _REQUEST.size - len(header), deadline)
        magic, version, flags, env_len, stdin_len = _REQUEST.unpack(header)
        if magic != b"AZVN" or version == 0:
            raise Malformed("it does not begin as a request does")
        if version != VERSION:
            raise UnknownVersion(version)
        if len(descriptors) != bool(flags & NETNS_ATTACHED):
            raise Malformed(f"flags {flags:#x}, but {len(descriptors)} descriptors are attached")
        if env_len > limits.env or stdin_len > limits.stdin:
            raise TooLarge(
                f"environment of {env_len} and stdin of {stdin_len} bytes; "
                f"{limits.env} and {limits.stdin} are possible"
            )
        body = receive(sock, env_len + stdin_len, deadline)
        if env_len and body[env_len - 1]:
            raise Malformed("the environment does not end with NUL")
        netns_fd = descriptors.pop() if descriptors else None
        return Request(version, flags, body[:env_len], body[env_len:], netns_fd)
    finally:
        for descriptor in descriptors:
            close(descriptor)


def write_reply(sock: socket, reply: Reply, deadline: float) -> None:
    """Send a reply. The caller of this closes the socket afterwards.

    Raises:
        TooLarge: stdout is beyond the bounds; nothing was sent.
        TooSlow: the other side did not take it until ``deadline`` (``time.monotonic``, seconds).
        Gone: the other side is gone.
    """
    send(sock, encode_reply(reply), deadline)


def limit(sock: socket, option: int, seconds: float) -> None:
    """How long each later call on a blocking socket may last, as a socket option of the kernel's: SO_RCVTIMEO
    or SO_SNDTIMEO (socket(7)), in steps of a microsecond; 0: for ever.
    """
    left = int(seconds * 1_000_000)
    sock.setsockopt(SOL_SOCKET, option, _TIMEVAL.pack(left // 1_000_000, left % 1_000_000))


def _wait_until(sock: socket, option: int, deadline: float) -> None:
    """Let the next call on a blocking socket last until the deadline at most (socket(7), SO_RCVTIMEO). With a
    timeout of Python's, each would be three calls of the kernel.
    """
    limit(sock, option, max(deadline - time.monotonic(), 1e-6))


def receive(sock: socket, size: int, deadline: float) -> bytes:
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
            _wait_until(sock, SO_RCVTIMEO, deadline)
            got = sock.recv_into(view[have:])
        except (TimeoutError, BlockingIOError):
            raise TooSlow(f"only {have} of {size} bytes came in time") from None
        except OSError as error:
            raise Gone(f"the connection broke: {error.strerror}") from None
        if not got:
            raise Gone(f"the connection was closed after {have} of {size} bytes")
        have += got
    return bytes(data)


def _receive_first(sock: socket, descriptors: list[int], deadline: float) -> bytes:
    """The first bytes of a request. Descriptors that come with them go into the list at once."""
    try:
        _wait_until(sock, SO_RCVTIMEO, deadline)
        data, control, _flags, _address = sock.recvmsg(
            _REQUEST.size, CMSG_SPACE(4 * _MAX_DESCRIPTORS), MSG_CMSG_CLOEXEC
        )
    except (TimeoutError, BlockingIOError):
        raise TooSlow("nothing came in time") from None
    except OSError as error:
        raise Gone(f"the connection broke: {error.strerror}") from None
    for level, kind, rights in control:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors += [fd for (fd,) in Struct("=i").iter_unpack(rights[: len(rights) // 4 * 4])]
    if not data:
        raise Gone("the connection was closed before anything came")
    return data


def send(sock: socket, data: bytes, deadline: float, netns_fd: int | None = None) -> None:
    """Send everything, a descriptor with the first byte.

    Raises:
        TooSlow: the other side did not take it until ``deadline``.
        Gone: the connection ended before.
    """
    view = memoryview(data)
    rights = [] if netns_fd is None else [(SOL_SOCKET, SCM_RIGHTS, Struct("=i").pack(netns_fd))]
    try:
        _wait_until(sock, SO_SNDTIMEO, deadline)
        sent = sock.sendmsg([view], rights, MSG_NOSIGNAL)  # the descriptor goes with the first byte
        while sent < len(view):
            _wait_until(sock, SO_SNDTIMEO, deadline)
            sent += sock.send(view[sent:], MSG_NOSIGNAL)
    except (TimeoutError, BlockingIOError):
        raise TooSlow("not everything was taken in time") from None
    except OSError as error:
        raise Gone(f"the connection broke: {error.strerror}") from None
