"""A call handed over to the agent by the frozen Python, as the launcher does it in C.

Owns what the caller's side does before and after ``caller.ask``. It is loaded in the thin start, so it
imports next to nothing.
"""

import posix
import time

from cni_plugin import stdio
from cni_plugin.agent import caller, protocol

RUN_DIR = b"/run/azvnet"
SOCKET = "agent.sock"


def hand_over(as_ipam: bool) -> int | None:  # noqa: FBT001 - by name in the one place that calls it
    """Have the agent carry out this process's call; returns the exit code.

    None means that this process has to do it: stdin can be read again then, and AZVNET_AGENT tells why.
    """
    environ = posix.environ
    run_dir = environ.get(b"AZVNET_RUN_DIR", b"") or RUN_DIR
    path = run_dir.decode(errors="surrogateescape") + "/" + SOCKET
    try:
        posix.stat(path)
    except OSError:
        environ[b"AZVNET_AGENT"] = b"none"
        return None
    try:
        stdin = stdio.read_stdin()
    except OSError:
        environ[b"AZVNET_AGENT"] = b"none"
        return None
    environ.setdefault(b"AZVNET_CALL_ID", protocol.new_call_id().encode())
    netns_fd = _open(environ.get(b"CNI_NETNS", b""))
    try:
        reply = caller.ask(
            path,
            environ,
            stdin,
            netns_fd,
            as_ipam=as_ipam,
            deadline=time.monotonic() + protocol.REPLY_SECONDS,
        )
    finally:
        if netns_fd is not None:
            posix.close(netns_fd)
    if isinstance(reply, str):
        stdio.give_back(stdin)
        environ[b"AZVNET_AGENT"] = reply.encode()
        return None
    stdio.write(2, reply.stderr)
    if stdio.write(1, reply.stdout):
        return reply.code
    if reply.code or environ.get(b"CNI_COMMAND") != b"ADD":
        return 1
    stdio.give_back(stdin)
    environ[b"AZVNET_AGENT"] = b"gone"
    return None


def _open(path: bytes) -> int | None:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK) if path else None
    except OSError:
        return None
