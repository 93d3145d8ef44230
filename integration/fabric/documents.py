"""The estate in the words of IMDS and of the wireserver. Pure.

Sources: Azure, instance-metadata-service (fields and the versions that brought them); the wireserver's
interface document as the Azure CNI plugins read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from integration.fabric.model import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address
    from typing import TypeAlias

    from integration.fabric.model import Estate, Nic, PublicIp, Vm

    Public: TypeAlias = Mapping[IPv4Address | IPv6Address, PublicIp]

NO_PUBLIC: Public = {}
_SINCE = {
    "azEnvironment": "2018-10-01",
    "evictionPolicy": "2020-12-01",
    "isHostCompatibilityLayerVm": "2020-06-01",
    "licenseType": "2020-09-01",
    "osProfile": "2020-07-15",
    "placementGroupId": "2017-08-01",
    "priority": "2020-12-01",
    "provider": "2018-10-01",
    "publicKeys": "2018-04-02",
    "resourceGroupName": "2017-08-01",
    "resourceId": "2019-03-11",
    "securityProfile": "2020-06-01",
    "storageProfile": "2019-06-01",
    "subscriptionId": "2017-08-01",
    "tags": "2017-08-01",
    "tagsList": "2019-06-04",
    "userData": "2021-01-01",
    "virtualMachineScaleSet": "2021-03-01",
    "vmScaleSetName": "2017-12-01",
    "zone": "2017-12-01",
}
"""The api-version that brought a field; the others were there from the beginning."""


def vm_id(estate: Estate, vm: Vm) -> str:
    """The ARM id of a machine."""
    compute = f"{group_id(estate)}/providers/Microsoft.Compute"
    if vm.placement is Placement.UNIFORM:
        return f"{compute}/virtualMachineScaleSets/{vm.scale_set}/virtualMachines/{vm.instance}"
    return f"{compute}/virtualMachines/{vm.name}"


def group_id(estate: Estate) -> str:
    """The ARM id of the resource group."""
    return f"/subscriptions/{estate.subscription}/resourceGroups/{estate.resource_group}"


def scale_set_id(estate: Estate, vm: Vm) -> str:
    """The ARM id of the scale set of a machine that has one."""
    return f"{group_id(estate)}/providers/Microsoft.Compute/virtualMachineScaleSets/{vm.scale_set}"


def compute_document(estate: Estate, vm: Vm, version: str) -> dict[str, Any]:
    """``/metadata/instance/compute`` for one api-version: every value a string, absent ones empty."""
    flexible = vm.placement is Placement.FLEXIBLE
    document: dict[str, Any] = {
        "azEnvironment": estate.environment,
        "evictionPolicy": "",
        "isHostCompatibilityLayerVm": "false",
        "licenseType": "",
        "location": estate.location,
        "name": vm.name,
        "offer": "",
        "osProfile": {
            "adminUsername": "azureuser",
            "computerName": vm.computer_name,
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "placementGroupId": "",
        "platformFaultDomain": "0",
        "platformUpdateDomain": "0",
        "priority": "",
        "provider": "Microsoft.Compute",
        "publicKeys": [],
        "publisher": "",
        "resourceGroupName": estate.resource_group,
        "resourceId": vm_id(estate, vm),
        "securityProfile": {"secureBootEnabled": "false", "virtualTpmEnabled": "false"},
        "sku": "",
        "storageProfile": {"dataDisks": [], "resourceDisk": {"size": "0"}},
        "subscriptionId": estate.subscription,
        "tags": ";".join(f"{name}:{value}" for name, value in vm.tags),
        "tagsList": [{"name": name, "value": value} for name, value in vm.tags],
        "userData": "",
        "version": "",
        "virtualMachineScaleSet": {"id": scale_set_id(estate, vm) if flexible else ""},
        "vmId": vm.vm_id,
        "vmScaleSetName": vm.scale_set if vm.placement is Placement.UNIFORM else "",
        "vmSize": "Standard_D4s_v5",
        "zone": "",
    }
    return {name: value for name, value in document.items() if _SINCE.get(name, "") <= version}


def network_document(vm: Vm, public: Public = NO_PUBLIC) -> dict[str, Any]:
    """``/metadata/instance/network``: the primary address first, /28 blocks not shown.

    ``public``: public IPs by private address; it has those of the Basic SKU, and of IPv4, alone.
    """
    return {"interface": [_interface(nic, public) for nic in vm.nics]}


def load_balancer_document(vm: Vm, public: Public) -> dict[str, Any] | None:
    """``/metadata/loadbalancer``: public IPs of the Standard SKU (load-balancer/howto-load-balancer-imds);
    None where the machine has none.
    """
    addresses = []
    for nic in vm.nics:
        single: list[IPv4Address | IPv6Address] = [*(entry.address for entry in nic.delivered), *nic.ipv6]
        addresses += [
            {"frontendIpAddress": str(public[each].address), "privateIpAddress": str(each)}
            for each in single
            if each in public and not public[each].basic
        ]
    inner = {"publicIpAddresses": addresses, "inboundRules": [], "outboundRules": []}
    return {"loadbalancer": inner} if addresses else None


def wireserver_document(vm: Vm, *, ipv6: bool = False) -> bytes:
    """The reply to getinterfaceinfov1: NICs, subnets and addresses, with who is primary.

    ``ipv6``: also the IPv6 subnet, if the NIC has one, which is not known of Azure's.
    """
    lines = ["<Interfaces>"]
    for nic in vm.nics:
        lines.append(
            f"<Interface MacAddress={quoteattr(_bare_mac(nic))} IsPrimary={quoteattr(_flag(nic.primary))}>"
        )
        if nic.delivered:
            given = {str(entry.address): entry.primary for entry in nic.delivered if entry.single}
            lines += _subnet(str(nic.subnet.prefix), given)
        if ipv6 and nic.ipv6:
            given = {str(address): address == nic.ipv6[0] for address in nic.ipv6}
            lines += _subnet(str(nic.subnet.prefix_v6), given)
        lines.append("</Interface>")
    lines.append("</Interfaces>")
    return "".join(lines).encode()


def _subnet(prefix: str, addresses: dict[str, bool]) -> list[str]:
    """A subnet of the wireserver's document; of each address, whether it is the machine's own."""
    return [
        f"<IPSubnet Prefix={quoteattr(prefix)}>",
        *(
            f"<IPAddress Address={quoteattr(address)} IsPrimary={quoteattr(_flag(own))}/>"
            for address, own in addresses.items()
        ),
        "</IPSubnet>",
    ]


def _interface(nic: Nic, public: Public) -> dict[str, Any]:
    shown = {private: str(each.address) for private, each in public.items() if each.basic}
    addresses = [
        {"privateIpAddress": str(entry.address), "publicIpAddress": shown.get(entry.address, "")}
        for entry in sorted(nic.delivered, key=lambda entry: not entry.primary)
        if entry.single
    ]
    prefix = nic.subnet.prefix
    subnets = [{"address": str(prefix.network_address), "prefix": str(prefix.prefixlen)}]
    return {
        "ipv4": {"ipAddress": addresses, "subnet": subnets},
        "ipv6": {"ipAddress": [{"privateIpAddress": str(each)} for each in nic.ipv6]},
        "macAddress": _bare_mac(nic),
    }


def _bare_mac(nic: Nic) -> str:
    return nic.mac.replace(":", "").upper()


def _flag(value: bool) -> str:
    return "true" if value else "false"
