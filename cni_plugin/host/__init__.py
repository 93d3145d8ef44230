"""What pods need from the host itself: desired state, one module for each kind.

Each kind is ensured (by every ADD, and by each check of the agent), checked for what only the operator can
fix, and restored by ``azvnet uninstall``. Owns the list of them. What belongs to one pod is the datapath's.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cni_plugin.host import forwarding, forwarding_v6, nic_routes, packets, routing_rule
from cni_plugin.host.traffic import PodNetwork
from cni_plugin.kernel.family import IPV4, IPV6

if TYPE_CHECKING:
    from cni_plugin.node import Node


class HostState(Protocol):
    """One kind of state of the host."""

    KIND: str
    """Its name in the metric of repairs."""
    SHARED: bool
    """Whether pods of other plugins may need it too."""
    KEPT: str
    """That it stays as it is now, in words; ``{}`` stands for the names in ``recorded``."""

    def ensure(self, node: Node) -> str:
        """Set what is missing; returns what was done in words, empty if nothing.

        Raises:
            KernelRefused: it is missing and can't be set from here.
            OSError: it can't be read.
        """
        ...

    def check(self, node: Node, *, in_use: bool) -> list[str]:
        """What blocks pods' traffic, in words.

        Args:
            node: the node.
            in_use: pods are attached; before the first, what an ADD ensures may be missing.

        Raises:
            OSError: the kernel does not answer.
        """
        ...

    def recorded(self, node: Node) -> dict[str, str]:
        """The previous values; empty: nothing was changed since boot. Raises OSError: they can't be read."""
        ...

    def restore(self, node: Node, values: dict[str, str], place: Path) -> str:
        """Put back what ``recorded`` says, in the /proc/sys/net at ``place``; in words, empty: nothing to do.

        Raises:
            OSError: it can't be put back.
        """
        ...


STATES: tuple[HostState, ...] = (forwarding, nic_routes, routing_rule, packets, forwarding_v6)


def ensure(node: Node, name: str, network: PodNetwork) -> None:
    """Set whatever is missing that a pod of a network needs.

    Args:
        node: the node.
        name: of the network.
        network: what its netconf says.

    Raises:
        KernelRefused, OSError: as ``HostState.ensure``.
    """
    if node.known_host is None:
        _ensure_way(node)
    else:
        node.known_host.answer(_ensure_way, lambda: _ensure_way(node))
    packets.ensure_for(name, network, node)
    if network.ipv6:
        routing_rule.ensure_of(IPV6, node)
        forwarding_v6.ensure(node)


def _ensure_way(node: Node) -> None:
    """Make sure that packets reach pods at all."""
    forwarding.ensure(node)
    routing_rule.ensure_of(IPV4, node)


ensure_attached = packets.ensure_for
"""As ``ensure``, for what depends on the links of a network's pods, after one was attached."""


def check(node: Node, *, in_use: bool = True) -> list[str]:
    """What blocks pods' traffic, in words; also what can't be checked.

    Args: as ``HostState.check``.
    """
    found: list[str] = []
    for state in STATES:
        try:
            found += state.check(node, in_use=in_use)
        except OSError as error:
            found.append(f"{state.KIND} can't be checked: {error.strerror}")
    return found


def warnings(node: Node) -> list[str]:
    """As ``check``, for a call: an agent uses its last answer if nothing has changed since."""
    if node.known_host is None:
        return check(node)
    from cni_plugin.kernel import packet_filter

    with suppress(OSError):
        if not packet_filter.has_legacy():
            return node.known_host.packet_rules_answer(check, lambda: check(node))
    return check(node)
