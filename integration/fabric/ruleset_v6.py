"""The packet filter of the emulated host network for IPv6, as text for ``nft -f``. Pure: no process is run.

The same as that of IPv4 (`ruleset`), without the platform's addresses, which IPv6 does not have.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from integration.fabric.ruleset import INTERNET_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "ip6 fabric"

PUBLIC_V6 = IPv6Network("2001:db8:100::/48")
"""What plays the Internet (RFC 3849)."""
OUTBOUND_V6 = IPv6Address("2001:db8:200::1")
"""The public address that outbound connections get."""
FIRST_PUBLIC_IP_V6 = OUTBOUND_V6 + 15
"""The first of those that IP configurations may have for themselves."""


def base() -> str:
    """The rules that need no NIC; made once for a fabric."""
    names = ("multicast_v6", "protocol_v6", "unassigned_v6", "not_peered_v6", "no_egress_v6", "inbound_v6")
    counters = "\n".join(f"  counter {name} {{ }}" for name in names)
    return f"""
table {TABLE} {{
{counters}
  map ports {{ type ifname : verdict; }}
  set reachable {{ type ipv6_addr . ipv6_addr; flags interval; }}
  set egress {{ type ipv6_addr; }}
  map public_out {{ type ipv6_addr : ipv6_addr; }}
  map public_in {{ type ipv6_addr : ipv6_addr; }}
  chain from_nic {{
    type filter hook prerouting priority -300; policy accept;
    iifname "lo" accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report }} accept
    ip6 daddr ff00::/8 counter name multicast_v6 drop
    meta l4proto != {{ tcp, udp, ipv6-icmp, esp, ah }} counter name protocol_v6 drop
    iifname vmap @ports
  }}
  chain to_fabric {{
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
  }}
  chain between {{
    type filter hook forward priority 0; policy drop;
    oifname "lo" counter name unassigned_v6 drop
    ip6 saddr . ip6 daddr @reachable accept
    oifname "{INTERNET_PORT}" ip6 saddr @egress accept
    oifname "{INTERNET_PORT}" counter name no_egress_v6 drop
    iifname "{INTERNET_PORT}" ct state established,related accept
    iifname "{INTERNET_PORT}" ct status dnat accept
    iifname "{INTERNET_PORT}" counter name inbound_v6 drop
    counter name not_peered_v6 drop
  }}
  chain inbound {{
    type nat hook prerouting priority -100; policy accept;
    iifname "{INTERNET_PORT}" dnat to ip6 daddr map @public_in
  }}
  chain outbound {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{INTERNET_PORT}" snat to ip6 saddr map @public_out
    oifname "{INTERNET_PORT}" snat to {OUTBOUND_V6}
  }}
}}
"""


def port(name: str) -> str:
    """The chain, set and counter of one NIC's port."""
    return f"""
table {TABLE} {{
  counter spoofed_{name} {{ }}
  set owned_{name} {{ type ipv6_addr; flags interval; }}
  chain from_{name} {{
    ip6 saddr != @owned_{name} counter name spoofed_{name} drop
  }}
}}
add element {TABLE} ports {{ "{name}" : jump from_{name} }}
"""


def owned(name: str, blocks: Iterable[IPv6Network]) -> str:
    """Replace the addresses and blocks that a port may send from."""
    return f"flush set {TABLE} owned_{name}\n" + _elements(f"owned_{name}", map(str, blocks))


def networks(
    reachable: Iterable[tuple[IPv6Network, IPv6Network]],
    egress: Iterable[IPv6Address],
    public: Iterable[tuple[IPv6Address, IPv6Address]] = (),
) -> str:
    """Replace who reaches whom; ``public``: as of IPv4."""
    own = list(public)
    flushes = "".join(f"flush set {TABLE} {name}\n" for name in ("reachable", "egress"))
    flushes += "".join(f"flush map {TABLE} {name}\n" for name in ("public_out", "public_in"))
    pairs = (f"{a} . {b}" for a, b in reachable)
    return (
        flushes
        + _elements("reachable", pairs)
        + _elements("egress", map(str, (*egress, *(private for private, _ in own))))
        + _elements("public_out", (f"{private} : {public}" for private, public in own))
        + _elements("public_in", (f"{public} : {private}" for private, public in own))
    )


def _elements(set_name: str, elements: Iterable[str]) -> str:
    listed = ", ".join(sorted(set(elements)))
    return f"add element {TABLE} {set_name} {{ {listed} }}\n" if listed else ""
