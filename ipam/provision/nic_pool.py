"""What a NIC has, compared with the pool of its addresses: on the way, lost, removable, and their marks.

The same rules hold on the node whoever changes the NIC. Addresses that the NIC does not have are given to
no pod, though the source may still list them. Addresses that it has may be given out again, unless
something may remove them at any moment. It must not know who changes a NIC, nor when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision.plan import Unit
from ipam.provision.pool_view import PoolView
from ipam.provision.progress import LISTED_SECONDS, LISTING, NOT_LISTED, Progress
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipam.ipam import Ipam
    from ipam.model import IPAddress, Reservation
    from ipam.provision.nic_document import Configuration
    from ipam.provision.progress import NodeFacts


class NicPool:
    """One NIC of one node. Not for several threads.

    Args:
        ipam: the pool.
        around: the node.
        kept: what stays marked though the NIC has it.
    """

    def __init__(self, ipam: Ipam, around: NodeFacts, kept: Callable[[], frozenset[IPAddress]]) -> None:
        self._ipam = ipam
        self._around = around
        self._kept = kept
        self._mac = ""
        self._vanished: tuple[Reservation, ...] = ()
        self._unlisted_since: float | None = None
        self.configurations: tuple[Configuration, ...] = ()
        """Of the NIC when it was read last."""

    def view(self) -> PoolView:
        """The pool now."""
        return PoolView(self._ipam.addresses(self._around.cooldown()), self._around.carried(), self._mac)

    def on_nic(self) -> frozenset[IPAddress]:
        """What the NIC had when it was read last."""
        return frozenset(ip for each in self.configurations for ip in each.addresses)

    def in_flight(self, pool: PoolView) -> frozenset[IPAddress]:
        """What is on the NIC for pods, and not in the source's listing yet."""
        usable = (each for each in self.configurations if not each.primary and each.state == "Succeeded")
        return frozenset(ip for each in usable for ip in each.addresses if ip.version == 4) - pool.known

    def removable(self, pool: PoolView) -> list[Unit]:
        """Our IP configurations that no pod uses or has used recently."""
        free = frozenset(pool.free)
        ours = [each for each in self.configurations if each.is_ours and not each.primary]
        return [
            Unit(each.name, each.addresses)
            for each in ours
            if each.addresses and free.issuperset(each.addresses)
        ]

    def failed(self, pool: PoolView) -> list[Unit]:
        """Our IP configurations whose operation failed and that nobody has come to use."""
        failed = [each for each in self.configurations if each.is_ours and each.state == "Failed"]
        return [Unit(e.name, e.addresses) for e in failed if pool.known.isdisjoint(e.addresses)]

    def note(self, configurations: Iterable[Configuration], mac: str) -> None:
        """What the NIC has, no operation on it being in progress."""
        self.configurations, self._mac = tuple(configurations), mac

    def note_gone(self, pool: PoolView, *, mark: bool) -> None:
        """Compare with the pool what the NIC was just found to have. Marks follow it, where they may.

        What it does not have is marked, whether we or somebody else took it: the source may go on listing it
        for a while. So is what a pod holds or has just released, so that no other pod is given it afterwards.
        """
        gone = pool.of_nic - self.on_nic()
        self._vanished = tuple(each for each in pool.reservations if each.ip in gone)
        if mark:
            self._keep_marked(gone | (self._ipam.leaving() - self.on_nic()), pool)

    def keep_marked(self, pool: PoolView) -> bool:
        """Take marks from what the source does not list any more; whether there is any mark."""
        going = self._ipam.leaving()
        if going:
            self._keep_marked(going - self.on_nic(), pool)
        return bool(going)

    def _keep_marked(self, gone: frozenset[IPAddress], pool: PoolView) -> None:
        """Mark exactly what is gone from the NIC while the source still lists it, and what is on offer; a
        source that lists nothing may not have been read since the store was made.
        """
        marked = gone & pool.listed if pool.listed else gone
        self._ipam.mark_gone(marked)
        kept = self._kept() & self.on_nic()
        self._ipam.unmark_leaving(self._ipam.leaving() - marked - kept)

    # Reporting

    def vanished(self, pool: PoolView) -> tuple[Reservation, ...]:
        """What live pods hold and the NIC did not have when it was read last."""
        self._vanished = tuple(each for each in self._vanished if each.attachment in pool.holders)
        return self._vanished

    def differs(self, pool: PoolView) -> bool:
        """Whether source, NIC and pods do not agree."""
        return bool(self.in_flight(pool) or self._vanished or pool.of_nic - pool.listed)

    def note_listing(self, pool: PoolView) -> None:
        """Look whether the source lists what the NIC has."""
        if not self.in_flight(pool):
            self._unlisted_since = None
        elif self._unlisted_since is None:
            self._unlisted_since = self._around.clock()

    def listing(self, pool: PoolView) -> Progress | None:
        """What to report about addresses that the source does not list; None: it lists everything."""
        missing, since = len(self.in_flight(pool)), self._unlisted_since
        if not missing:
            return None
        if since is not None and self._around.clock() - since > LISTED_SECONDS:
            return Progress(
                NOT_LISTED,
                f"the source has not listed {missing} addresses of the NIC for {LISTED_SECONDS:.0f} s",
                "Look at the source (azvnet status); source arm lists what Azure Resource Manager has.",
            )
        return Progress(LISTING, f"{missing} addresses are on the NIC and are not listed yet")

    def with_facts(self, told: Progress, pool: PoolView) -> Progress:
        """What is told, with counts and names."""
        return replace(
            told,
            in_flight=len(self.in_flight(pool)),
            configurations=len(self.configurations),
            vanished=self.vanished(pool),
        )
