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
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address, IPv6Address

    from integration.fabric import Machine

SHIPPED = Path(__file__).parents[2] / "conf" / "10-azvnet.conflist"
REFERENCE = "10-reference.conflist"
DUAL_STACK = ["IPv4", "IPv6"]
"""``ipam.families`` of azvnet where nodes have both."""


class UnknownCni(ValueError):
    """There is no such choice of a CNI plugin."""


def check(choice: str | None) -> None:
    """Raises UnknownCni when there is no such choice."""
    if choice is not None and choice not in CHOICES:
        raise UnknownCni(f"no CNI plugin '{choice}' to start with; there are {', '.join(CHOICES)}, or none")


def install(node: Machine, choice: str | None) -> None:
    """Give a node the chosen plugin, with the families that its NIC has. Raises UnknownCni, BundleError."""
    check(choice)
    if choice is not None:
        CHOICES[choice](node)


def _ours(node: Machine) -> None:
    plugins.install_ours(node)
    conflist = json.loads(SHIPPED.read_text(encoding="utf-8"))
    if node.vm.primary_nic.ipv6:
        conflist["plugins"][0]["ipam"]["families"] = DUAL_STACK
    plugins.write_conflist(node, conflist)


def _reference(node: Machine) -> None:
    """``ptp`` with ``host-local`` over the node's own secondary addresses.

    So other nodes reach the pods as they do with ours: the NIC owns the addresses. The last one is
    the pods' gateway: the subnet's own would be moved to the node, and cut it off.

    With IPv6 ``ptp`` makes a router of the node, whose kernel then forgets the default route that it has
    learned (ip-sysctl.rst, ``accept_ra``). So the node is set not to, until it boots again.
    """
    if node.vm.primary_nic.ipv6:
        node.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=2"])
    plugins.write_conflist(node, reference_conflist(node), name=REFERENCE)


def reference_conflist(node: Machine) -> dict[str, Any]:
    """The configuration list of the reference plugins for one node."""
    nic = node.vm.primary_nic
    ranges = [_range(nic.subnet.prefix, node.pod_addresses)]
    routes = [{"dst": "0.0.0.0/0"}]
    if nic.ipv6:
        ranges.append(_range(nic.subnet.prefix_v6, nic.ipv6[1:]))
        routes.append({"dst": "::/0"})
    return {
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {"type": "host-local", "ranges": [[each] for each in ranges], "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _range(subnet: object, addresses: Collection[IPv4Address] | Collection[IPv6Address]) -> dict[str, str]:
    own = [str(each) for each in sorted(addresses, key=int)]
    return {"subnet": str(subnet), "rangeStart": own[0], "rangeEnd": own[-2], "gateway": own[-1]}


CHOICES: dict[str, Callable[[Machine], None]] = {"azvnet": _ours, "ptp": _reference}
"""By name; None stands for a cluster whose nodes stay NotReady."""
