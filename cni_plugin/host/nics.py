"""Which NICs need routes of their own for pods' packets: as decided, in files of the state directory.

Owns the decision as a value, and the files, one of each address family, so that whoever repairs the routes or
removes them need not know the pool. It must not know how the kernel is made to do it.
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.state_file import replace_document
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugin.kernel.family import Family
    from ipam.model import IPAddress, IPNetwork

DECISIONS = {4: "nics.json", 6: "nics-ipv6.json"}
"""By IP version: an older release reads the first alone, and understands it."""
LOCK = "nics.lock"


class NicOfPods(Value):
    """A NIC by which pods' packets of one family leave where the node's own may leave by another one."""

    mac: str
    """Lower case with colons."""
    subnet: IPNetwork
    gateway: IPAddress
    """For IPv6 the router that announces itself on the NIC's link."""
    sources: tuple[IPNetwork, ...]
    """Its addresses for pods, by the fewest networks."""
    others: tuple[IPNetwork, ...]
    """The subnets of the node's other NICs, to which the node's own packets leave by those."""
    everything: bool
    """Whether the node's packets to the rest of the world leave by another NIC too."""


def read_nics(run_dir: Path, family: Family) -> tuple[NicOfPods, ...]:
    """What was decided since boot; empty where there is no such NIC, or the file is damaged."""
    try:
        with open(f"{run_dir}/{DECISIONS[family.version]}", "rb") as file:  # noqa: PTH123 - every DEL asks
            found = json.load(file)
        return tuple(
            NicOfPods(
                mac=str(mac),
                subnet=ip_network(each["subnet"]),
                gateway=ip_address(each["gateway"]),
                sources=tuple(map(ip_network, each["sources"])),
                others=tuple(map(ip_network, each["others"])),
                everything=bool(each["everything"]),
            )
            for mac, each in found.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()


def write_nics(decided: Sequence[NicOfPods], run_dir: Path, family: Family) -> None:
    """Replace the file by a rename, or delete it where there is no such NIC. Raises OSError."""
    path = run_dir / DECISIONS[family.version]
    if not decided:
        path.unlink(missing_ok=True)
        return
    document = {
        each.mac: {
            "subnet": str(each.subnet),
            "gateway": str(each.gateway),
            "sources": list(map(str, each.sources)),
            "others": list(map(str, each.others)),
            "everything": each.everything,
        }
        for each in decided
    }
    replace_document(path, document)
