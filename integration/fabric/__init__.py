"""The Azure fabric emulator: nodes, the host network, wireserver, IMDS and ARM in namespaces.

``Fabric`` and its companions are loaded when first asked for, so that the holder of a node, which
starts a thousand times in the tests, stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.fabric.fabric import Fabric as Fabric
    from integration.fabric.faults import Fault as Fault
    from integration.fabric.hostnetwork import DropCounters as DropCounters
    from integration.fabric.machine import Machine as Machine

_HOMES = {"Fabric": "fabric", "Fault": "faults", "DropCounters": "hostnetwork", "Machine": "machine"}

__all__ = ["DropCounters", "Fabric", "Fault", "Machine"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
