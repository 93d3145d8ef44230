"""The estate in the words of Azure Resource Manager: NICs, subnets, virtual machines. Pure.

Source: fields of recorded answers of Microsoft.Network (NIC GET) and Microsoft.Compute.
"""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any

from integration.fabric.documents import group_id, scale_set_id, vm_id
from integration.fabric.model import Placement

if TYPE_CHECKING:
    from integration.fabric.model import ConfigurationV6, Estate, IpConfiguration, Nic, Subnet, Vm, Vnet

LENGTH = "privateIPAddressPrefixLength"

IMAGE = (
    "/subscriptions/0e000000-0000-4000-8000-000000000002/resourceGroups/images/providers/Microsoft.Compute/"
    "galleries/nodes/images/ubuntu/versions/1.0.0"
)
"""Of every instance: in a gallery of somebody else, as that of managed nodes is."""

_INSIDE = 5
"""Which address of a block stands for it where no CIDR is shown."""

_NAMESPACE = uuid.UUID("4c7f2a2e-55a4-4f3a-8f0b-7c1f0e0a9d11")


def nic_id(estate: Estate, vm: Vm, nic: Nic) -> str:
    """The ARM id of a NIC; of a Uniform instance it is a child of the instance."""
    if vm.placement is Placement.UNIFORM:
        return f"{vm_id(estate, vm)}/networkInterfaces/{nic.name}"
    return f"{group_id(estate)}/providers/Microsoft.Network/networkInterfaces/{nic.name}"


def vnet_id(estate: Estate, name: str) -> str:
    """The ARM id of a virtual network."""
    return f"{group_id(estate)}/providers/Microsoft.Network/virtualNetworks/{name}"


def subnet_id(estate: Estate, vnet: str, name: str) -> str:
    """The ARM id of a subnet."""
    return f"{vnet_id(estate, vnet)}/subnets/{name}"


@functools.lru_cache(maxsize=4096)
def etag(resource_id: str, revision: int) -> str:
    """The ETag of one revision of a resource: weak, with a GUID, as Microsoft.Network gives."""
    return f'W/"{uuid.uuid5(_NAMESPACE, f"{resource_id.casefold()}#{revision}")}"'


def nic_document(estate: Estate, vm: Vm, nic: Nic, *, expand_subnet: bool = False) -> dict[str, Any]:
    """A NIC."""
    identifier = nic_id(estate, vm, nic)
    uniform = vm.placement is Placement.UNIFORM
    document: dict[str, Any] = {
        "name": nic.name,
        "id": identifier,
        "etag": etag(identifier, nic.revision),
        "properties": {
            "provisioningState": nic.state.value,
            "resourceGuid": str(uuid.uuid5(_NAMESPACE, identifier)),
            "ipConfigurations": [
                *(
                    _configuration_document(estate, nic, entry, identifier, expand_subnet, bare=uniform)
                    for entry in nic.configurations
                ),
                *_configurations_v6(estate, nic, identifier),
            ],
            "dnsSettings": {
                "dnsServers": [],
                "appliedDnsServers": [],
                "internalDomainNameSuffix": "fabric.internal.cloudapp.net",
                **nic.settings.get("dnsSettings", {}),
            },
            "macAddress": nic.mac.replace(":", "-").upper(),
            "vnetEncryptionSupported": False,
            "enableIPForwarding": False,
            "enableAcceleratedNetworking": False,
            "disableTcpStateTracking": False,
            "hostedWorkloads": [],
            "primary": nic.primary,
            **({} if vm.is_deleted else {"virtualMachine": {"id": vm_id(estate, vm)}}),
            "tapConfigurations": [],
            "nicType": "Standard",
            "allowPort25Out": True,
            "defaultOutboundConnectivityEnabled": False,
            "auxiliaryMode": "None",
            "auxiliarySku": "None",
            **{name: value for name, value in nic.settings.items() if name != "dnsSettings"},
        },
    }
    return document if uniform else {**document, **_top_level(estate), "tags": dict(nic.tags)}


def configuration_document(estate: Estate, vm: Vm, nic: Nic, entry: IpConfiguration) -> dict[str, Any]:
    """One IP configuration of a NIC."""
    bare = vm.placement is Placement.UNIFORM
    return _configuration_document(estate, nic, entry, nic_id(estate, vm, nic), False, bare=bare)


def subnet_document(estate: Estate, vnet: Vnet, subnet: Subnet) -> dict[str, Any]:
    """A subnet."""
    identifier = subnet_id(estate, vnet.name, subnet.name)
    return {
        "name": subnet.name,
        "id": identifier,
        "etag": etag(identifier, 1),
        "type": "Microsoft.Network/virtualNetworks/subnets",
        "properties": {
            "provisioningState": "Succeeded",
            **(
                {"addressPrefixes": _prefixes(subnet)}
                if subnet.prefix_v6
                else {"addressPrefix": str(subnet.prefix)}
            ),
            "delegations": [],
            "privateEndpointNetworkPolicies": "Disabled",
            "privateLinkServiceNetworkPolicies": "Enabled",
        },
    }


def vnet_document(estate: Estate, vnet: Vnet) -> dict[str, Any]:
    """A virtual network with its subnets."""
    identifier = vnet_id(estate, vnet.name)
    return {
        "name": vnet.name,
        "id": identifier,
        "etag": etag(identifier, 1),
        "type": "Microsoft.Network/virtualNetworks",
        "location": estate.location,
        "properties": {
            "provisioningState": "Succeeded",
            "addressSpace": {"addressPrefixes": _prefixes(vnet)},
            "subnets": [subnet_document(estate, vnet, subnet) for subnet in vnet.subnets],
            "virtualNetworkPeerings": [_peering(estate, estate.vnet(peer)) for peer in sorted(vnet.peers)],
        },
    }


def _peering(estate: Estate, peer: Vnet) -> dict[str, Any]:
    space = {"addressPrefixes": _prefixes(peer)}
    return {
        "name": peer.name,
        "properties": {
            "peeringState": "Connected",
            "remoteVirtualNetwork": {"id": vnet_id(estate, peer.name)},
            "remoteAddressSpace": space,
            "remoteVirtualNetworkAddressSpace": space,
            "allowVirtualNetworkAccess": True,
        },
    }


def instance_document(estate: Estate, vm: Vm, *, blocks: bool) -> dict[str, Any]:
    """An instance of a Uniform scale set; ``blocks``: the api-version knows the length of blocks."""
    document = vm_document(estate, vm)
    document["etag"] = f'"{vm.revision}"'
    own = any(
        not (all(e.of_model for e in nic.configurations) and all(e.of_model for e in nic.configurations_v6))
        for nic in vm.nics
    )
    document["properties"] |= {
        "latestModelApplied": True,
        "modelDefinitionApplied": "VirtualMachine" if own else "VirtualMachineScaleSet",
        "networkProfileConfiguration": {
            "networkInterfaceConfigurations": [_nic_model(estate, nic, blocks=blocks) for nic in vm.nics]
        },
        "provisioningState": vm.state.value,
        "storageProfile": {"imageReference": {"id": IMAGE}, "dataDisks": []},
    }
    return document


def _nic_model(estate: Estate, nic: Nic, *, blocks: bool) -> dict[str, Any]:
    entries: list[tuple[IpConfiguration | ConfigurationV6, bool, str]] = [
        *((entry, entry.primary, "IPv4") for entry in nic.configurations),
        *((entry, False, "IPv6") for entry in nic.configurations_v6),
    ]
    return {
        "name": nic.name,
        "properties": {
            "primary": nic.primary,
            "enableAcceleratedNetworking": False,
            "disableTcpStateTracking": False,
            "dnsSettings": {"dnsServers": []},
            "enableIPForwarding": False,
            **nic.settings,
            "ipConfigurations": [
                {
                    "name": entry.name,
                    "properties": {
                        **({"primary": True} if primary else {}),
                        "subnet": {"id": subnet_id(estate, nic.vnet, nic.subnet.name)},
                        "privateIPAddressVersion": version,
                        **({} if entry.single or not blocks else {LENGTH: entry.block.prefixlen}),
                        **entry.settings,
                    },
                }
                for entry, primary, version in entries
            ],
        },
    }


def vm_document(estate: Estate, vm: Vm) -> dict[str, Any]:
    """A virtual machine, or an instance of a Uniform scale set: what leads to its NICs."""
    uniform = vm.placement is Placement.UNIFORM
    properties: dict[str, Any] = {
        "provisioningState": "Succeeded",
        "vmId": vm.vm_id,
        "osProfile": {"computerName": vm.computer_name},
        "networkProfile": {
            "networkInterfaces": [
                {"id": nic_id(estate, vm, nic), "properties": {"primary": nic.primary}} for nic in vm.nics
            ]
        },
    }
    if vm.placement is Placement.FLEXIBLE:
        properties["virtualMachineScaleSet"] = {"id": scale_set_id(estate, vm)}
    kind = "virtualMachineScaleSets/virtualMachines" if uniform else "virtualMachines"
    return {
        "name": vm.name,
        "id": vm_id(estate, vm),
        "type": f"Microsoft.Compute/{kind}",
        "location": estate.location,
        **({"instanceId": vm.instance} if uniform else {}),
        "tags": dict(vm.tags),
        "properties": properties,
    }


def _prefixes(of: Vnet | Subnet) -> list[str]:
    return [str(each) for each in (of.prefix, of.prefix_v6) if each is not None]


def _configurations_v6(estate: Estate, nic: Nic, owner: str) -> list[dict[str, Any]]:
    """Those of IPv6, none of which is called primary."""
    return [
        {
            "name": entry.name,
            "id": f"{owner}/ipConfigurations/{entry.name}",
            "etag": etag(owner, nic.revision),
            "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
            "properties": {
                "provisioningState": entry.state.value,
                "privateIPAddress": str(entry.address if entry.single else entry.block),
                **({} if entry.single else {LENGTH: entry.block.prefixlen}),
                "privateIPAllocationMethod": "Static" if entry.static else "Dynamic",
                "subnet": {"id": subnet_id(estate, nic.vnet, nic.subnet.name)},
                "primary": False,
                "privateIPAddressVersion": "IPv6",
                **entry.settings,
            },
        }
        for entry in nic.configurations_v6
    ]


def _top_level(estate: Estate) -> dict[str, Any]:
    return {
        "type": "Microsoft.Network/networkInterfaces",
        "location": estate.location,
        "kind": "Regular",
    }


def _configuration_document(
    estate: Estate, nic: Nic, entry: IpConfiguration, owner: str, expand_subnet: bool, *, bare: bool
) -> dict[str, Any]:
    subnet: dict[str, Any] = {"id": subnet_id(estate, nic.vnet, nic.subnet.name)}
    if expand_subnet:
        subnet = subnet_document(estate, estate.vnet(nic.vnet), nic.subnet)
    length = {} if entry.single else {LENGTH: entry.block.prefixlen}
    shown = entry.address if entry.single else entry.block[_INSIDE] if bare else entry.block
    return {
        "name": entry.name,
        "id": f"{owner}/ipConfigurations/{entry.name}",
        "etag": etag(owner, nic.revision),
        "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
        "properties": {
            "provisioningState": entry.state.value,
            "privateIPAddress": str(shown),
            **length,
            "privateIPAllocationMethod": "Static" if entry.static else "Dynamic",
            "subnet": subnet,
            "primary": entry.primary,
            "privateIPAddressVersion": "IPv4",
            **entry.settings,
        },
    }
