"""What the provisioner says of itself, and what it needs of the node that it runs on: no behaviour.

It must not know how either is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ipam.provision.refusals import Kind, Refusal
from ipam.value import Value

if TYPE_CHECKING:
    from ipam.model import IPAddress, Reservation
    from ipam.provision.nic_writer import NicWriter

STARTING, IDLE, GROWING, SHRINKING = "starting", "idle", "growing", "shrinking"
LISTING, NOT_LISTED, DRY_RUN = "listing", "not-listed", "dry-run"
QUEUED = "queued"
"""The node waits for its turn, where NICs share a budget of requests."""
NO_API, API_DENIED, NO_DEFINITION = "no-api", "api-denied", "no-definition"
API_REFUSED, NO_OPERATOR = "api-refused", "no-operator"
"""If the cluster's operator writes the NIC: why the node can't report to it, or gets no answer."""
LISTED_SECONDS = 300.0
"""Seconds after which an address that Azure has set up, but the source does not list, is reported."""
LIMITS = {
    "maximum": (
        "the pool has as many addresses as provision.maximum allows",
        "Raise provision.maximum, or run fewer pods here.",
    ),
    "nic-full": (
        "the NIC has as many IP configurations as Azure allows",
        "Use blocks (provision.prefixes), or run fewer pods here.",
    ),
}
"""Why the pool can't grow, by the planner's names: text and remedy."""
QUIET = (STARTING, IDLE, QUEUED, GROWING, SHRINKING, LISTING, DRY_RUN)
_CLUSTER = (NO_API, API_DENIED, NO_DEFINITION, API_REFUSED, NO_OPERATOR)
PHASES = tuple(dict.fromkeys((*QUIET, NOT_LISTED, *LIMITS, *(kind.value for kind in Kind), *_CLUSTER)))
"""Every ``Progress.phase``."""


_SCARCE = {
    Kind.SUBNET_FULL: "the subnet was full a few minutes ago: addresses are only added for pods that wait",
    Kind.VNET_FULL: "the virtual network was full a few minutes ago: addresses are only added for pods that "
    "wait",
    Kind.NO_BLOCK: "the subnet had no free block a few minutes ago: single addresses are added instead",
}


def scarce(kind: Kind) -> tuple[str, str, str]:
    """State, text and remedy while it is remembered that there was too little: ``Kind.SUBNET_FULL``,
    ``Kind.VNET_FULL`` or ``Kind.NO_BLOCK``.
    """
    return kind.value, _SCARCE[kind], Refusal(kind, _SCARCE[kind]).remedy


class Demand(Value):
    """What is scheduled to the node."""

    coming: int
    """Pods that are bound to it and have no address yet."""
    per_second: float
    """Pods that were bound to it, in the last minute."""


class Unseen(Value):
    """Why it is not known what is scheduled to the node."""

    text: str
    phase: str = ""
    """The name of the state, where the API server is asked in vain."""
    remedy: str = ""
    """What to do; a sentence. Empty: nothing is wrong, or not for long."""


class Progress(Value):
    """What is being done."""

    phase: str = STARTING
    text: str = "the NIC has not been read yet"
    remedy: str = ""
    in_flight: int = 0
    """Addresses on the NIC that the source does not list yet."""
    configurations: int = 0
    """IP configurations of the NIC when it was read last, the primary one included; 0: it was not."""
    vanished: tuple[Reservation, ...] = ()
    """What pods hold and the NIC did not have when it was read last."""
    coming: int | None = None
    """Pods that are bound to the node and have no address yet; None: it is not known."""
    unseen: Unseen | None = None
    """Why that is not known, where the agent plans by it."""

    @property
    def is_problem(self) -> bool:
        """Whether it is a problem to report."""
        return self.phase not in QUIET


class NodeFacts(Protocol):
    """The node."""

    def clock(self) -> float:
        """Seconds of a clock that does not jump."""

    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""

    def carried(self) -> frozenset[IPAddress]:
        """Addresses that the host itself carries."""

    def waiting(self) -> frozenset[str]:
        """Pods (``namespace/name``) that found no address recently."""

    def refresh(self) -> None:
        """Read the source, as often as it may be read. Never raises."""

    def tell(self, level: str, text: str) -> None:
        """Write to the log."""


class Surroundings(NodeFacts, Protocol):
    """The node, and its NIC in Azure."""

    def demand(self, held: int) -> Demand | None:
        """What is scheduled to the node, of which ``held`` pods have an address; None: it is not known."""

    def writer(self, subnet: str) -> NicWriter:
        """What changes the NIC that pods leave by. Raises Refusal: it was not found."""
