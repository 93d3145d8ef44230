"""From the entries of an address document to ``Nic`` and ``Listing``: what every source has in common.

One bad entry is skipped with a warning and affects nothing else. What a document expands to is limited to
what Azure allows. It must not know the format of any document.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from ipam.azure_limits import NIC_CONFIGURATIONS
from ipam.errors import SourceUnreadable
from ipam.mac import normalize_mac
from ipam.model import IPAddress, IPNetwork, Listing, Nic, PoolAddress
from ipam.quoting import one_line, quoted
from ipam.subnet import gateway_of, reserved_addresses, why_not_for_pods
from ipam.value import Value, field, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_SUBNETS = 16
"""Prefixes of one NIC: all its IP configurations are in one subnet, which may have several."""
MOST_NICS = 16
"""NICs of one machine: more than any size of virtual machine can have ("Sizes for virtual machines")."""
LARGEST_BLOCK = 16
"""Addresses: the blocks that Azure puts on a NIC are /28 ("Private IP address blocks")."""
LARGEST_BLOCK_V6, USED_OF_BLOCK_V6 = 112, 120
"""Prefix lengths: of IPv6 a NIC can have one block of 65,536 addresses; its first 256 are used, as Azure's
own CNS does, since no node has more pods."""
LONGEST_NAME = 80
"""Characters of the name of an IP configuration ("Naming rules and restrictions for Azure resources")."""
MOST_WARNINGS = 32
"""Warnings kept of one listing; the others are counted."""


class Entry(Value):
    """One address as a document has it."""

    text: str
    """``10.0.0.5``, or a block ``10.0.0.16/28``."""
    own: bool
    """It belongs to the host, not to pods."""
    configuration: str = ""
    """Name of its IP configuration; empty where the document has none."""
    public: bool = False
    """It has a public address of its own."""


class NicBuilder(Value):
    """Collects one NIC."""

    mac: str
    primary: bool | None
    warnings: list[str]
    subnets: list[IPNetwork] = field(default_factory=list)
    own: list[IPAddress] = field(default_factory=list)
    addresses: dict[IPAddress, PoolAddress] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    entries_v6: list[Entry] = field(default_factory=list)
    configurations: dict[IPAddress, str] = field(default_factory=dict)
    public: list[IPAddress] | None = None
    """Those with a public address; None: the document does not say."""

    def add_subnet(self, prefix: str) -> IPNetwork | None:
        """A subnet of this NIC; None when ``prefix`` is not a network, or one too many."""
        try:
            subnet = ip_network(prefix.strip(), strict=False)
        except ValueError as error:
            self._skip(f"subnet {quoted(prefix)}", one_line(str(error)))
            return None
        if len(self.subnets) >= MOST_SUBNETS:
            self._skip(f"subnet {subnet}", f"it is one of more than {MOST_SUBNETS} of this NIC")
            return None
        self.subnets.append(subnet)
        return subnet

    def add(self, entry: Entry, subnets: Sequence[IPNetwork]) -> None:
        """One IP configuration: an address or block, which has to be in one of ``subnets``."""
        (entries := self.entries_v6 if ":" in entry.text else self.entries).append(entry)
        if len(entries) > NIC_CONFIGURATIONS:
            return  # ``nic`` says how many
        for ip in self._addresses_of(entry.text):
            if entry.configuration:
                self.configurations.setdefault(ip, entry.configuration[:LONGEST_NAME])
            if entry.public and self.public is not None:
                self.public.append(ip)
            if entry.own:
                self.own.append(ip)
            else:
                self._add_for_pods(ip, _subnet_of(ip, subnets))

    def _add_for_pods(self, ip: IPAddress, subnet: IPNetwork | None) -> None:
        why = why_not_for_pods(ip)
        if why:
            self._skip(str(ip), f"{why}, no pod can have it")
        elif subnet is None:
            self._skip(str(ip), "it is in none of the NIC's subnets")
        elif ip in reserved_addresses(subnet):
            self._skip(str(ip), f"Azure reserves it in {subnet}")
        elif ip in self.addresses:
            self._skip(str(ip), "it is listed twice")
        else:
            interface = ip_interface(f"{ip}/{subnet.prefixlen}")
            self.addresses[ip] = PoolAddress(interface, gateway_of(subnet), self.mac)

    def nic(self) -> Nic:
        """What was collected."""
        for entries, of in ((self.entries, ""), (self.entries_v6, " of IPv6")):
            if len(entries) > NIC_CONFIGURATIONS:
                # Before the others: it says what happened to most of them.
                self.warnings.insert(
                    0,
                    f"NIC {self.mac} lists {len(entries)} IP configurations{of}; Azure allows "
                    f"{NIC_CONFIGURATIONS} for each NIC, the others are skipped",
                )
        own = frozenset(self.own)
        free = tuple(address for ip, address in self.addresses.items() if ip not in own)
        names = tuple(self.configurations.items())
        listed = self.public
        public = None if listed is None else tuple(each.ip for each in free if each.ip in listed)
        return Nic(self.mac, self.primary, tuple(self.own), free, tuple(self.subnets), names, public)

    def _addresses_of(self, text: str) -> Iterable[IPAddress]:
        """The address, or all addresses of a block: Azure gives a pod any of them, first and last too."""
        try:
            if "/" not in text:
                return (ip_address(text.strip()),)
            block = ip_network(text.strip(), strict=False)
        except ValueError as error:
            self._skip(quoted(text), one_line(str(error)))
            return ()
        if isinstance(block, IPv6Network) and LARGEST_BLOCK_V6 <= block.prefixlen < USED_OF_BLOCK_V6:
            return tuple(next(block.subnets(new_prefix=USED_OF_BLOCK_V6)))
        if block.num_addresses > (256 if block.version == 6 else LARGEST_BLOCK):
            why = f"a block of more than {LARGEST_BLOCK} addresses; Azure's are /28"
            if block.version == 6:
                why = f"a block larger than /{LARGEST_BLOCK_V6}, the size of Azure's IPv6 blocks"
            self._skip(str(block), why)
            return ()
        return tuple(block)

    def _skip(self, what: str, why: str) -> None:
        self.warnings.append(f"NIC {self.mac}: {what}: {why}")


def builder(
    mac: str,
    primary: bool | None,  # noqa: FBT001
    warnings: list[str],
    *,
    says_public: bool = False,
) -> NicBuilder | None:
    """Start a NIC; None, with a warning, when ``mac`` is not a MAC address.

    ``says_public``: the document says which addresses have a public one of their own.
    """
    try:
        return NicBuilder(normalize_mac(mac), primary, warnings, public=[] if says_public else None)
    except ValueError:
        warnings.append(f"NIC {quoted(mac)} is skipped: this is not a MAC address")
        return None


def listing(
    source: str,
    nics: Iterable[Nic],
    warnings: list[str],
    document: bytes,
    inside: tuple[IPNetwork, ...] = (),
) -> Listing:
    """Put the NICs of ``document`` together; an address that two NICs claim stays with the first."""
    found: list[Nic] = []
    taken: set[IPAddress] = set()
    macs: set[str] = set()
    for number, nic in enumerate(nics):
        if number >= MOST_NICS:
            warnings.insert(
                0, f"more than {MOST_NICS} NICs are listed; no machine has that many, the others are skipped"
            )
            break
        if nic.mac in macs:
            warnings.append(f"NIC {nic.mac} is listed twice, the first entry is used")
            continue
        macs.add(nic.mac)
        kept = []
        for address in nic.addresses:
            if address.ip in taken:
                warnings.append(f"NIC {nic.mac}: {address.ip}: another NIC lists it too")
                continue
            taken.add(address.ip)
            kept.append(address)
        found.append(replace(nic, addresses=tuple(kept)))
    return Listing(source, tuple(found), bounded(warnings), inside, sha256(document).hexdigest())


def bounded(warnings: Sequence[str]) -> tuple[str, ...]:
    """The first warnings of a document; how many more there are."""
    more = len(warnings) - MOST_WARNINGS
    return (*warnings[:MOST_WARNINGS], *([f"and {more} more"] if more > 0 else []))


def not_a_document(source: str, where: str, why: str) -> SourceUnreadable:
    """The error for something that is not an address document."""
    return SourceUnreadable(
        f"source {source}: {where} is not an address document: {one_line(why)}",
        f"Look at what {where} holds; it has to list the node's NICs with their IP configurations.",
    )


def host_subnet(text: str) -> list[IPNetwork]:
    """An IPv6 address is a subnet of its own where the document names none; an IPv4 one is not."""
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
