"""The errors of the CNI contract, as classes that carry their code.

Owns the mapping of "what went wrong" to a code and to what the operator can do. It must not know how
an error reaches the caller (``contract`` turns one into the JSON document).
Codes: CNI spec 1.1.0 section "Error" for 1-99; ours start at 100 and are listed in docs/errors.md,
which a test compares with this module.
"""

from __future__ import annotations

import errno

from ipam import errors as pool

TEMPORARY = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT),
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
    }
)
"""Errnos of a temporary shortage."""
DEFECTS = frozenset({errno.EBADF, errno.EFAULT, errno.ENOTSOCK})
"""Errnos that can only be caused by a defect."""
REMEDIES = {
    errno.EMFILE: "Raise the limit of open files (LimitNOFILE) of the process that made the call.",
    errno.ENFILE: "Raise fs.file-max, or find what keeps so many files open.",
    **dict.fromkeys((errno.ENOMEM, errno.ENOBUFS), "The node, or the cgroup of the call, is out of memory."),
    **dict.fromkeys(
        (errno.EPERM, errno.EACCES),
        "This needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN; seccomp or an LSM may forbid it.",
    ),
    errno.EROFS: "The file system is mounted read-only; see `mount`.",
    errno.ENOSPC: "A disk is full, or a limit of the kernel is reached; see `df` and the kernel's log.",
}


class CniError(Exception):
    """Base of every error with a code.

    ``str(error)`` is ``msg``: what is wrong, in one line. ``details`` is what to do about it.
    """

    code: int = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.details = details


class IncompatibleVersion(CniError):
    """The netconf asks for a CNI version that is not supported."""

    code = 1


class UnsupportedField(CniError):
    """A key or value of the netconf that this plugin does not support; ``msg`` holds both."""

    code = 2


class InvalidEnvironment(CniError):
    """CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME or CNI_ARGS missing or malformed."""

    code = 4


class IOFailure(CniError):
    """stdin could not be read, or the result could not be written."""

    code = 5


class DecodingFailure(CniError):
    """stdin, or the result of the plugin before, is not a valid JSON object."""

    code = 6


class InvalidNetconf(CniError):
    """The network configuration is JSON, but not valid."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS is not a network namespace, or is the host's own (code 8, as in libcni's ``skel``)."""

    code = 8


class TryAgainLater(CniError):
    """A temporary condition: the same call may succeed later."""

    code = 11


class NotReady(CniError):
    """STATUS: an ADD would fail now."""

    code = 50


class LimitedConnectivity(CniError):
    """STATUS: an ADD would fail now, and existing pods may be affected too."""

    code = 51


class AttachmentExists(CniError):
    """ADD for something that is already attached, or the pod has an interface of that name."""

    code = 104


class UplinkUnclear(CniError):
    """The link of the NIC that owns the addresses was not found, or more than one matches."""

    code = 105


class KernelRefused(CniError):
    """The kernel refused a step; the steps before it were undone."""

    code = 106


class CheckFailed(CniError):
    """CHECK: the attachment is not as ADD made it; ``msg`` names every difference."""

    code = 107


class StateUnavailable(CniError):
    """The node's state in ``/run/azvnet`` can't be read or written."""

    code = 108


class DelegateFailed(CniError):
    """The IPAM plugin that ``ipam.type`` names was not found, died, or did not return a CNI document."""

    code = 109


class DelegateError(CniError):
    """An error object that a delegated plugin returned, passed on with its own code."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code


POOL_CODES: dict[type[pool.IpamError], int] = {
    pool.PoolExhausted: 100,
    pool.SourceUnreadable: 101,
    pool.NoAddressesKnown: 101,
    pool.SourceEmpty: 102,
    pool.AddressUnavailable: 103,
    pool.NicUnclear: UplinkUnclear.code,
    pool.AlreadyReserved: AttachmentExists.code,
    pool.StoreUnavailable: StateUnavailable.code,
    pool.AdoptionNeeded: StateUnavailable.code,
    pool.ReservationLost: TryAgainLater.code,
    pool.PredecessorsFound: TryAgainLater.code,
}
"""The code of each error of the pool; a subclass has that of its base."""


class PoolError(CniError):
    """An error of the pool, with the code of its class."""

    def __init__(self, error: pool.IpamError) -> None:
        super().__init__(str(error), error.remedy)
        self.code = next(
            (POOL_CODES[each] for each in type(error).mro() if each in POOL_CODES), CniError.code
        )
        self.__cause__ = error


def of_system(error: OSError, remedy: str = "") -> CniError:
    """The error for a system call that failed: code 11 if it may succeed later, else 106.

    ``remedy`` is for an errno that has none of its own.
    """
    reason = error.strerror or str(error)
    msg = f"{error.filename}: {reason}" if error.filename else reason
    kind = TryAgainLater if error.errno in TEMPORARY or isinstance(error, TimeoutError) else KernelRefused
    remedy = remedy or "The kernel refused it; see its log (dmesg)."
    return kind(msg, REMEDIES.get(error.errno or 0, remedy))


def own_codes() -> frozenset[int]:
    """Every code that an error of ours can have; a delegate's may have others."""
    kinds: list[type[CniError]] = [CniError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return frozenset({kind.code for kind in kinds} | set(POOL_CODES.values()))
