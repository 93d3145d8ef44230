"""Which NICs need routes of their own for pods' packets: as decided, in a file of the state directory.

Owns the decision as a value, and the file, so that whoever repairs the routes or removes them need not know
the pool. It must not know how the kernel is made to do it.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.state_file import replace_document
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

DECISION, LOCK = "nics.json", "nics.lock"


class NicOfPods(Value):
    """A NIC by which pods' packets leave where the node's own may leave by another one."""

    mac: str
    """Lower case with colons."""
    subnet: IPv4Network
    gateway: IPv4Address
    sources: tuple[IPv4Network, ...]
    """Its addresses for pods, by the fewest networks."""
    others: tuple[IPv4Network, ...]
    """The subnets of the node's other NICs, to which the node's own packets leave by those."""
    everything: bool
    """Whether the node's packets to the rest of the world leave by another NIC too."""


def read_nics(run_dir: Path) -> tuple[NicOfPods, ...]:
    """What was decided since boot; empty where there is no such NIC, or the file is damaged."""
    try:
        found = json.loads((run_dir / DECISION).read_bytes())
        return tuple(
            NicOfPods(
                mac=str(mac),
                subnet=IPv4Network(each["subnet"]),
                gateway=IPv4Address(each["gateway"]),
                sources=tuple(map(IPv4Network, each["sources"])),
                others=tuple(map(IPv4Network, each["others"])),
                everything=bool(each["everything"]),
            )
            for mac, each in found.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()


def write_nics(decided: Sequence[NicOfPods], run_dir: Path) -> None:
    """Replace the file by a rename, or delete it where there is no such NIC. Raises OSError."""
    path = run_dir / DECISION
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
