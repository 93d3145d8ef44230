"""Adding IP configurations to a NIC's document in Azure Resource Manager, and removing them from it. Pure.

A PUT replaces the whole NIC ("Network Interfaces - Create Or Update"), so it has to repeat the last GET
except for our own change: documents are copied as they are, unknown fields included, and only
configurations with a name of ours are ever removed. It must not know how documents are read and written.
"""

from __future__ import annotations

import copy
import re
import secrets
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from ipam.quoting import quoted
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ipam.model import IPAddress, IPNetwork

Document = dict[str, Any]
"""JSON of ARM: a NIC, or an instance of a Uniform scale set."""

_CLAIMS = (
    *("publicIPAddress", "loadBalancerBackendAddressPools", "loadBalancerInboundNatRules"),
    *("applicationGatewayBackendAddressPools", "gatewayLoadBalancer", "virtualNetworkTaps"),
)
"""What others attach to an IP configuration: one of ours that has it is theirs from then on."""
_OURS = re.compile(r"azvnet-[0-9a-f]{16}")
BLOCK_LENGTH = 28
"""Prefix length of the blocks that Azure puts on a NIC ("Private IP address blocks")."""


class NotANic(ValueError):
    """A document lacks something that every NIC has; says what."""


class Configuration(Value):
    """One IP configuration as ARM shows it."""

    name: str
    block: IPNetwork | None
    """The address as a network of one, or the /28; None: it has none yet."""
    primary: bool
    state: str
    """``provisioningState``."""
    is_ours: bool
    """We named it, and nobody has attached anything to it since. Only then may it be removed."""

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """All of them: Azure delivers the first and last address of a block as well."""
        return tuple(self.block) if self.block is not None else ()


def new_names(number: int) -> tuple[str, ...]:
    """Names for new IP configurations, which nothing else has."""
    return tuple(f"azvnet-{secrets.token_hex(8)}" for _ in range(number))


def named_by_us(name: str) -> bool:
    """Whether a name is one of ``new_names``."""
    return _OURS.fullmatch(name) is not None


def provisioning_state(document: Document) -> str:
    """``provisioningState`` of a NIC or a virtual machine; raises NotANic."""
    return str(_properties(document).get("provisioningState", ""))


def mac_of(nic: Document) -> str:
    """The MAC address as ARM writes it; empty for a machine that is off."""
    return str(_properties(nic).get("macAddress") or "")


def machine_of(nic: Document) -> str:
    """The id of the virtual machine that it is attached to; empty: none."""
    machine = _properties(nic).get("virtualMachine")
    return str(machine.get("id") or "") if isinstance(machine, dict) else ""


def location_of(nic: Document) -> str:
    """The region; empty: it does not say, as those of scale sets."""
    return str(nic.get("location") or "")


def subnet_of(nic: Document) -> str:
    """The id of the subnet of the primary IP configuration; raises NotANic."""
    return str(_subnet(_primary(_entries(nic)))["id"])


def configurations(nic: Document) -> tuple[Configuration, ...]:
    """The IP configurations of a NIC; raises NotANic."""
    return tuple(_configuration(each) for each in _entries(nic))


def with_new(nic: Document, names: Iterable[str], *, blocks: bool) -> Document:
    """The NIC with a new IP configuration for each name that it does not have yet.

    They are in the primary one's subnet, since all of a NIC have to be, and in its application security
    groups: rules by group would not let a pod in otherwise.

    Raises:
        NotANic: there is no primary IP configuration with a subnet.
    """
    changed = copy.deepcopy(nic)
    _append(_entries(changed), names, {"privateIPAllocationMethod": "Dynamic"}, blocks=blocks)
    return changed


def without(nic: Document, names: Collection[str]) -> Document:
    """The NIC without these IP configurations, except those that we did not name."""
    changed = copy.deepcopy(nic)
    _remove(_entries(changed), names)
    return changed


def instance_with_new(vm: Document, nic: str, names: Iterable[str], *, blocks: bool) -> Document:
    """As ``with_new``, of the NIC of that name of an instance of a Uniform scale set, ready to be sent."""
    changed = _sendable(vm)
    # No allocation method: the model of a scale set has none, all addresses are dynamic.
    _append(_entries_of_instance(changed, nic), names, {}, blocks=blocks)
    return changed


def instance_without(vm: Document, nic: str, names: Collection[str]) -> Document:
    """As ``without``, of the NIC of that name of an instance of a Uniform scale set, ready to be sent."""
    changed = _sendable(vm)
    _remove(_entries_of_instance(changed, nic), names)
    return changed


def names_of_instance(vm: Document, nic: str) -> frozenset[str]:
    """The names of the IP configurations of that NIC of an instance; raises NotANic."""
    return frozenset(str(each.get("name", "")) for each in _entries_of_instance(vm, nic))


def with_lengths(nic: Document, vm: Document, name: str) -> Document:
    """The NIC of that name with the lengths of blocks as its instance has them: a read of the instance's NICs
    may leave them out.
    """
    lengths = {
        each.get("name"): length
        for each in _entries_of_instance(vm, name)
        if (length := _properties(each).get("privateIPAddressPrefixLength"))
    }
    changed = copy.deepcopy(nic)
    for entry in _entries(changed):
        if entry.get("name") in lengths:
            _properties(entry).setdefault("privateIPAddressPrefixLength", lengths[entry["name"]])
    return changed


def _sendable(vm: Document) -> Document:
    changed = copy.deepcopy(vm)
    # Sending the image back needs a permission on its gallery, and it can't be changed anyway (AKS#1819).
    _properties(changed).get("storageProfile", {}).pop("imageReference", None)
    changed.pop("resources", None)
    return changed


def _append(entries: list[Document], names: Iterable[str], more: Document, *, blocks: bool) -> None:
    primary = _primary(entries)
    known = {each.get("name") for each in entries}
    groups = primary["properties"].get("applicationSecurityGroups")
    for name in names:
        if name in known:
            continue
        properties: Document = {
            "primary": False,
            **more,
            "privateIPAddressVersion": "IPv4",
            "subnet": {"id": _subnet(primary)["id"]},
        }
        if blocks:
            properties["privateIPAddressPrefixLength"] = BLOCK_LENGTH
        if groups:
            properties["applicationSecurityGroups"] = copy.deepcopy(groups)
        entries.append({"name": name, "properties": properties})


def _remove(entries: list[Document], names: Collection[str]) -> None:
    entries[:] = [each for each in entries if each.get("name") not in names or not _is_only_ours(each)]


def _configuration(entry: Document) -> Configuration:
    properties = _properties(entry)
    text = str(properties.get("privateIPAddress") or "")
    length = properties.get("privateIPAddressPrefixLength")
    if text and "/" not in text and length:
        text += f"/{length}"
    try:
        # Not strict: a block may be named by an address inside of it.
        block = ip_network(text, strict=False) if text else None
    except ValueError as error:
        raise NotANic(f"IP configuration {quoted(str(entry.get('name')))}: {error}") from error
    return Configuration(
        str(entry.get("name", "")),
        block,
        bool(properties.get("primary")),
        str(properties.get("provisioningState", "")),
        _is_only_ours(entry),
    )


def _is_only_ours(entry: Document) -> bool:
    properties = _properties(entry)
    return named_by_us(str(entry.get("name"))) and not any(properties.get(claim) for claim in _CLAIMS)


def _entries(nic: Document) -> list[Document]:
    return _list_of(_properties(nic), "ipConfigurations")


def _entries_of_instance(vm: Document, nic: str) -> list[Document]:
    profile = _properties(vm).get("networkProfileConfiguration") or {}
    for each in _list_of(profile, "networkInterfaceConfigurations"):
        if str(each.get("name", "")).casefold() == nic.casefold():
            return _entries(each)
    raise NotANic(f"the instance has no NIC {quoted(nic)}")


def _primary(entries: Sequence[Document]) -> Document:
    """The one that says so, or the first that says nothing: the model of a scale set may leave it out."""
    marked = [each for each in entries if each.get("properties", {}).get("primary")]
    silent = [each for each in entries if "primary" not in each.get("properties", {})]
    found = [each for each in (*marked, *silent) if not named_by_us(str(each.get("name")))]
    if not found:
        raise NotANic("it has no primary IP configuration")
    return found[0]


def _subnet(entry: Document) -> Document:
    subnet = entry["properties"].get("subnet")
    if not isinstance(subnet, dict) or not subnet.get("id"):
        raise NotANic(f"IP configuration {quoted(str(entry.get('name')))} has no subnet")
    return subnet


def _properties(document: Document) -> Document:
    properties = document.get("properties")
    if not isinstance(properties, dict):
        raise NotANic("it has no properties")
    return properties


def _list_of(properties: Document, key: str) -> list[Document]:
    found = properties.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise NotANic(f"it has no list of {key}")
    return found
