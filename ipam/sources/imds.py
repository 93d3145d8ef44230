"""Source ``imds``: the instance metadata service of the platform, ``169.254.169.254``.

It answers only requests that come from the primary address of the primary NIC, are not sent through a
proxy and carry ``Metadata: true``; at most 5 a second (IMDS documentation). It says neither which NIC
nor which address is primary. The first address of a NIC is the one the host has by DHCP, the others
are the secondary IP configurations: so cloud-init reads it, and so it is read here. IPv6 addresses
come without a subnet; each is its own /128 behind the fabric's router.

Public addresses of the Standard SKU, the only one since 2025, are not in that document
(cloud-provider-azure#535): which addresses have one is in a second one, ``/metadata/loadbalancer``.
"""

from __future__ import annotations

import time
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.sources import documents_schema
from ipam.sources.documents import entries, json_document
from ipam.sources.http import Get, get
from ipam.sources.nic import Entry, builder, host_subnet, listing
from ipam.validation import validator
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.model import IPAddress, IPNetwork, Listing, Nic
    from ipam.sources.models import (
        ImdsAddress,
        ImdsFamily,
        ImdsFrontend,
        ImdsInterface,
        ImdsLoadBalancer,
        ImdsNetwork,
        ImdsSubnet,
    )
    from ipam.sources.nic import NicBuilder

API_VERSIONS = ("2021-02-01", "2019-06-01")
"""The second one for clouds whose service is older and answers 400 to the first, as on Azure Stack."""

FRONTENDS_VERSION = "2020-10-01"
"""The first that has ``loadbalancer``."""
FRONTENDS_SECONDS = 2.0
"""Seconds for that document: a pod's address must not wait for it."""
NO_FRONTENDS = frozenset({400, 404})
"""The service is too old for it, or has nothing for this machine ("Common error codes when using IMDS to
retrieve load balancer information"). It is 404 as well while the document is "not available"."""

REMEDY = (
    "Run on the node `curl -H Metadata:true http://169.254.169.254/metadata/versions`: it needs a route by "
    "the primary NIC, the NIC's primary address as source and no proxy."
)


_network: Callable[[Any], ImdsNetwork] = validator(documents_schema.IMDS_NETWORK)
_interface: Callable[[Any], ImdsInterface] = validator(documents_schema.IMDS_INTERFACE)
_subnet: Callable[[Any], ImdsSubnet] = validator(documents_schema.IMDS_SUBNET)
_address: Callable[[Any], ImdsAddress] = validator(documents_schema.IMDS_ADDRESS)
_load_balancer: Callable[[Any], ImdsLoadBalancer] = validator(documents_schema.IMDS_LOAD_BALANCER)
_frontend: Callable[[Any], ImdsFrontend] = validator(documents_schema.IMDS_FRONTEND)


def read(endpoint: str, until: float, *, public: bool = False) -> Listing:
    """The listing of the NICs of this node; ``until`` is ``time.monotonic`` when it has to be over.

    ``public``: ask for public addresses of the Standard SKU as well, which takes a second request.

    Raises:
        SourceUnreadable: no answer, or not an address document.
    """
    found = parse(document(endpoint, "network", until), endpoint)
    return _with_frontends(found, endpoint, until) if public else found


def _with_frontends(found: Listing, endpoint: str, until: float) -> Listing:
    """With the addresses that have a public one by the second document; unknown if that can't be read."""
    warnings: list[str] = []
    known: set[IPAddress] | None = None
    try:
        known = _frontends(endpoint, min(until, time.monotonic() + FRONTENDS_SECONDS), warnings)
    except (SourceUnreadable, ValueError) as error:
        warnings = [f"which addresses have a public one of their own is not known: {error}"]
    nics = (replace(nic, public=_public_of(nic, known)) for nic in found.nics)
    return replace(found, nics=tuple(nics), warnings=(*found.warnings, *warnings))


def _public_of(nic: Nic, known: set[IPAddress] | None) -> tuple[IPAddress, ...] | None:
    if known is None:
        return None
    return tuple(each.ip for each in nic.addresses if each.ip in known or each.ip in (nic.public or ()))


def _frontends(endpoint: str, until: float, warnings: list[str]) -> set[IPAddress]:
    """The addresses in ``/metadata/loadbalancer``.

    Raises:
        SourceUnreadable: no answer, not that document, or not available.
        ValueError: an entry's address is not an IP address.
    """
    url = f"{endpoint.rstrip('/')}/metadata/loadbalancer?api-version={FRONTENDS_VERSION}"
    try:
        answer = get(Get("imds", url, {"Metadata": "true"}, REMEDY, NO_FRONTENDS), until)
    except SourceUnreadable as error:
        if error.status in NO_FRONTENDS and "available" not in str(error):
            return set()
        raise
    raw = json_document(_load_balancer, answer, "imds", url).inner.addresses
    return {ip_address(each.private) for each in entries(_frontend, raw, "a public address", warnings)}


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
    nic = builder(interface.mac, None, warnings, says_public=True)
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
