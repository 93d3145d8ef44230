"""The Linux calls about namespaces and mounts that the standard library lacks.

Imported by the holder of a node, which starts without site-packages: standard library only.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x0002_0000
CLONE_FS = 0x0000_0200
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SHARED = 0x10_0000
MNT_DETACH = 0x2

_AT_FDCWD = -100
_RENAME_EXCHANGE = 0x2

CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION_3 = 0x2008_0522

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the shared namespaces of these kinds. Raises OSError."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace. Raises OSError."""
    _check(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system. Raises OSError, which names the target."""
    done = _libc.mount(
        source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(done, f"mount {fstype or source} on {target}")


def unmount(target: str) -> None:
    """umount2(2), lazily. Raises OSError."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def exchange(one: str, other: str) -> None:
    """Each gets the other's name, in one step (renameat2(2), RENAME_EXCHANGE). Raises OSError."""
    done = _libc.renameat2(_AT_FDCWD, one.encode(), _AT_FDCWD, other.encode(), _RENAME_EXCHANGE)
    _check(done, f"exchange {one} and {other}")


def set_hostname(name: str) -> None:
    """sethostname(2). Raises OSError."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), f"set the host name {name}")


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the parent ends (prctl PR_SET_PDEATHSIG). Raises OSError."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def drop_capability(number: int) -> None:
    """Give up one capability for good (capset(2)). Raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the same for those from 32 on
    _check(_libc.capget(header, sets), "capget")
    for which in range(3):
        sets[3 * (number // 32) + which] &= ~(1 << number % 32)
    _check(_libc.capset(header, sets), "capset")


def _check(returned: int, what: str) -> None:
    if returned != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
