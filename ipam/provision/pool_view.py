"""The pool as the provisioner sees it: the IPv4 addresses of one NIC by state. Pure.

It must not know where they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.mac import normalize_mac
from ipam.model import AddressState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import AddressStatus, IPAddress


class PoolView:
    """One look.

    Args:
        addresses: the whole pool.
        carried: what the host itself carries: no pod gets it.
        mac: the NIC, however it is written; empty: all of them.
    """

    def __init__(self, addresses: Iterable[AddressStatus], carried: frozenset[IPAddress], mac: str) -> None:
        # What was adopted from the kernel has no NIC until a source lists it: better counted than overlooked.
        macs = {"", normalize_mac(mac)} if mac else None
        own = [
            each for each in addresses if each.address.version == 4 and (macs is None or each.nic_mac in macs)
        ]
        held = [each.reservation for each in own if each.reservation is not None]
        self.held = len(held)
        self.reservations = held
        self.holders = [each.attachment for each in held]
        self.pods = frozenset(each.owner.pod for each in held)
        self.free = [
            each.address.ip
            for each in own
            if each.state is AddressState.FREE and each.address.ip not in carried
        ]
        """Could be given to a pod now."""
        self.cooling = sum(each.state is AddressState.COOLING for each in own)
        self.unusable = len(own) - self.held - len(self.free) - self.cooling
        self.listed = frozenset(each.address.ip for each in own if each.listed)
        """By a source, at its last read."""
        self.known = frozenset(each.address.ip for each in own)
        self.of_nic = frozenset(each.address.ip for each in own if mac and each.nic_mac)
        """Certainly of this NIC, whoever holds them."""
