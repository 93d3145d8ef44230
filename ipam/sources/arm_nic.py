"""What ARM lists of a NIC, together with what IMDS says of it, as a ``Nic``.

ARM knows the IP configurations and their states, IMDS the subnets and what the platform has set up for the
node. Pure; the SDK's objects are only read.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from ipam.quoting import quoted
from ipam.sources.nic import Entry, host_subnet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipam.model import IPAddress, IPNetwork, Nic
    from ipam.sources.nic import NicBuilder

NetworkInterface: TypeAlias = Any
IpConfiguration: TypeAlias = Any
VirtualNetwork: TypeAlias = Any
"""``NetworkInterface``, ``NetworkInterfaceIPConfiguration`` and ``VirtualNetwork`` of the SDK, which one
module alone imports."""

SUCCEEDED, DELETING = "Succeeded", "Deleting"


def fits(nic: NetworkInterface, seen: Nic | None) -> bool:
    """Whether what IMDS said before is enough to read what ARM lists now: every address is in a subnet, and
    IMDS need not decide about any.
    """
    if seen is None:
        return False
    for each in nic.ip_configurations or ():
        if each.private_ip_address and ":" not in each.private_ip_address:
            first = _first_of(each)
            if first is not None and not any(first in subnet for subnet in seen.subnets):
                return False
        if _is_uncertain(each):
            return False
    return True


def nic_of(nic: NetworkInterface, built: NicBuilder, seen: Nic | None) -> Nic:
    """What ARM lists of a NIC, with the subnets and the decisions of IMDS (``seen``)."""
    subnets = seen.subnets if seen else ()
    in_imds = {address.ip for address in seen.addresses} if seen else set()
    built.subnets.extend(subnets)
    had_v6 = False
    used: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for each in nic.ip_configurations or ():
        state = _state(each)
        if not each.private_ip_address:
            skipped[state] += 1
            continue
        text = _address(each)
        v6 = ":" in text
        # The first IPv6 address is the host's, as in IMDS.
        own = bool(each.primary) or (v6 and not had_v6)
        had_v6 = had_v6 or v6
        if not own and state != SUCCEEDED:
            if state == DELETING or _first_of(each) not in in_imds:
                skipped[state] += 1
                continue
            used[state] += 1
        public = each.public_ip_address is not None
        built.add(Entry(text, own, str(each.name or ""), public), [*subnets, *host_subnet(text)])
    for state in sorted({*used, *skipped}):
        built.warnings.append(
            f"NIC {built.mac}: {used[state] + skipped[state]} IP configurations in state {quoted(state)}: "
            f"{used[state]} are used, since IMDS lists them, {skipped[state]} are skipped"
        )
    return built.nic()


def vnet_ids(nics: Iterable[NetworkInterface]) -> list[str]:
    """The ids of the virtual networks of NICs: an id of a subnet begins with that of its network."""
    subnets = (each.subnet for nic in nics for each in nic.ip_configurations or () if each.subnet)
    return list(dict.fromkeys(str(each.id).partition("/subnets/")[0] for each in subnets if each.id))


def spaces_of(vnet: VirtualNetwork) -> list[IPNetwork]:
    """The address space of a virtual network and of those it is connected with by a peering."""
    spaces = [vnet.address_space]
    for peering in vnet.virtual_network_peerings or ():
        if str(getattr(peering.peering_state, "value", peering.peering_state)) == "Connected":
            spaces += [peering.remote_address_space, peering.remote_virtual_network_address_space]
    prefixes = [str(prefix) for space in spaces if space for prefix in space.address_prefixes or ()]
    return [ip_network(each, strict=False) for each in prefixes]


def _is_uncertain(configuration: IpConfiguration) -> bool:
    """Whether ARM alone can't show that its address works. After an operation that failed "the network
    interface may still be functional" (troubleshooting of failed provisioning states), so the platform on the
    node decides: IMDS.
    """
    return not configuration.primary and _state(configuration) not in {SUCCEEDED, DELETING}


def _state(configuration: IpConfiguration) -> str:
    state = configuration.provisioning_state
    return str(getattr(state, "value", state))  # an enumeration of the SDK, or text that it does not know


def _first_of(configuration: IpConfiguration) -> IPAddress | None:
    """Its address, or the first one of its block."""
    try:
        return ip_network(_address(configuration), strict=False)[0]
    except ValueError:
        return None


def _address(configuration: IpConfiguration) -> str:
    """The address or block: the prefix length may be in the address or in a field of its own."""
    text = str(configuration.private_ip_address)
    length = configuration.private_ip_address_prefix_length
    return f"{text}/{length}" if length and "/" not in text else text
