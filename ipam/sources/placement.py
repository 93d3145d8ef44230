"""Where in Azure Resource Manager this node is, according to IMDS.

It must not know how ARM is queried.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.quoting import quoted
from ipam.sources import documents_schema, imds
from ipam.sources.documents import json_document
from ipam.validation import validator
from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.sources.models import ImdsCompute

_NAME = r"(?!\.{1,2}(?:/|$))[^/?#%\s]+"
"""Nothing that has a meaning in a URL: a node may report anything to the operator."""
_RESOURCE_ID = re.compile(
    rf"/subscriptions/(?P<subscription>{_NAME})/resourceGroups/(?P<group>{_NAME})/providers/Microsoft\.Compute"
    rf"(?:/virtualMachineScaleSets/(?P<scale_set>{_NAME}))?/virtualMachines/(?P<name>{_NAME})/?",
    re.IGNORECASE,
)


_compute: Callable[[Any], ImdsCompute] = validator(documents_schema.IMDS_COMPUTE)


class Placement(Value):
    """One virtual machine in ARM."""

    environment: str
    """The cloud, as IMDS writes it: ``AzurePublicCloud``, ``AzureChinaCloud``, ..."""
    resource_id: str
    subscription: str
    resource_group: str
    name: str
    """The name of a stand-alone machine or an instance of a Flexible scale set; the number of an instance of
    a Uniform scale set."""
    scale_set: str
    """Name of a Uniform scale set only: its instances' NICs are children of the instance. The NICs of a
    Flexible one are like those of any machine."""
    vm_id: str = ""
    """Unique: a different one means that a machine was recreated."""
    location: str = ""


def own_placement(imds_endpoint: str, until: float, otherwise: str = "") -> Placement:
    """Where this machine is. ``until``: a moment of ``time.monotonic``; ``otherwise``: see ``placement``.

    Raises SourceUnreadable.
    """
    return placement(imds.document(imds_endpoint, "compute", until), otherwise)


def placement(compute: bytes, otherwise: str = "") -> Placement:
    """What the compute document of IMDS says. ``otherwise``: the machine's id where it has none, as older
    versions of IMDS do.

    Raises SourceUnreadable: it is not a compute document, or does not name a virtual machine.
    """
    document = json_document(_compute, compute, "arm", "the compute document of IMDS")
    found = placement_of(document.resource_id or otherwise, document.environment)
    if found is None:
        raise SourceUnreadable(
            f"source arm: IMDS gives this machine the resource id {quoted(document.resource_id)}, which is "
            "not that of a virtual machine",
            "Choose another `ipam.environment`: ARM does not know this machine.",
        )
    return replace(found, vm_id=document.vm_id, location=document.location)


def placement_of(resource_id: str, environment: str) -> Placement | None:
    """The virtual machine of that id; None: it is not the id of one."""
    found = _RESOURCE_ID.fullmatch(resource_id)
    if found is None:
        return None
    return Placement(
        environment,
        resource_id.rstrip("/"),
        found["subscription"],
        found["group"],
        found["name"],
        found["scale_set"] or "",
    )


def last_parts(resource_id: str) -> tuple[str, str]:
    """Resource group and name of a resource that is directly in a group.

    Raises:
        ValueError: it is not such an id.
    """
    parts = resource_id.strip("/").split("/")
    if len(parts) != 8 or parts[2].casefold() != "resourcegroups":
        message = f"{quoted(resource_id)} is not the id of a resource in a group"
        raise ValueError(message)
    return parts[3], parts[7]
