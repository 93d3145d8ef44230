"""The packet filter of the emulated host network, as text for ``nft -f``. Pure: no process is run.

What Azure's host does and this says: a NIC sends only from addresses that it owns; the platform
addresses answer the primary NIC alone, and IMDS its primary address alone; no broadcast, no multicast,
nothing but TCP, UDP, ICMP and IPsec; the gateway routes but never answers; virtual networks that are not
peered don't see each other (Azure: virtual-networks-faq, virtual-network-network-interface).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from integration.fabric.model import IMDS, WIRESERVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TABLE = "ip fabric"

PUBLIC = IPv4Network("198.51.100.0/24")
"""What plays the Internet (TEST-NET-2), Azure's public endpoints among it."""

OUTBOUND = IPv4Address("203.0.113.1")
"""The public address that outbound connections get (TEST-NET-3)."""

FIRST_PUBLIC_IP = OUTBOUND + 9
"""The first of those that IP configurations may have for themselves."""

INTERNET_PORT = "internet"

GENERAL_COUNTERS = {
    "broadcast": "broadcast or multicast packets",
    "protocol": "packets of a protocol that Azure does not carry",
    "gateway": "packets to the gateway itself",
    "unassigned": "packets to an address that no NIC owns",
    "not_peered": "packets between networks that are not peered",
    "no_egress": "packets to the Internet from a secondary address",
    "inbound": "unasked packets from the Internet",
    "service": "packets to a platform address at a port that is not served",
    "outage": "packets dropped by a fault that was switched on",
}
"""Named counters of drops that no single NIC is to blame for, and what they count."""

_PLATFORM = f"{{ {WIRESERVER}, {IMDS} }}"


def base() -> str:
    """The rules that need no NIC; made once for a fabric."""
    counters = "\n".join(f"  counter {name} {{ }}" for name in GENERAL_COUNTERS)
    return f"""
table {TABLE} {{
{counters}
  map ports {{ type ifname : verdict; }}
  set spoofed {{ type ifname . ipv4_addr . ipv4_addr; flags dynamic; size 4096; counter; }}
  set reachable {{ type ipv4_addr . ipv4_addr; flags interval; }}
  set gateways {{ type ipv4_addr; }}
  set egress {{ type ipv4_addr; }}
  map public_out {{ type ipv4_addr : ipv4_addr; }}
  map public_in {{ type ipv4_addr : ipv4_addr; }}
  set refused {{ type ipv4_addr . ipv4_addr . inet_service; flags interval; }}
  chain faults {{ }}
  chain from_nic {{
    type filter hook prerouting priority -300; policy accept;
    iifname "lo" accept
    jump faults
    meta pkttype {{ broadcast, multicast }} counter name broadcast drop
    ip protocol != {{ tcp, udp, icmp, esp, ah }} counter name protocol drop
    udp sport 65330 counter name protocol drop
    iifname vmap @ports
    iifname "vf-*" drop
  }}
  chain to_service {{
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ip saddr . ip daddr . tcp dport @refused reject with tcp reset
    ip daddr {PUBLIC} ip saddr != @egress ip saddr != {PUBLIC} counter name no_egress drop
    ip daddr {WIRESERVER} tcp dport {{ 53, 80, 32526 }} accept
    ip daddr {WIRESERVER} udp dport 53 accept
    ip daddr {IMDS} tcp dport 80 accept
    ip daddr {PUBLIC} tcp dport 443 accept
    counter name service drop
  }}
  chain between {{
    type filter hook forward priority 0; policy drop;
    jump faults
    oifname "lo" ip daddr @gateways counter name gateway drop
    oifname "lo" counter name unassigned drop
    ip saddr . ip daddr @reachable accept
    oifname "{INTERNET_PORT}" ip saddr @egress accept
    oifname "{INTERNET_PORT}" counter name no_egress drop
    iifname "{INTERNET_PORT}" ct state established,related accept
    iifname "{INTERNET_PORT}" ct status dnat accept
    iifname "{INTERNET_PORT}" counter name inbound drop
    counter name not_peered drop
  }}
  chain from_host {{
    type filter hook output priority 0; policy accept;
    icmp type {{ destination-unreachable, redirect, time-exceeded, parameter-problem }} drop
    jump faults
  }}
  chain inbound {{
    type nat hook prerouting priority -100; policy accept;
    iifname "{INTERNET_PORT}" dnat to ip daddr map @public_in
  }}
  chain outbound {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{INTERNET_PORT}" snat to ip saddr map @public_out
    oifname "{INTERNET_PORT}" snat to {OUTBOUND}
  }}
}}
"""


def port(name: str, primary: IPv4Address, *, platform: bool) -> str:
    """The chain, set and counters of one NIC's port; ``platform``: may it talk to IMDS and wireserver.

    The wireserver answers secondary addresses too (AgentBaker#345, #4470), IMDS does not.
    """
    refused = f"ip daddr {IMDS} ip saddr != {primary}" if platform else f"ip daddr {_PLATFORM}"
    return f"""
table {TABLE} {{
  counter spoofed_{name} {{ }}
  counter platform_{name} {{ }}
  set owned_{name} {{ type ipv4_addr; flags interval; }}
  chain from_{name} {{
    ip saddr != @owned_{name} add @spoofed {{ iifname . ip saddr . ip daddr }}
    ip saddr != @owned_{name} counter name spoofed_{name} drop
    {refused} counter name platform_{name} drop
  }}
}}
add element {TABLE} ports {{ "{name}" : jump from_{name} }}
"""


def owned(name: str, blocks: Iterable[IPv4Network]) -> str:
    """Replace the addresses that a port may send from, in the same transaction as the rest."""
    return f"flush set {TABLE} owned_{name}\n" + _elements(f"owned_{name}", map(str, blocks))


def networks(
    reachable: Iterable[tuple[IPv4Network, IPv4Network]],
    gateways: Iterable[IPv4Address],
    egress: Iterable[IPv4Address],
    public: Iterable[tuple[IPv4Address, IPv4Address]] = (),
) -> str:
    """Replace who reaches whom; ``public``: private addresses with the public ones that are theirs alone."""
    pairs = list(public)
    flushes = "".join(f"flush set {TABLE} {name}\n" for name in ("reachable", "gateways", "egress"))
    flushes += "".join(f"flush map {TABLE} {name}\n" for name in ("public_out", "public_in"))
    return (
        flushes
        + _elements("reachable", (f"{a} . {b}" for a, b in reachable))
        + _elements("gateways", map(str, gateways))
        + _elements("egress", map(str, (*egress, *(private for private, _ in pairs))))
        + _elements("public_out", (f"{private} : {public}" for private, public in pairs))
        + _elements("public_in", (f"{public} : {private}" for private, public in pairs))
    )


def faults(outages: Sequence[str], losses: dict[str, int]) -> str:
    """Replace the switched-on faults: ports cut off, and ports that lose so many packets in a hundred."""
    lines = [f"flush chain {TABLE} faults"]
    for direction in ("iifname", "oifname"):
        lines += [
            f'add rule {TABLE} faults {direction} "{name}" counter name outage drop' for name in outages
        ]
        lines += [
            f'add rule {TABLE} faults {direction} "{name}" numgen random mod 100 < {share} '
            "counter name outage drop"
            for name, share in losses.items()
        ]
    return "\n".join(lines) + "\n"


def refused(entries: Iterable[tuple[str, IPv4Address, int]]) -> str:
    """Replace the connections that are refused: (source or 0.0.0.0/0, platform address, TCP port)."""
    elements = (f"{source} . {address} . {number}" for source, address, number in entries)
    return f"flush set {TABLE} refused\n" + _elements("refused", elements)


def _elements(set_name: str, elements: Iterable[str]) -> str:
    listed = ", ".join(sorted(set(elements)))
    return f"add element {TABLE} {set_name} {{ {listed} }}\n" if listed else ""
