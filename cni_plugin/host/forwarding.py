"""The host forwards between its NIC and its pods (ip-sysctl.rst, ``ip_forward``).

Owns switching that on, recording the previous values, and finding what still blocks forwarding. It writes
only what is wrong, and nothing that is the operator's. It must not know pods or calls.
"""

from __future__ import annotations

import _socket as socket
import errno
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.cni.errors import KernelRefused
from cni_plugin.kernel import sysctl
from cni_plugin.kernel.family import IPV4, Family

if TYPE_CHECKING:
    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node

KIND = "ip_forward"
SHARED = True
KEPT = "net.ipv4.ip_forward, which was 0, stays as it is"
FORWARDING = "ipv4/ip_forward"
_FOLLOWS = "ipv4/conf/all/accept_redirects"
"""The kernel changes it when forwarding is switched on or off, to 0 or to 1 (``inet_forward_change``)."""
BEFORE = "sysctls-before.json"
"""File of the state directory: sysctls before they were changed. A reboot resets both."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``."""
    if sysctl.read(FORWARDING) != "0":
        return ""
    before = {name: sysctl.read(name) for name in (FORWARDING, _FOLLOWS)}
    with (
        suppress(OSError),
        (node.run_dir / BEFORE).open("x") as file,
    ):  # only the first change knows the original value
        file.write(json.dumps(before))
    try:
        sysctl.write(FORWARDING, "1")
    except OSError as error:
        raise KernelRefused(
            f"net.ipv4.ip_forward is 0 and can't be set: {error.strerror}",
            "Set net.ipv4.ip_forward=1 on the node (sysctl.d); without it no pod reaches anything.",
        ) from error
    return "net.ipv4.ip_forward was 0 and was set to 1"


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``: an uplink that does not forward, a filter that drops what is forwarded."""
    from cni_plugin.kernel import packet_filter

    found = []
    forwards = sysctl.read(FORWARDING) != "0"
    if in_use and not forwards:
        found.append("net.ipv4.ip_forward is 0: no pod reaches anything")
    for name in uplinks(node.host, IPV4) if forwards else ():
        with suppress(FileNotFoundError):  # it has just gone
            if sysctl.read(f"ipv4/conf/{name}/forwarding") == "0":
                found.append(
                    f"net.ipv4.conf.{name}.forwarding is 0: packets that arrive on {name} reach no pod"
                )
    for chain in packet_filter.forward_drops():
        found += [f"{chain} has policy DROP: pods reach only what its rules allow"]
    return found


def uplinks(host: Netlink, family: Family) -> Iterator[str]:
    """The links that a default route of a family leads over."""
    indexes = dict.fromkeys(route.index for route in host.default_routes(family.number))
    for index in filter(None, indexes):
        try:
            yield socket.if_indextoname(index)
        except OSError as error:
            if error.errno != errno.ENXIO:  # it has just gone
                raise


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``."""
    try:
        found = json.loads((node.run_dir / BEFORE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and FORWARDING in found else {}


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``."""
    del node
    if (place / FORWARDING).read_text().strip() == values[FORWARDING]:
        return ""
    # ip_forward first: the kernel changes the other with it.
    for name in sorted(values, key=lambda name: name != FORWARDING):
        (place / name).write_text(values[name])
    return f"net.ipv4.ip_forward is {values[FORWARDING]}, as it was before"
