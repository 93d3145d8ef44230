"""The addresses that a call requests, and the subnet from which it requests any address.

Owns where they can be specified, and refusing invalid ones. It must not know whether they are free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cni_plugin.cni import errors
from ipam import errors as ipam_errors
from ipam.quoting import quoted

if TYPE_CHECKING:
    from cni_plugin.cni.netconf import NetConf
    from cni_plugin.cni.params import Parameters
    from ipam.model import IPAddress, IPNetwork


def requested_addresses(parameters: Parameters, netconf: NetConf) -> tuple[IPAddress, ...]:
    """The addresses an ADD asks for, of each family one at most: CNI_ARGS IP (separated by commas, as plugin
    ``static`` has it), runtimeConfig.ips, args.cni.ips, ipam.ipAddress.

    Raises:
        InvalidNetconf: one is not an address, or there is more than one of a family.
        AddressUnavailable: one is of a family of which the network gives none.
    """
    cni = netconf.args.get("cni")
    for asked in (
        parameters.args.get("IP"),
        netconf.runtime_config.ips,
        cni.get("ips") if isinstance(cni, dict) else None,
        netconf.our_ipam.ip_address,
    ):
        if asked:
            each = asked if isinstance(asked, list) else str(asked).split(",")
            return _one_of_each(each, netconf.our_ipam.versions)
    return ()


def requested_subnet(netconf: NetConf) -> IPNetwork:
    """``ipam.subnet``: that of the NIC whose addresses pods of the network get. Raises InvalidNetconf."""
    subnet = netconf.our_ipam.subnet
    try:
        return ipaddress.ip_network(subnet, strict=False)
    except ValueError as error:
        raise errors.InvalidNetconf(
            f"ipam.subnet {quoted(subnet)} is not a network", "Write it as 10.20.0.0/16, or leave it out."
        ) from error


def _one_of_each(asked: Sequence[object], versions: Sequence[int]) -> tuple[IPAddress, ...]:
    """A request is granted or refused as a whole."""
    wanted: set[IPAddress] = set()
    for each in asked:
        try:
            wanted.add(ipaddress.ip_interface(str(each)).ip)
        except ValueError as error:
            raise errors.InvalidNetconf(
                f"the requested address {quoted(each)} is not an IP address",
                "Write it as 10.1.0.7 or 10.1.0.7/16.",
            ) from error
    refused = [str(ip) for ip in wanted if ip.version not in versions]
    if refused:
        given = f"IPv{versions[0]}"  # with both families, none is refused
        raise ipam_errors.AddressUnavailable(
            f"address {', '.join(refused)} can't be given out: pods get {given} addresses",
            f"Request an {given} address, or none; `ipam.families` of the netconf says which pods get.",
        )
    if len(wanted) > len({ip.version for ip in wanted}):
        raise errors.InvalidNetconf(
            f"{len(wanted)} addresses are requested: {', '.join(sorted(map(str, wanted)))}",
            f"An interface gets one{' of each family' if len(versions) > 1 else ''}. "
            "Request one, or attach a network more than once.",
        )
    return tuple(wanted)
