"""The addresses of a simulated node, in memory: what `ipam.provision.follower` needs of ``ipam.ipam.Ipam``.

A thousand stores on one disk would measure the disk. States mean what they mean in the store; there is no
cooldown, since no pod ends here. It must not know why an address is marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.model import AddressState, AddressStatus, Attachment, Owner, Reservation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ipam.model import IPAddress, Listing, PoolAddress

NETWORK = "azvnet"


class MemoryPool:
    """Not for several threads. ``directory``: for the small files beside a store."""

    def __init__(self, directory: Path) -> None:
        self.lasting = directory
        self._listed: dict[IPAddress, PoolAddress] = {}
        self._held: dict[IPAddress, Reservation] = {}
        self._marked: set[IPAddress] = set()
        self._free: list[IPAddress] = []
        """The lowest one last."""
        self._shown: tuple[AddressStatus, ...] | None = None

    def list(self, listing: Listing) -> None:
        """What the source lists now."""
        self._listed = {each.ip: each for nic in listing.nics for each in nic.addresses}
        self._changed()

    def give(self, namespace: str, pod: str) -> IPAddress | None:
        """Give a pod the lowest address that is free; None: nothing is."""
        if not self._free:
            return None
        ip = self._free.pop()
        found = self._listed[ip]
        self._held[ip] = Reservation(
            Attachment(f"{namespace}-{pod}", "eth0"),
            Owner(NETWORK, pod_namespace=namespace, pod_name=pod),
            found.address,
            found.gateway,
            "imds",
            0.0,
            True,
            "",
            found.nic_mac,
        )
        self._shown = None
        return ip

    @property
    def listed(self) -> int:
        """How many addresses there are."""
        return len(self._listed)

    # What the follower asks for

    def addresses(self, cooldown: float) -> tuple[AddressStatus, ...]:
        """As ``Ipam.addresses``; ``cooldown`` does not matter where nothing is released."""
        del cooldown
        if self._shown is None:
            everything = sorted(self._listed.keys() | self._held.keys())
            self._shown = tuple(map(self._status, everything))
        return self._shown

    def leaving(self) -> frozenset[IPAddress]:
        """As ``Ipam.leaving``."""
        return frozenset(self._marked)

    def mark_leaving(
        self, groups: Iterable[tuple[IPAddress, ...]], cooldown: float
    ) -> tuple[tuple[IPAddress, ...], ...]:
        """As ``Ipam.mark_leaving``."""
        del cooldown
        marked = tuple(group for group in groups if self._held.keys().isdisjoint(group))
        self._mark(ip for group in marked for ip in group)
        return marked

    def mark_gone(self, ips: Iterable[IPAddress]) -> None:
        """As ``Ipam.mark_gone``."""
        self._mark(ips)

    def unmark_leaving(self, ips: Iterable[IPAddress]) -> None:
        """As ``Ipam.unmark_leaving``."""
        gone = self._marked.intersection(ips)
        if gone:
            self._marked -= gone
            self._changed()

    def _mark(self, ips: Iterable[IPAddress]) -> None:
        new = set(ips) - self._marked
        if new:
            self._marked |= new
            self._changed()

    def _changed(self) -> None:
        self._shown = None
        self._free = sorted(self._listed.keys() - self._held.keys() - self._marked, reverse=True)

    def _status(self, ip: IPAddress) -> AddressStatus:
        held, listed = self._held.get(ip), self._listed.get(ip)
        known = listed or held
        assert known is not None
        state = AddressState.FREE
        if held is not None:
            state = AddressState.ASSIGNED
        elif ip in self._marked:
            state = AddressState.QUARANTINED
        return AddressStatus(
            known.address, known.gateway, known.nic_mac, "imds", state, listed is not None, held
        )
