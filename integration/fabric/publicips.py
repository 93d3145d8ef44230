"""Public IP addresses of IP configurations: given, taken away, and what the fabric translates. Pure.

Source: Azure, ip-services/public-ip-addresses and associate-public-ip-address-vm. A public IP belongs to one
IP configuration, which names it; inbound traffic is as if a network security group allowed it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from integration.fabric.changes import RefusedChange
from integration.fabric.documents import group_id
from integration.fabric.model import Placement, PublicIp
from integration.fabric.ruleset import FIRST_PUBLIC_IP
from integration.fabric.ruleset_v6 import FIRST_PUBLIC_IP_V6

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any, TypeAlias

    from integration.fabric.model import ConfigurationV6, Estate, IpConfiguration, Nic, Vm

    Entry: TypeAlias = IpConfiguration | ConfigurationV6

PROPERTY = "publicIPAddress"


def public_ip_id(estate: Estate, name: str) -> str:
    """The ARM id of a public IP address."""
    return f"{group_id(estate)}/providers/Microsoft.Network/publicIPAddresses/{name}"


def public_of(estate: Estate, entry: Entry) -> PublicIp | None:
    """The public IP of a configuration; None: it has none, or names one that does not exist."""
    named = str((entry.settings.get(PROPERTY) or {}).get("id", "")).casefold()
    known = (each for each in estate.public_ips if public_ip_id(estate, each.name).casefold() == named)
    return next(known, None) if named else None


def with_public(
    estate: Estate, computer_name: str, address: IPv4Address | IPv6Address, *, basic: bool = False
) -> Estate:
    """Give the configuration with that address a new public IP.

    Raises:
        RefusedChange: the machine has no such single address, or it has one already; or it is an instance of
            a Uniform scale set, where the model says who has one.
    """
    vm = estate.vm(computer_name)
    nic, entry = _found(vm, address)
    if vm.placement is Placement.UNIFORM:
        raise RefusedChange("PublicIPNotEmulated", f"The emulator gives {vm.name} of a Uniform set none.")
    if PROPERTY in entry.settings:
        raise RefusedChange("PublicIPAddressInUse", f"IP configuration {entry.name} has a public IP address.")
    first = FIRST_PUBLIC_IP if address.version == 4 else FIRST_PUBLIC_IP_V6
    used = {each.address for each in estate.public_ips}
    chosen = next(first + number for number in range(len(used) + 1) if first + number not in used)
    public = PublicIp(f"public-{chosen}".replace(":", "-"), chosen, basic)
    settings = {**entry.settings, PROPERTY: {"id": public_ip_id(estate, public.name)}}
    changed = replace(estate, public_ips=(*estate.public_ips, public))
    return changed.with_vm(vm.with_nic(_with(nic, entry, settings)))


def without_public(estate: Estate, computer_name: str, address: IPv4Address | IPv6Address) -> Estate:
    """Take the public IP of the configuration with that address away, and delete it.

    Raises:
        RefusedChange: it has none.
    """
    vm = estate.vm(computer_name)
    nic, entry = _found(vm, address)
    public = public_of(estate, entry)
    if public is None:
        raise RefusedChange("InvalidRequest", f"IP configuration {entry.name} has no public IP address.")
    settings = {name: value for name, value in entry.settings.items() if name != PROPERTY}
    changed = replace(estate, public_ips=tuple(each for each in estate.public_ips if each != public))
    return changed.with_vm(vm.with_nic(_with(nic, entry, settings)))


def translated(estate: Estate, vms: Iterable[Vm]) -> dict[IPv4Address | IPv6Address, PublicIp]:
    """The public IPs of delivered configurations, by private address."""
    found: dict[IPv4Address | IPv6Address, PublicIp] = {}
    for nic in (nic for vm in vms for nic in vm.nics):
        entries: list[Entry] = [*nic.delivered, *nic.delivered_v6]
        for entry in entries:
            if entry.settings and (public := public_of(estate, entry)) is not None:
                found[entry.address] = public
    return found


def _found(vm: Vm, address: IPv4Address | IPv6Address) -> tuple[Nic, Entry]:
    for nic in vm.nics:
        entries: list[Entry] = [*nic.configurations, *nic.configurations_v6]
        for entry in entries:
            if entry.single and entry.address == address:
                return nic, entry
    raise RefusedChange("InvalidRequest", f"{vm.computer_name} has no IP configuration with {address}.")


def _with(nic: Nic, entry: Entry, settings: Mapping[str, Any]) -> Nic:
    """The NIC with other settings of one of its configurations."""
    entries = tuple(replace(e, settings=settings) if e is entry else e for e in nic.configurations)
    entries_v6 = tuple(replace(e, settings=settings) if e is entry else e for e in nic.configurations_v6)
    return replace(nic, configurations=entries, configurations_v6=entries_v6)
