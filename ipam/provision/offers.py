"""IP configurations that the operator of the cluster may take from the NIC, in a file that outlives a reboot.

What was offered once may be taken until it is certain that the operator knows that it was withdrawn. The
file is written before an offer is published, and outlives the agent, its mode and the store: none of the
addresses is given out before then. Where that can't be found out any more (another mode, another resource),
ten minutes are long enough: nothing is begun a minute after the offer, and no operation takes longer.

It must not know how an offer is published, nor what is marked in the store.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ipam.state_file import make_lasting, replace_document
from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ipam.model import IPAddress

NAME = "operator.json"
KEPT_SECONDS = 600.0
"""From the last time that an offer was published: a removal begins within 60 s of it, and 39 recorded writes
took 198 s at most."""
TO_BE_WITHDRAWN = -1


class Offer(Value):
    """One IP configuration."""

    name: str
    """Empty: what was marked when the agent came, by a mode or an agent that is gone."""
    addresses: tuple[IPAddress, ...]
    at: float
    """When it was published last, or may have been: CLOCK_BOOTTIME."""
    withdrawn: int = 0
    """Generation of the resource since which it is not offered any more; 0: it is offered;
    ``TO_BE_WITHDRAWN``: it will not be from the next write on."""


class Offers(Value):
    """All of them, and the resource in which they are."""

    uid: str = ""
    offers: tuple[Offer, ...] = ()

    def of_resource(self, uid: str) -> Offers:
        """The same for another resource: what was offered in the one before is offered nowhere now, and the
        operator can't say any more whether it knows.
        """
        if uid == self.uid:
            return self
        if not self.uid:
            return replace(self, uid=uid)
        return Offers(uid, tuple(replace(each, name="") for each in self.offers))

    def since(self, now: float, but: Collection[str] = ()) -> Offers:
        """Without what is forgotten by now, ``but`` for these names. What is from the future is from before
        the last boot, whose clock began anew.
        """

        def stays(offer: Offer) -> bool:
            at = offer.at if offer.at <= now else 0.0
            return now - at < KEPT_SECONDS or (bool(offer.name) and offer.name in but)

        return replace(self, offers=tuple(filter(stays, self.offers)))

    @property
    def addresses(self) -> frozenset[IPAddress]:
        """Everything that may be taken."""
        return frozenset(ip for each in self.offers for ip in each.addresses)


def read(directory: Path) -> Offers:
    """What was written last; nothing where there is no file, or one that was not written here."""
    try:
        document: Any = json.loads((directory / NAME).read_bytes())
        return Offers(
            str(document["uid"]),
            tuple(
                Offer(
                    str(each["name"]),
                    tuple(map(ip_address, each["addresses"])),
                    float(each["at"]),
                    int(each["withdrawn"]),
                )
                for each in document["offers"]
            ),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Offers()


def keep(directory: Path, known: Offers) -> None:
    """Replace the file for good, whatever happens. Raises OSError: nothing may be published then."""
    replace_document(
        directory / NAME,
        {
            "uid": known.uid,
            "offers": [
                {
                    "name": each.name,
                    "addresses": list(map(str, each.addresses)),
                    "at": each.at,
                    "withdrawn": each.withdrawn,
                }
                for each in known.offers
            ],
        },
    )
    make_lasting(directory / NAME)


def kept(directory: Path, now: float) -> frozenset[IPAddress]:
    """What is to be given to nobody for the sake of an offer."""
    return read(directory).since(now).addresses


def inherited(known: Offers, marked: frozenset[IPAddress], now: float) -> Offers:
    """With an offer for what is marked and not in any: whoever marked it may have begun to remove it."""
    more = tuple(marked - known.addresses)
    return replace(known, offers=(*known.offers, Offer("", more, now))) if more else known
