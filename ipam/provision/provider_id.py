"""``spec.providerID`` of a Node: which virtual machine it is, as Azure's cloud provider writes it.

Pure. It must not know how a Node is read, nor what follows.
"""

from __future__ import annotations

from typing import Any

AZURE_SCHEME = "azure"


def of_node(node: dict[str, Any]) -> str:
    """What a Node says; empty: nobody has set it."""
    return str((node.get("spec") or {}).get("providerID") or "")


def resource_id_in(provider_id: str) -> str:
    """The id in ARM of the machine; empty: it names none, as that of another provider (``k3s://``)."""
    scheme, _, path = provider_id.partition("://")
    return path.rstrip("/") if scheme.casefold() == AZURE_SCHEME else ""


def is_id_of(provider_id: str, machine: str) -> bool:
    """Whether it is the machine with this id in ARM: Azure writes ids in any case."""
    named = resource_id_in(provider_id)
    return bool(named) and named.casefold() == machine.rstrip("/").casefold()
