"""What NodeLocal DNSCache sets up on a node: a link with its addresses, and rules for its packets.

Source: kubernetes/dns, cmd/node-cache. Owns the lines for ``ip`` and the arguments of ``iptables``; pure. It
must not know what answers there.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LINK = "nodelocaldns"
LISTENS = ("169.254.20.10", "10.96.0.10")
"""The cache's own address, and that of the service kube-dns, taken over from kube-proxy in iptables mode."""
LISTENS_V6 = ("fd00:169:254:20::10", "fd00:10:96::a")
PORT = 53


def link(addresses: Sequence[str]) -> Iterator[str]:
    """Lines for ``ip -batch``.

    The link, a dummy, is never set up by node-cache: its IPv4 addresses are local all the same.
    """
    yield f"link add {LINK} type veth peer name nowhere"  # not every kernel has the type dummy
    if any(":" in each for each in addresses):
        yield f"link set {LINK} up"
    for each in addresses:
        yield f"address add {each}/{ip_address(each).max_prefixlen} dev {LINK} nodad"


def rules(addresses: Sequence[str]) -> Iterator[list[str]]:
    """Commands: nothing to or from the addresses is tracked, and nothing is dropped."""
    for address in addresses:
        program = "ip6tables" if ":" in address else "iptables"
        for protocol in ("udp", "tcp"):
            to = ["-d", address, "-p", protocol, "--dport", str(PORT)]
            by = ["-s", address, "-p", protocol, "--sport", str(PORT)]
            for hook, what in (("PREROUTING", to), ("OUTPUT", by), ("OUTPUT", to)):
                yield [program, "-w", "-t", "raw", "-A", hook, *what, "-j", "NOTRACK"]
            for hook, what in (("INPUT", to), ("OUTPUT", by)):
                yield [program, "-w", "-A", hook, *what, "-j", "ACCEPT"]
