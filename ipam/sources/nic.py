"""From the words of an address document to ``Nic`` and ``Listing``: what every source has in common.

One bad entry is passed over with a warning and spoils nothing else. It must not know the format of
any document.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from ipam.errors import SourceUnreadable
from ipam.mac import normalize_mac
from ipam.model import IPAddress, IPNetwork, Listing, Nic, PoolAddress
from ipam.subnet import gateway_of, reserved_addresses
from ipam.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LARGEST_BLOCK = 256
"""Addresses; Azure puts blocks of 16 (/28) on a NIC, a much larger one is a mistake in the document."""


class Entry(Value):
    """One address as a document has it."""

    text: str
    """``10.0.0.5``, or a block ``10.0.0.16/28``."""
    own: bool
    """It belongs to the host, not to pods."""


class NicBuilder(Value):
    """Collects one NIC."""

    mac: str
    primary: bool | None
    warnings: list[str]
    subnets: list[IPNetwork] = field(default_factory=list)
    own: list[IPAddress] = field(default_factory=list)
    addresses: dict[IPAddress, PoolAddress] = field(default_factory=dict)

    def add_subnet(self, prefix: str) -> IPNetwork | None:
        """A subnet of this NIC; None when ``prefix`` is none."""
        try:
            subnet = ip_network(prefix.strip(), strict=False)
        except ValueError as error:
            self._pass_over(f"subnet {prefix!r}", str(error))
            return None
        self.subnets.append(subnet)
        return subnet

    def add(self, entry: Entry, subnets: Sequence[IPNetwork]) -> None:
        """One address or block, which has to lie in one of ``subnets``."""
        for ip in self._addresses_of(entry.text):
            subnet = _subnet_of(ip, subnets)
            if entry.own:
                self.own.append(ip)
            elif subnet is None:
                self._pass_over(str(ip), "it is in none of the NIC's subnets")
            elif ip in reserved_addresses(subnet):
                self._pass_over(str(ip), f"Azure reserves it in {subnet}")
            elif ip in self.addresses:
                self._pass_over(str(ip), "it is listed twice")
            else:
                interface = ip_interface(f"{ip}/{subnet.prefixlen}")
                self.addresses[ip] = PoolAddress(interface, gateway_of(subnet), self.mac)

    def nic(self) -> Nic:
        """What was collected."""
        own = frozenset(self.own)
        free = tuple(address for ip, address in self.addresses.items() if ip not in own)
        return Nic(self.mac, self.primary, tuple(self.own), free, tuple(self.subnets))

    def _addresses_of(self, text: str) -> Iterable[IPAddress]:
        """The address, or all addresses of a block: Azure gives a pod any of them, first and last too."""
        try:
            if "/" not in text:
                return (ip_address(text.strip()),)
            block = ip_network(text.strip(), strict=False)
        except ValueError as error:
            self._pass_over(repr(text), str(error))
            return ()
        if block.num_addresses > LARGEST_BLOCK:
            self._pass_over(text, f"a block of more than {LARGEST_BLOCK} addresses")
            return ()
        return tuple(block)

    def _pass_over(self, what: str, why: str) -> None:
        self.warnings.append(f"NIC {self.mac}: {what}: {why}")


def builder(mac: str, primary: bool | None, warnings: list[str]) -> NicBuilder | None:  # noqa: FBT001
    """Start a NIC; None, with a warning, when ``mac`` is none."""
    try:
        return NicBuilder(normalize_mac(mac), primary, warnings)
    except ValueError as error:
        warnings.append(f"NIC {mac!r}: {error}")
        return None


def listing(source: str, nics: Iterable[Nic], warnings: list[str], document: bytes) -> Listing:
    """Put the NICs of ``document`` together; an address that two NICs claim stays with the first."""
    found: list[Nic] = []
    taken: set[IPAddress] = set()
    macs: set[str] = set()
    for nic in nics:
        if nic.mac in macs:
            warnings.append(f"NIC {nic.mac} is listed twice, the first is taken")
            continue
        macs.add(nic.mac)
        kept = []
        for address in nic.addresses:
            if address.ip in taken:
                warnings.append(f"NIC {nic.mac}: {address.ip}: another NIC lists it too")
                continue
            taken.add(address.ip)
            kept.append(address)
        found.append(Nic(nic.mac, nic.primary, nic.own_addresses, tuple(kept), nic.subnets))
    return Listing(source, tuple(found), tuple(warnings), sha256(document).hexdigest())


def not_a_document(source: str, where: str, why: str) -> SourceUnreadable:
    """The error for something that is no address document."""
    return SourceUnreadable(
        f"source {source}: {where} is no address document: {why}",
        f"Look at what {where} holds; it has to list the node's NICs with their IP configurations.",
    )


def host_subnet(text: str) -> list[IPNetwork]:
    """An IPv6 address is a subnet of its own where the document tells none; an IPv4 one is not."""
    try:
        network = ip_network(text)
    except ValueError:
        return []
    return [network] if isinstance(network, IPv6Network) else []


def _subnet_of(ip: IPAddress, subnets: Sequence[IPNetwork]) -> IPNetwork | None:
    for subnet in subnets:
        if ip.version == subnet.version and ip in subnet:
            return subnet
    return None
