"""The host forwards IPv6 between its NIC and its pods (ip-sysctl.rst, ``force_forwarding``).

``net.ipv6.conf.all.forwarding`` makes a router of the whole node: it drops the default routes that it learned
from router advertisements, and accepts no more of them unless ``accept_ra`` is 2. On Azure that is the node's
own default route, so it is never switched on here. From Linux 6.17 on forwarding can be switched on for
single links, without any of that: for host veths (``datapath``), and for the uplinks here. On older kernels
the operator has to decide, and a pod that would not get through is refused.

Owns that, and recording the previous values. It does nothing until pods of some network get IPv6 addresses.
It must not know pods or calls.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.cni.errors import KernelRefused
from cni_plugin.host import traffic
from cni_plugin.host.forwarding import uplinks
from cni_plugin.kernel import sysctl
from cni_plugin.kernel.family import IPV4, IPV6
from ipam.state_file import replace_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node

KIND = "ipv6_forwarding"
SHARED = True
KEPT = "IPv6 force_forwarding of {}, which was 0, stays as it is"
ALL = "ipv6/conf/all/forwarding"
BEFORE = "ipv6-forwarding-before.json"
"""File of the state directory: links whose ``force_forwarding`` was switched on."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``."""
    if not traffic.has_ipv6(traffic.read_networks(node.run_dir)) or _forwards_everywhere():
        return ""
    done = []
    for name in _uplinks(node.host):
        try:
            if sysctl.read(_of(name)) != "0":
                continue
            _record(name, node.run_dir)
            sysctl.write(_of(name), "1")
        except OSError as error:
            raise KernelRefused(
                f"the node does not forward IPv6: net.ipv6.conf.all.forwarding is 0, and "
                f"net.ipv6.conf.{name}.force_forwarding can't be set: {error.strerror}",
                "Linux 6.17 has the latter. On an older kernel set net.ipv6.conf.all.forwarding=1, and "
                f"before it net.ipv6.conf.{name}.accept_ra=2 if the kernel handles router advertisements.",
            ) from error
        done.append(f"net.ipv6.conf.{name}.force_forwarding was 0 and was set to 1")
    return ", ".join(done)


def forwards(name: str) -> bool:
    """Whether what comes in by a link is forwarded."""
    if _forwards_everywhere():
        return True
    try:
        return sysctl.read(_of(name)) != "0"
    except FileNotFoundError:
        return False


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``: an uplink that does not forward; no default route, or one that is about to
    expire; a filter that drops only forwarded IPv6 (``forwarding`` names those for both families).
    """
    from cni_plugin.kernel import packet_filter

    if not in_use or not traffic.has_ipv6(traffic.read_networks(node.run_dir)):
        return []
    found = []
    out = list(uplinks(node.host, IPV6))
    if not out:
        found.append("there is no IPv6 default route: pods reach nothing outside the node over IPv6")
    of_4 = packet_filter.forward_drops()
    found += [
        f"{chain} has policy DROP: over IPv6 pods reach only what its rules allow"
        for chain in packet_filter.forward_drops(IPV6.number)
        if chain not in of_4
    ]
    everywhere = _forwards_everywhere()
    for name in _uplinks(node.host):
        with suppress(FileNotFoundError):  # it has just gone
            if not everywhere and not forwards(name):
                found.append(
                    f"net.ipv6.conf.{name}.force_forwarding and net.ipv6.conf.all.forwarding are 0: "
                    f"IPv6 packets that arrive on {name} reach no pod"
                )
            if sysctl.read(f"ipv6/conf/{name}/forwarding") == "1" and _learns(name):
                found.append(
                    f"net.ipv6.conf.{name}.accept_ra is 1 and {name} forwards: it ignores router "
                    "advertisements, so its IPv6 default route expires; set accept_ra to 2"
                )
    return found


def _learns(name: str) -> bool:
    """Whether the kernel would learn routers there if the link did not forward."""
    return sysctl.read(f"ipv6/conf/{name}/accept_ra") == "1"


def _forwards_everywhere() -> bool:
    try:
        return sysctl.read(ALL) != "0"
    except FileNotFoundError as error:
        raise KernelRefused(
            "this kernel has no IPv6, and pods of a network get IPv6 addresses",
            "Do not boot with ipv6.disable=1, or leave IPv6 out of `ipam.families`.",
        ) from error


def _uplinks(host: Netlink) -> Iterator[str]:
    """Where packets to pods come in; the IPv6 router may be learned after the first pod was attached."""
    yield from dict.fromkeys([*uplinks(host, IPV4), *uplinks(host, IPV6)])


def _of(name: str) -> str:
    return f"ipv6/conf/{name}/force_forwarding"


def _record(name: str, run_dir: Path) -> None:
    with suppress(OSError):
        known = _recorded(run_dir)
        if name not in known:
            replace_document(run_dir / BEFORE, known | {name: "0"})


def _recorded(run_dir: Path) -> dict[str, str]:
    try:
        found = json.loads((run_dir / BEFORE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): "0" for name in found} if isinstance(found, dict) else {}


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``."""
    return _recorded(node.run_dir)


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``."""
    done = []
    for name, value in values.items():
        with suppress(FileNotFoundError):  # the link is gone
            (place / _of(name)).write_text(value)
            done.append(name)
    (node.run_dir / BEFORE).unlink(missing_ok=True)
    return f"net.ipv6.conf.{', '.join(done)}.force_forwarding is 0, as it was before" if done else ""
