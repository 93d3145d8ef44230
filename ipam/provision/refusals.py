"""Why Azure Resource Manager does not do what it is asked, told apart by what helps. Pure.

It must not know how ARM is asked. Codes are those of recorded answers and of "Resolve errors for ... IP
addresses"; whatever is not known keeps its own words.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from ipam.sources.arm_errors import retry_seconds, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.sources.arm_answer import ArmAnswer


class Kind(Enum):
    """The kind of refusal; the values are the names of states in status and metrics."""

    THROTTLED = "throttled"
    BUSY = "busy"
    CHANGED = "changed"
    SUBNET_FULL = "subnet-full"
    VNET_FULL = "vnet-full"
    NO_BLOCK = "no-block"
    NIC_FULL = "nic-full"
    ADDRESS_TAKEN = "address-taken"
    FORBIDDEN = "forbidden"
    NO_IDENTITY = "no-identity"
    NOT_FOUND = "not-found"
    OTHER_MACHINE = "other-machine"
    SERVER_ERROR = "server-error"
    UNREACHABLE = "unreachable"
    WIPED = "wiped"
    REFUSED = "refused"


FULL = (Kind.SUBNET_FULL, Kind.VNET_FULL)
"""There is no address left where the NIC is; others have them."""


class Refusal(Exception):
    """A change was not made, or it is not known whether it was."""

    def __init__(self, kind: Kind, message: str, retry_after: float = 0.0) -> None:
        super().__init__(words_of(message))
        self.kind = kind
        self.retry_after = retry_after
        """Retry-After in seconds; 0: ARM named none."""

    @property
    def remedy(self) -> str:
        """What to do; a sentence."""
        return _REMEDIES[self.kind]


_REMEDIES = {
    Kind.THROTTLED: "The subscription's requests are throttled; azvnet tries again when Retry-After is over. "
    "Larger steps (provision.batch) or blocks (provision.prefixes) need fewer requests.",
    Kind.BUSY: "Another operation on the NIC or its machine is in progress; azvnet tries again after it.",
    Kind.CHANGED: "Something else keeps changing the NIC; azvnet tries again.",
    Kind.SUBNET_FULL: "Free addresses in the NIC's subnet (lower provision.low and provision.high of its "
    "nodes, delete what is unused), or extend its address prefix; all addresses of a NIC are in one subnet.",
    Kind.VNET_FULL: "A virtual network has 65,536 IP configurations at most: use blocks "
    "(provision.prefixes), which count as one each, or lower provision.low and provision.high of its nodes.",
    Kind.NO_BLOCK: "The subnet has no free /28: single addresses are taken instead. Reserve a range "
    "of the subnet for blocks.",
    Kind.NIC_FULL: "A NIC has 256 IP configurations at most: use blocks (provision.prefixes), or fewer pods.",
    Kind.ADDRESS_TAKEN: "Something else took the address at the same moment; azvnet tries again.",
    Kind.FORBIDDEN: "Give the identity the role that docs/provisioning.md lists, on the resource groups that "
    "the message names; it takes effect after some minutes.",
    Kind.NO_IDENTITY: "Give the machine a managed identity, or name one as arm.client_id; with a workload "
    "identity check its federated credential. An identity has tokens for its own cloud only.",
    Kind.NOT_FOUND: "The machine or its NIC is not where IMDS says; it is looked up again.",
    Kind.OTHER_MACHINE: "The NIC is not written. The Node's providerID has to be the virtual machine on "
    "which the agent runs: correct provision.node_name, or delete the Node so that it is created again.",
    Kind.SERVER_ERROR: "Azure Resource Manager had an internal error; azvnet tries again.",
    Kind.UNREACHABLE: "Check from the node's own network that the endpoint answers on port 443.",
    Kind.WIPED: "Something undid the change, such as an update of the scale set's model; azvnet tries again.",
    Kind.REFUSED: "See the code in the message.",
}
_BY_CODE = {
    "RetryableErrorDueToAnotherOperation": Kind.BUSY,
    "AnotherOperationInProgress": Kind.BUSY,
    "RetryableError": Kind.BUSY,
    "PreconditionFailed": Kind.CHANGED,
    "SubnetIsFull": Kind.SUBNET_FULL,
    "NoAvailableIPAddressesInSubnet": Kind.SUBNET_FULL,
    "PrefixUnavailable": Kind.NO_BLOCK,
    "InsufficientCidrBlocks": Kind.NO_BLOCK,
    "PrivateIPAddressIsAllocated": Kind.ADDRESS_TAKEN,
    "PrivateIPAddressInUse": Kind.ADDRESS_TAKEN,
    "AuthorizationFailed": Kind.FORBIDDEN,
    "LinkedAuthorizationFailed": Kind.FORBIDDEN,
}
_BY_STATUS = {
    401: Kind.NO_IDENTITY,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    409: Kind.BUSY,
    412: Kind.CHANGED,
    429: Kind.THROTTLED,
}
_TOO_MANY = re.compile(
    r"(?i)(limit|exceed|maximum|cannot have more).*ip ?configuration|ip ?configuration.*256"
)
_VNET_FULL = re.compile(
    r"(?is)(?=.*(virtual ?network|vnet))(?=.*private ?ip)(?=.*(limit|exceed|maximum|more than))"
)
"""No answer to this is recorded: "Azure networking limits" has the number, and no list of errors the code."""


def of_answer(what: str, answer: ArmAnswer, *, blocks: bool = False) -> Refusal:
    """Why a request was refused. ``what``: the request; ``blocks``: it was for blocks."""
    said = f"{what}: {answer.status} {_words(answer.document)}"
    kind = _kind(answer.document, blocks=blocks) or _BY_STATUS.get(answer.status)
    kind = kind or (Kind.SERVER_ERROR if answer.status >= 500 else Kind.REFUSED)
    return Refusal(kind, said, retry_seconds(answer.headers.get("retry-after")))


def of_operation(what: str, document: dict[str, Any], *, blocks: bool = False) -> Refusal:
    """Why an operation that was accepted failed afterwards."""
    kind = _kind(document, blocks=blocks) or Kind.REFUSED
    return Refusal(kind, f"{what}: the operation ended as {document.get('status')}: {_words(document)}")


def _kind(document: dict[str, Any], *, blocks: bool) -> Kind | None:
    """By the code, the innermost first: the outer ones are often general."""
    for code, message in reversed(list(_errors(document))):
        kind = _BY_CODE.get(code)
        if kind is Kind.SUBNET_FULL and blocks:
            return Kind.NO_BLOCK  # the subnet may still have single addresses
        if kind is None and _TOO_MANY.search(f"{code} {message}"):
            return Kind.NIC_FULL
        if kind is None and _VNET_FULL.match(f"{code} {message}"):
            return Kind.VNET_FULL
        if kind is not None:
            return kind
    return None


def _words(document: dict[str, Any]) -> str:
    return "; ".join(f"{code}: {message}" for code, message in _errors(document))


def _errors(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Code and message of an error document, then those of its details."""
    error = document.get("error", document)
    if not isinstance(error, dict):
        return
    if error.get("code"):
        yield str(error["code"]), str(error.get("message", ""))
    details = error.get("details")
    for each in details if isinstance(details, list) else ():
        if isinstance(each, dict):
            yield from _errors(each)
