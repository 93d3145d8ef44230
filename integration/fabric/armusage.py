"""How many addresses of each subnet are in use, in the words of Azure Resource Manager.

Source: "Virtual Networks - List Usage" of Microsoft.Network, and documented answers: the limit is the size
of the subnet less the five addresses that Azure keeps. Whether Azure counts a block as one or as its sixteen
addresses is not documented; here it is sixteen, since the field is the "number of IPs used from the Subnet".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from integration.fabric.armanswers import not_found
from integration.fabric.armdocuments import subnet_id
from integration.fabric.armreads import same

if TYPE_CHECKING:
    import re

    from integration.fabric.armstate import ArmState
    from integration.fabric.model import Estate, Subnet, Vnet
    from integration.fabric.web import Request, Response

KEPT = 5
"""Addresses of each subnet that Azure keeps."""


def usage_document(estate: Estate, vnet: Vnet, subnet: Subnet) -> dict[str, Any]:
    """The usage of one subnet."""
    return {
        "currentValue": float(sum(map(len, estate.used(subnet)))),
        "id": subnet_id(estate, vnet.name, subnet.name),
        "limit": float(subnet.prefix.num_addresses - KEPT),
        "name": {"localizedValue": "Subnet size and usage", "value": "SubnetSpace"},
        "unit": "Count",
    }


def list_usage(arm: ArmState, request: Request, estate: Estate, match: re.Match[str]) -> Response:
    """The usage of every subnet of a virtual network."""
    for vnet in estate.vnets:
        if same(vnet.name, match["vnet"]):
            return arm.paged(request, vnet.subnets, functools.partial(usage_document, estate, vnet))
    return not_found("Microsoft.Network/virtualNetworks", match["vnet"], estate)
