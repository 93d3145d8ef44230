"""The errors of the CNI contract, as classes that carry their code.

Owns the mapping of "what went wrong" to a code and to what the operator can do. It must not know how
an error reaches the caller (``contract`` turns one into the JSON document) nor import what raises it.
Codes: CNI spec 1.1.0 section "Error" for 1-99; ours start at 100 and are listed in docs/errors.md,
which a test compares with this module.
"""

from __future__ import annotations


class CniError(Exception):
    """Base of every error that a caller is told about.

    ``str(error)`` is ``msg``: what is wrong, in one line. ``details`` is what to do about it.
    """

    code: int = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.details = details


class IncompatibleVersion(CniError):
    """The netconf asks for a CNI version that is not spoken here."""

    code = 1


class UnsupportedField(CniError):
    """A key or value of the netconf that this plugin can't honour; ``msg`` holds both."""

    code = 2


class InvalidEnvironment(CniError):
    """CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME or CNI_ARGS missing or malformed."""

    code = 4


class IOFailure(CniError):
    """stdin could not be read, or the result could not be written."""

    code = 5


class DecodingFailure(CniError):
    """stdin is no JSON object."""

    code = 6


class InvalidNetconf(CniError):
    """The network configuration is JSON, but not a valid one."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS is no network namespace, or the host's own (code 8 as libcni's skeleton uses it)."""

    code = 8


class TryAgainLater(CniError):
    """A passing condition: the same call may go through later."""

    code = 11


class NotReady(CniError):
    """STATUS: no ADD could be served now."""

    code = 50


class LimitedConnectivity(CniError):
    """STATUS: no ADD could be served, and pods that exist may have trouble too."""

    code = 51


class PoolIsExhausted(CniError):
    """Every address of the node is held, resting or set aside."""

    code = 100


class SourceFailed(CniError):
    """No address is known, because the source was never readable."""

    code = 101


class NothingToGive(CniError):
    """The source is readable, but the NIC has no address for pods."""

    code = 102


class AddressRefused(CniError):
    """The address that was asked for can't be given to this attachment."""

    code = 103


class AttachmentExists(CniError):
    """ADD for an attachment, or an interface name, that exists already."""

    code = 104


class UplinkUnclear(CniError):
    """The link that carries the NIC of the addresses was not found, or more than one fits."""

    code = 105


class KernelRefused(CniError):
    """A step in the kernel failed; what had been done was undone."""

    code = 106


class CheckFailed(CniError):
    """CHECK found the attachment not to be as it was made; ``msg`` names the damage."""

    code = 107


class StoreFailed(CniError):
    """The state of the node can't be read or written."""

    code = 108


class DelegateFailed(CniError):
    """Another plugin (``ipam.type``) was not found, died, or answered no CNI document."""

    code = 109


class DelegateError(CniError):
    """An error object that a delegated plugin answered: passed on with its own code."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code
