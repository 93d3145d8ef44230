"""Source ``imds``: the instance metadata service of the platform, ``169.254.169.254``.

It answers only requests that come from the primary address of the primary NIC, are not sent through a
proxy and carry ``Metadata: true``; at most 5 a second (IMDS documentation). It says neither which NIC
nor which address is primary. The first address of a NIC is the one the host has by DHCP, the others
are the secondary IP configurations: so cloud-init reads it, and so it is read here. IPv6 addresses
come without a subnet; each is its own /128 behind the fabric's router.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.sources import documents_schema
from ipam.sources.documents import entries, json_document
from ipam.sources.http import Get, get
from ipam.sources.nic import Entry, builder, host_subnet, listing
from ipam.validation import validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.model import IPNetwork, Listing, Nic
    from ipam.sources.models import ImdsAddress, ImdsFamily, ImdsInterface, ImdsNetwork, ImdsSubnet
    from ipam.sources.nic import NicBuilder

API_VERSIONS = ("2021-02-01", "2019-06-01")
"""The second one for clouds whose service is older and answers 400 to the first, as on Azure Stack."""

REMEDY = (
    "Run on the node `curl -H Metadata:true http://169.254.169.254/metadata/versions`: it needs a route by "
    "the primary NIC, the NIC's primary address as source and no proxy."
)


_network: Callable[[Any], ImdsNetwork] = validator(documents_schema.IMDS_NETWORK)
_interface: Callable[[Any], ImdsInterface] = validator(documents_schema.IMDS_INTERFACE)
_subnet: Callable[[Any], ImdsSubnet] = validator(documents_schema.IMDS_SUBNET)
_address: Callable[[Any], ImdsAddress] = validator(documents_schema.IMDS_ADDRESS)


def read(endpoint: str, until: float) -> Listing:
    """The listing of the NICs of this node; ``until`` is ``time.monotonic`` when it has to be over.

    Raises:
        SourceUnreadable: no answer, or not an address document.
    """
    return parse(document(endpoint, "network", until), endpoint)


def document(endpoint: str, section: str, until: float) -> bytes:
    """One section of ``/metadata/instance``, as bytes."""
    headers = {"Metadata": "true"}
    for version in API_VERSIONS:
        url = f"{endpoint.rstrip('/')}/metadata/instance/{section}?api-version={version}"
        try:
            return get(Get("imds", url, headers, REMEDY), until)
        except SourceUnreadable as error:
            if error.status != 400 or version == API_VERSIONS[-1]:
                raise
    message = "API_VERSIONS is not empty"
    raise AssertionError(message)


@lru_cache(maxsize=1)
def parse(answer: bytes, endpoint: str) -> Listing:
    """The listing that ``answer`` means; kept for when the same answer comes again."""
    top = json_document(_network, answer, "imds", endpoint)
    warnings: list[str] = []
    nics = (_nic(each, warnings) for each in entries(_interface, top.interfaces, "an interface", warnings))
    return listing("imds", (nic for nic in nics if nic is not None), warnings, answer)


def _nic(interface: ImdsInterface, warnings: list[str]) -> Nic | None:
    nic = builder(interface.mac, None, warnings)
    if nic is None:
        return None
    for family in (interface.ipv4, interface.ipv6):
        subnets = [
            nic.add_subnet(f"{subnet.address}/{subnet.prefix}")
            for subnet in entries(_subnet, family.subnets, f"NIC {nic.mac}: a subnet", warnings)
        ]
        _add_addresses(nic, family, [subnet for subnet in subnets if subnet is not None], warnings)
    return nic.nic()


def _add_addresses(
    nic: NicBuilder, family: ImdsFamily, subnets: list[IPNetwork], warnings: list[str]
) -> None:
    for position, raw in enumerate(family.addresses):
        for each in entries(_address, [raw], f"NIC {nic.mac}: an address", warnings):
            nic.add(
                Entry(each.private, own=position == 0, public=bool(each.public)),
                subnets or host_subnet(each.private),
            )
