"""The node's half of a removal that the cluster's operator makes: offering, withdrawing, forgetting.

An IP configuration is offered when all its addresses are marked in the store, so that no ADD can take one,
and the file of ``offers`` says so; then it may be published. Once published it may be taken. So the marks
stay until it is gone from the NIC, or until it was withdrawn and the operator has seen that: then its next
step, which is conditional on what it saw, can't include it any more. A write whose outcome is not known may
still arrive; it does not once a later one has, since all are conditional. Killed at any point, the marks,
the file and the resource are enough to go on. It must not know how many should go, or what is published
beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.provision import offers
from ipam.provision.offers import TO_BE_WITHDRAWN, Offer, Offers
from ipam.provision.plan import Unit, leaving
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ipam.ipam import Ipam
    from ipam.model import IPAddress
    from ipam.provision.exchange import AzvnetNode


class Handshake:
    """Not for several threads. Every method that changes anything raises OSError when the file can't be
    written: then nothing may be published.

    Args:
        ipam: the pool.
        clock: seconds of CLOCK_BOOTTIME.
        tell: writes to the log.
    """

    def __init__(self, ipam: Ipam, clock: Callable[[], float], tell: Callable[[str, str], None]) -> None:
        self._ipam = ipam
        self._clock = clock
        self._tell = tell
        self._offers = Offers()
        self._begun: frozenset[str] = frozenset()
        self._withdrawn_in = 0

    def resume(self) -> None:
        """Continue with what was offered before the agent started, by this mode or another."""
        now = self._clock()
        known = offers.read(self._ipam.lasting).since(now)
        self._keep(offers.inherited(known, self._ipam.leaving(), now))

    @property
    def names(self) -> tuple[str, ...]:
        """What has to be published: all its addresses are marked, and the file records it."""
        return tuple(sorted(each.name for each in self._offered))

    @property
    def addresses(self) -> frozenset[IPAddress]:
        """What is marked for the sake of an offer in this resource, withdrawn or not."""
        return frozenset(ip for each in self._offers.offers if each.name for ip in each.addresses)

    def kept(self) -> frozenset[IPAddress]:
        """What stays marked: whatever was offered and may be taken."""
        return self._offers.addresses

    @property
    def is_settled(self) -> bool:
        """Nothing is offered, and everything that was is certain to stay or gone."""
        return not any(each.name for each in self._offers.offers)

    @property
    def withdrawn_in(self) -> int:
        """The generation of the resource in which something was withdrawn last: what the operator asked for
        before it has seen that is out of date.
        """
        return self._withdrawn_in

    def follow(self, node: AzvnetNode) -> None:
        """What the resource says now; it is never older than at the last call."""
        self._begun = frozenset(node.status.releasing)
        known = self._offers.of_resource(node.uid)
        there = {each.name for each in node.status.configurations}
        kept = [each for each in known.offers if not _is_over(each, node, there)]
        self._keep(replace(known, offers=tuple(kept)))
        self._withdraw({each.name for each in self._offered} - there - self._begun)

    def wrote(self, node: AzvnetNode) -> None:
        """The resource as a write of ours has left it: what it lacks is withdrawn for certain."""
        published = frozenset(node.spec.releasing)

        def now(each: Offer) -> Offer:
            gone = each.withdrawn == TO_BE_WITHDRAWN and each.name not in published
            return replace(each, withdrawn=node.generation) if gone else each

        changed = tuple(map(now, self._offers.offers))
        if changed != self._offers.offers:
            self._withdrawn_in = node.generation
        self._keep(replace(self._offers, offers=changed))

    def publishing(self) -> None:
        """Before each write: from now on it may be taken for another while."""
        now = self._clock()
        names = frozenset(self.names)
        self._keep(
            replace(
                self._offers,
                offers=tuple(replace(e, at=now) if e.name in names else e for e in self._offers.offers),
            )
        )

    def hold(self) -> None:
        """Forget what nobody can take any more. Mark the rest of what is offered again, since marks do not
        last forever; what has lost one is not offered any more.
        """
        self._keep(self._offers.since(self._clock(), but=self._begun))
        groups = [each.addresses for each in self._offered]
        marked = frozenset(self._ipam.mark_leaving(groups, 0.0)) if groups else frozenset()
        lost = [each for each in self._offered if each.addresses not in marked]
        if lost:
            names = {each.name for each in lost}
            self._tell("warning", f"{', '.join(sorted(names))} can't be removed: an address of it is in use")
            self._withdraw(names)
            self._ipam.mark_gone(ip for each in lost for ip in each.addresses)

    def withdraw(self) -> None:
        """Offer nothing from the next write on, whatever has begun."""
        self._withdraw(self.names)

    def offer(self, units: Iterable[Unit], cooldown: float) -> None:
        """Mark IP configurations and offer them; those of which a pod just got an address stay."""
        known = {each.name for each in self._offers.offers}
        units = tuple(each for each in units if each.name not in known)
        if not units:
            return
        marked = frozenset(self._ipam.mark_leaving([each.addresses for each in units], cooldown))
        now = self._clock()
        new = tuple(Offer(e.name, e.addresses, now) for e in units if e.addresses in marked)
        if new:
            self._keep(replace(self._offers, offers=(*self._offers.offers, *new)))

    def limit(self, most: int, but: Collection[str] = ()) -> int:
        """Withdraw what was offered beyond so many addresses, as far as it has not begun to go; how many
        addresses are offered then. ``but``: those that do not count.
        """
        counted = [
            Unit(each.name, each.addresses)
            for each in self._offered
            if each.name not in self._begun and each.name not in but and each.addresses
        ]
        staying = leaving(counted, most)
        self._withdraw({each.name for each in counted} - {each.name for each in staying})
        return sum(len(each.addresses) for each in staying)

    @property
    def _offered(self) -> list[Offer]:
        return [each for each in self._offers.offers if each.name and not each.withdrawn]

    def _withdraw(self, names: Collection[str]) -> None:
        self._keep(
            replace(
                self._offers,
                offers=tuple(
                    replace(e, withdrawn=TO_BE_WITHDRAWN) if e.name in names and not e.withdrawn else e
                    for e in self._offers.offers
                ),
            )
        )

    def _keep(self, known: Offers) -> None:
        """The file comes first: what is not in it is not held back."""
        if known != self._offers:
            offers.keep(self._ipam.lasting, known)
            self._offers = known


def _is_over(offer: Offer, node: AzvnetNode, there: Collection[str]) -> bool:
    """Whether an IP configuration that was offered can't be taken any more."""
    if offer.withdrawn <= 0 or offer.name in node.status.releasing or offer.name in node.spec.releasing:
        return False
    return offer.name not in there or node.status.observed_generation >= offer.withdrawn
