"""The body of a NIC's PUT, read as Microsoft.Network reads it: what may be written, what it refers to. Pure.

Source: REST reference of networkInterfaces. Read-only fields are ignored, of references only the id counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any

from integration.fabric.allocation import Wanted
from integration.fabric.allocation_v6 import BLOCK_PREFIX_V6, WantedV6
from integration.fabric.armdocuments import nic_id, subnet_id
from integration.fabric.changes import BLOCK_PREFIX, RefusedChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from integration.fabric.model import Estate, Nic, Vm

OF_NIC = (
    "auxiliaryMode",
    "auxiliarySku",
    "disableTcpStateTracking",
    "dnsSettings",
    "enableAcceleratedNetworking",
    "enableIPForwarding",
    "migrationPhase",
    "networkSecurityGroup",
    "nicType",
    "privateLinkService",
    "workloadType",
)
"""Properties of a NIC that can be written, beside its IP configurations."""

OF_CONFIGURATION = (
    "applicationGatewayBackendAddressPools",
    "applicationSecurityGroups",
    "gatewayLoadBalancer",
    "loadBalancerBackendAddressPools",
    "loadBalancerInboundNatRules",
    "publicIPAddress",
    "virtualNetworkTaps",
)
"""Properties of an IP configuration that can be written, beside its address, subnet and rank."""

_OF_DNS = ("dnsServers", "internalDnsNameLabel")


OF_INSTANCE_CONFIGURATION = (
    "applicationGatewayBackendAddressPools",
    "applicationSecurityGroups",
    "loadBalancerBackendAddressPools",
    "loadBalancerInboundNatPools",
    "publicIPAddressConfiguration",
)
"""The same for an instance of a scale set."""


@dataclass(frozen=True, slots=True)
class NicBody:
    """What a PUT wants of a NIC."""

    location: str
    tags: Mapping[str, str]
    settings: Mapping[str, Any]
    configurations: tuple[Wanted, ...]
    configurations_v6: tuple[WantedV6, ...]
    subnets: tuple[str, ...]
    """The ids of the subnets of the configurations, in lower case, each once."""


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RefusedChange: there is none.
    """
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise RefusedChange(
            "InvalidRequestContent",
            f"The request content was invalid and could not be deserialized: '{error}'.",
        ) from None
    if not isinstance(document, dict):
        raise RefusedChange("InvalidRequestContent", "The request content is not a JSON object.")
    return document


def nic_body(estate: Estate, vm: Vm, nic: Nic, document: Mapping[str, Any]) -> NicBody:
    """What the document wants of this NIC.

    Raises:
        RefusedChange: it is not a NIC's document.
    """
    location = document.get("location")
    if not location:
        raise RefusedChange("LocationRequired", "The location property is required for this definition.")
    properties = document.get("properties") or {}
    entries = properties.get("ipConfigurations") or []
    if not entries:
        raise RefusedChange(
            "NetworkInterfaceMustHaveAtLeastOneIPConfiguration",
            f"Network Interface {nic.name} must have at least one IP configuration.",
        )
    identifier = nic_id(estate, vm, nic)
    wanted = tuple(_wanted(entry, identifier) for entry in entries if not is_v6(entry))
    wanted_v6 = tuple(_wanted_v6(entry, identifier) for entry in entries if is_v6(entry))
    check_names(identifier, [*(each.name for each in wanted), *(each.name for each in wanted_v6)])
    if len(wanted) == 1:
        wanted = (replace(wanted[0], primary=True),)
    settings = {name: reduced(properties[name]) for name in OF_NIC if properties.get(name) is not None}
    if "dnsSettings" in settings:
        settings["dnsSettings"] = {k: v for k, v in settings["dnsSettings"].items() if k in _OF_DNS}
    return NicBody(
        str(location).replace(" ", "").casefold(),
        dict(document.get("tags") or {}),
        settings,
        wanted,
        wanted_v6,
        tuple(dict.fromkeys(subnet_of(entry, identifier).casefold() for entry in entries)),
    )


def check_subnets(estate: Estate, vm: Vm, nic: Nic, subnets: tuple[str, ...]) -> None:
    """Refuse configurations that are not all in the NIC's own subnet.

    Raises:
        RefusedChange: they are in several, in one that does not exist, or in another one than now.
    """
    known = {
        subnet_id(estate, vnet.name, subnet.name).casefold()
        for vnet in estate.vnets
        for subnet in vnet.subnets
    }
    for each in subnets:
        if each not in known:
            raise RefusedChange(
                "InvalidResourceReference",
                f"Resource {each} referenced by resource {nic_id(estate, vm, nic)} was not found. Please "
                "make sure that the referenced resource exists, and that both resources are in the same "
                "region.",
            )
    if len(subnets) > 1:
        raise RefusedChange(
            "IPConfigurationsOnNicCannotBelongToDifferentSubnets",
            "IPConfigurations on a Nic cannot belong to different subnets.",
        )
    if subnets[0] != subnet_id(estate, nic.vnet, nic.subnet.name).casefold():
        raise RefusedChange("SubnetChangeNotEmulated", f"The emulator can't move {nic.name} to {subnets[0]}.")


def references(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every resource that a NIC's document refers to: the property's name and the id."""
    properties = document.get("properties") or {}
    yield from reference_ids("networkSecurityGroup", properties.get("networkSecurityGroup"))
    for entry in properties.get("ipConfigurations") or []:
        inner = entry.get("properties") or {}
        for name in ("subnet", *OF_CONFIGURATION):
            yield from reference_ids(name, inner.get(name))


def reduced(value: Any) -> Any:
    """A written value as it is kept: of everything that has an id, only that."""
    if isinstance(value, dict):
        return {"id": value["id"]} if "id" in value else {k: reduced(v) for k, v in value.items()}
    if isinstance(value, list):
        return [reduced(each) for each in value]
    return value


def reference_ids(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The ids in the value of one property, each with its name."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and each.get("id"):
            yield name, each["id"]


def _wanted(entry: Mapping[str, Any], identifier: str) -> Wanted:
    name = entry.get("name")
    if not name:
        raise RefusedChange("InvalidRequestFormat", "Every IP configuration must have a name.")
    properties = entry.get("properties") or {}
    own = f"{identifier}/ipConfigurations/{name}"
    length = properties.get("privateIPAddressPrefixLength")
    static = str(properties.get("privateIPAllocationMethod") or "Dynamic").casefold() == "static"
    block = _static(properties.get("privateIPAddress"), length, own) if static else None
    if block is not None and block.prefixlen != 32:
        length = block.prefixlen
    if length not in {None, BLOCK_PREFIX}:
        raise RefusedChange(
            "InvalidPrivateIPAddressPrefixLength",
            f"IP configuration {own} asks for a prefix length of {length}; only {BLOCK_PREFIX} is supported.",
        )
    settings = {key: reduced(properties[key]) for key in OF_CONFIGURATION if properties.get(key)}
    if length is not None and "publicIPAddress" in settings:
        raise RefusedChange(
            "PublicIPAddressNotAllowedOnPrefix",
            f"IP configuration {own} has a prefix, so no public IP address.",
        )
    return Wanted(str(name), bool(properties.get("primary")), block, length, settings)


def is_v6(entry: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of IPv6. Raises RefusedChange: of neither family."""
    version = str((entry.get("properties") or {}).get("privateIPAddressVersion") or "IPv4")
    if version.casefold() not in {"ipv4", "ipv6"}:
        raise RefusedChange(
            "InvalidRequestFormat", f"{version} of {entry.get('name')} is no privateIPAddressVersion."
        )
    return version.casefold() == "ipv6"


def check_names(identifier: str, names: Sequence[str]) -> None:
    """Names are those of a NIC's children, whatever their family. Raises RefusedChange: two are the same."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise RefusedChange(
                "DuplicateResourceName",
                f"Resource {identifier} has two child resources with the same name ({name}).",
            )
        seen.add(name.casefold())


def _wanted_v6(entry: Mapping[str, Any], identifier: str) -> WantedV6:
    name = entry.get("name")
    if not name:
        raise RefusedChange("InvalidRequestFormat", "Every IP configuration must have a name.")
    properties = entry.get("properties") or {}
    own = f"{identifier}/ipConfigurations/{name}"
    if properties.get("primary"):
        raise RefusedChange(
            "IPv6ConfigurationCannotBePrimary", f"IP configuration {own} is of IPv6, so it can't be primary."
        )
    length = properties.get("privateIPAddressPrefixLength")
    static = str(properties.get("privateIPAllocationMethod") or "Dynamic").casefold() == "static"
    block = None
    if static:
        text = str(properties.get("privateIPAddress") or "")
        try:
            address = IPv6Interface(text)
            block = IPv6Network(f"{address.ip}/{length or address.network.prefixlen}")
        except ValueError:
            raise RefusedChange(
                "InvalidIPAddressFormat",
                f"Private IP address {text} of {own} is not an address or an aligned block.",
            ) from None
        length = None if block.prefixlen == 128 else block.prefixlen
    if length not in {None, BLOCK_PREFIX_V6}:
        raise RefusedChange(
            "InvalidPrivateIPAddressPrefixLength",
            f"IP configuration {own} asks for a prefix length of {length}; only {BLOCK_PREFIX_V6} is "
            "supported.",
        )
    settings = {key: reduced(properties[key]) for key in OF_CONFIGURATION if properties.get(key)}
    return WantedV6(str(name), block, length, settings)


def _static(text: Any, length: Any, own: str) -> IPv4Network:
    if not text:
        raise RefusedChange(
            "PrivateIPAddressMissing", f"IP configuration {own} is Static and has no private IP address."
        )
    try:
        address = IPv4Interface(text)
        prefix = length if length is not None else address.network.prefixlen
        return IPv4Network(f"{address.ip}/{prefix}")
    except ValueError:
        raise RefusedChange(
            "InvalidIPAddressFormat",
            f"Private IP address {text} of {own} is not an address or an aligned block.",
        ) from None


def subnet_of(entry: Mapping[str, Any], identifier: str) -> str:
    """The id of the subnet of a configuration. Raises RefusedChange if it has none."""
    subnet = (entry.get("properties") or {}).get("subnet") or {}
    if not subnet.get("id"):
        raise RefusedChange(
            "SubnetReferenceRequired",
            "Subnet reference is required for ipconfiguration "
            f"{identifier}/ipConfigurations/{entry.get('name')}.",
        )
    return str(subnet["id"])
