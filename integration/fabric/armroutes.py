"""The paths of Azure Resource Manager: what each names, and what its methods do there.

Resources are found by path in one table, so that a new operation is one more row. Owns no answer.
Sources: REST references of Microsoft.Network and Microsoft.Compute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from integration.fabric import armreads as reads
from integration.fabric import armroles as roles
from integration.fabric import armscalesets as scalesets
from integration.fabric import armusage as usage
from integration.fabric import armwrites as writes
from integration.fabric import instancebody, nicbody
from integration.fabric.armoperations import COMPUTE, NETWORK
from integration.fabric.armstate import ArmState
from integration.fabric.web import Request, Response

if TYPE_CHECKING:
    from integration.fabric.model import Estate

Handler = Callable[[ArmState, Request, "Estate", "re.Match[str]"], Response]
References = Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path: what it names, and what each method does there."""

    pattern: re.Pattern[str]
    resource_type: str
    """Its actions are this with ``/read`` and ``/write``."""
    methods: Mapping[str, Handler]
    references: References | None = None
    """What a written document refers to."""

    @property
    def is_poll(self) -> bool:
        """Whether it is the resource of an operation."""
        return self.resource_type.endswith("/operations")

    @property
    def is_network(self) -> bool:
        """Whether Microsoft.Network answers, which also has the NICs of scale sets."""
        return (
            self.resource_type.startswith("Microsoft.Network/") or "networkInterfaces" in self.resource_type
        )


def _route(path: str, resource_type: str, references: References | None = None, **methods: Handler) -> Route:
    pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path.replace(".", r"\."))
    return Route(re.compile(pattern, re.IGNORECASE), resource_type, methods, references)


_SUBSCRIPTION = "/subscriptions/<subscription>"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/<group>"
_NIC = f"{_GROUP}/providers/{roles.NIC}/<nic>"
_VNET = f"{_GROUP}/providers/{roles.VNET}/<vnet>"
_SCALE_SET = f"{_GROUP}/providers/{roles.SCALE_SET}/<vmss>"
_INSTANCE = f"{_SCALE_SET}/virtualMachines/<instance>"
_INSTANCE_NIC = f"{_INSTANCE}/networkInterfaces/<nic>"

ROUTES = (
    _route(_NIC, roles.NIC, nicbody.references, GET=reads.get_nic, PUT=writes.put_nic),
    _route(f"{_GROUP}/providers/{roles.NIC}", roles.NIC, GET=reads.list_nics),
    _route(f"{_SUBSCRIPTION}/providers/{roles.NIC}", roles.NIC, GET=reads.list_nics),
    _route(_VNET, roles.VNET, GET=reads.get_vnet),
    _route(f"{_VNET}/usages", f"{roles.VNET}/usages", GET=usage.list_usage),
    _route(f"{_VNET}/subnets/<subnet>", roles.SUBNET, GET=reads.get_subnet),
    _route(f"{_GROUP}/providers/{roles.MACHINE}/<vm>", roles.MACHINE, GET=reads.get_vm),
    _route(
        f"{_SCALE_SET}/networkInterfaces",
        f"{roles.SCALE_SET}/networkInterfaces",
        GET=reads.list_scale_set_nics,
    ),
    _route(
        _INSTANCE,
        roles.INSTANCE,
        instancebody.references,
        GET=reads.get_instance,
        PUT=scalesets.put_instance,
    ),
    _route(f"{_INSTANCE}/networkInterfaces", roles.INSTANCE_NIC, GET=reads.list_scale_set_nics),
    _route(_INSTANCE_NIC, roles.INSTANCE_NIC, GET=reads.get_scale_set_nic, PUT=writes.refuse_direct),
    _route(
        f"{_INSTANCE_NIC}/ipConfigurations",
        f"{roles.INSTANCE_NIC}/ipConfigurations",
        GET=reads.list_configurations,
    ),
    *(
        _route(
            f"{_SUBSCRIPTION}/providers/{provider}/locations/<location>/operations/<operation>",
            f"{provider}/locations/operations",
            GET=writes.get_operation,
        )
        for provider in (NETWORK, COMPUTE)
    ),
)
"""What there is: a path with its names in angle brackets, its type, and what each method does."""
