"""Network namespaces, by descriptor.

Owns opening and identifying namespaces, and calling a function inside one. It must not know what that does.
A thread that enters a namespace comes back or takes the process with it: no later work can be done in a pod.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cni_plugin.cni.errors import TEMPORARY, InvalidNetns, KernelRefused

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
"""ioctl_ns(2): the kind of a namespace; ENOTTY for any other descriptor."""

_OWN = "/proc/thread-self/ns/net"

_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How mountinfo writes blanks and backslashes."""

_libc = ctypes.PyDLL(None, use_errno=True)
"""Called without letting other threads run: a switch takes microseconds, getting one's turn again may take
milliseconds."""


def open_netns(path: str) -> int:
    """Open a namespace file. The caller closes the descriptor.

    Raises:
        InvalidNetns: the path can't be opened, or is not a network namespace.
        OSError: it can't be opened at the moment, for want of descriptors or memory.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TEMPORARY:
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidNetns(
            f"CNI_NETNS {path} can't be opened: {reason}",
            "The runtime created no namespace there, or it is gone already.",
        ) from error
    try:
        require_netns(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def opened(fd: int | None, path: str) -> Iterator[int]:
    """The caller's descriptor of a namespace, or else one that is opened here.

    Raises:
        InvalidNetns: it is gone, or is not a network namespace.
    """
    if fd is not None:
        require_netns(fd, path)
        yield fd
        return
    own = open_netns(path)
    try:
        yield own
    finally:
        os.close(own)


def require_netns(fd: int, path: str) -> None:
    """Refuse a descriptor that is not of a network namespace.

    Raises:
        InvalidNetns: it is a file, a directory, or a namespace of another kind.
    """
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        what = "a namespace of another kind" if kind else "something else"
        raise InvalidNetns(
            f"CNI_NETNS {path} is not a network namespace, but {what}",
            "After a reboot a plain file may be left where the namespace was: the pod has to be recreated.",
        )


def mounted() -> list[str]:
    """Where network namespaces are mounted, as every runtime does with those of pods (proc(5), mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123 - bytes from the kernel
        for line in file:
            fields = line.split()
            if fields[3].startswith(b"net:[") and b"nsfs" in fields[6:]:
                found.append(os.fsdecode(_OCTAL.sub(lambda code: bytes([int(code[1], 8)]), fields[4])))
    return found


def identity(fd: int) -> str:
    """Unique among existing namespaces: ``<st_dev>:<st_ino>`` (namespaces(7))."""
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


def own_identity() -> str:
    """The identity of the namespace that the calling thread is in: the host's."""
    status = os.stat(_OWN)  # noqa: PTH116 - twice as fast
    return f"{status.st_dev}:{status.st_ino}"


def open_own() -> int:
    """Open the namespace that the calling thread is in. The caller closes the descriptor. Raises OSError."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def call_in(fd: int, work: Callable[[], T]) -> T:
    """Call ``work`` in the namespace, and come back; returns or raises what it does.

    Sockets that it opens stay in that namespace and can be used from outside afterwards. Another thread for
    this, which would end in there, costs an ADD a tenth of its time.

    Raises:
        KernelRefused: the namespace can't be entered.
    """
    home = open_own()
    try:
        return call_and_return(fd, home, work)
    finally:
        os.close(home)


def call_and_return(fd: int, home: int, work: Callable[[], T]) -> T:
    """As ``call_in``, for a caller that keeps its own namespace open: opening takes longer than entering."""
    if _libc.setns(fd, CLONE_NEWNET):
        raise KernelRefused(
            f"enter the pod's network namespace: {os.strerror(ctypes.get_errno())}",
            "This needs CAP_SYS_ADMIN, and a seccomp profile that allows setns.",
        )
    try:
        return work()
    finally:
        if _libc.setns(home, CLONE_NEWNET):
            os.abort()  # this thread's next changes would hit a pod instead of the host


def is_replaced(path: str, known: str) -> bool:
    """Whether a namespace that was once at ``path`` is certainly not there any more.

    A container may see other files at that path than the host does, or none: only a directory that can be
    seen without the file in it, or another namespace in its place, is certain. Of a path below /proc nothing
    is: a container has process ids of its own, where the same number is another process.
    """
    if path.startswith("/proc/"):
        return False
    try:
        status = os.stat(path)  # noqa: PTH116 - a path of the runtime's
    except FileNotFoundError:
        return os.path.isdir(os.path.dirname(path))  # noqa: PTH112, PTH120
    except OSError:
        return False
    is_namespace = known.startswith(f"{status.st_dev}:")
    return is_namespace and f"{status.st_dev}:{status.st_ino}" != known
