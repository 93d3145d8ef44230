"""Which CNI plugin a cluster starts with: none, the reference plugins, or ours stand-alone.

Owns the configuration that goes into the nodes. Everything else, the DaemonSet above all, is
installed by whoever tests it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration import plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Machine

SHIPPED = Path(__file__).parents[2] / "conf" / "10-azvnet.conflist"
REFERENCE = "10-reference.conflist"


class UnknownCni(ValueError):
    """There is no such choice of a CNI plugin."""


def check(choice: str | None) -> None:
    """Raises UnknownCni when there is no such choice."""
    if choice is not None and choice not in CHOICES:
        raise UnknownCni(f"no CNI plugin '{choice}' to start with; there are {', '.join(CHOICES)}, or none")


def install(node: Machine, choice: str | None) -> None:
    """Give a node the chosen plugin. Raises UnknownCni, plugins.BundleError."""
    check(choice)
    if choice is not None:
        CHOICES[choice](node)


def _ours(node: Machine) -> None:
    plugins.install_ours(node)
    plugins.write_conflist(node, json.loads(SHIPPED.read_text(encoding="utf-8")))


def _reference(node: Machine) -> None:
    """``ptp`` with ``host-local`` over the node's own secondary addresses.

    So other nodes reach the pods as they do with ours: the NIC owns the addresses. The last one is
    the pods' gateway: the subnet's own would be moved to the node, and cut it off.
    """
    plugins.write_conflist(node, reference_conflist(node), name=REFERENCE)


def reference_conflist(node: Machine) -> dict[str, Any]:
    """The configuration list of the reference plugins for one node."""
    addresses = sorted(node.pod_addresses)
    own_range = {
        "subnet": str(node.nics[0].subnet.prefix),
        "rangeStart": str(addresses[0]),
        "rangeEnd": str(addresses[-2]),
        "gateway": str(addresses[-1]),
    }
    return {
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {"type": "host-local", "ranges": [[own_range]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


CHOICES: dict[str, Callable[[Machine], None]] = {"azvnet": _ours, "ptp": _reference}
"""By name; None stands for a cluster whose nodes stay NotReady."""
