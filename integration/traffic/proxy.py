"""Rules of kube-proxy for a few services, as it writes them in its two modes.

Owns the text of the rules; pure. Source: kube-proxy 1.33, pkg/proxy/nftables/proxier.go and
pkg/proxy/iptables/proxier.go, without a local traffic detector, as with networks that have no cluster CIDR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOLS = ("tcp", "udp")
MARK = "0x4000"


@dataclass(frozen=True, slots=True)
class Service:
    """One endpoint behind a cluster address and, unless it is 0, a node port; over TCP and UDP."""

    name: str
    cluster_ip: str
    port: int
    endpoint: str
    endpoint_port: int
    node_port: int = 0


def nftables(services: Sequence[Service], node_ip: str) -> str:
    """A script for ``nft -f``; of the family of ``node_ip``."""
    family, kind = ("ip6", "ipv6_addr") if ":" in node_ip else ("ip", "ipv4_addr")
    lines = [
        f"table {family} kube-proxy {{",
        f"  map service-ips {{ type {kind} . inet_proto . inet_service : verdict; }}",
        "  map service-nodeports { type inet_proto . inet_service : verdict; }",
        f"  set nodeport-ips {{ type {kind}; elements = {{ {node_ip} }} }}",
        f"  chain mark-for-masquerade {{ meta mark set meta mark | {MARK}; }}",
        "  chain masquerading {",
        f"    meta mark & {MARK} == 0 return",
        f"    meta mark set meta mark ^ {MARK}",
        "    masquerade fully-random",
        "  }",
        "  chain services {",
        f"    {family} daddr . meta l4proto . th dport vmap @service-ips",
        f"    {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
        "  }",
        "  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }",
        "  chain nat-output { type nat hook output priority -100; jump services; }",
        "  chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }",
        "}",
    ]
    for each in services:
        for protocol in PROTOCOLS:
            lines += _nftables(family, each, protocol)
    return "\n".join(lines) + "\n"


def _nftables(family: str, each: Service, protocol: str) -> list[str]:
    table, key = f"{family} kube-proxy", f"{each.cluster_ip} . {protocol} . {each.port}"
    service, external, endpoint = (
        f"{kind}-{each.name}-{protocol}" for kind in ("service", "external", "endpoint")
    )
    target = f"[{each.endpoint}]" if family == "ip6" else each.endpoint
    lines = [f"add chain {table} {chain}" for chain in (service, external, endpoint)]
    lines += [
        f"add rule {table} {endpoint} {family} saddr {each.endpoint} jump mark-for-masquerade",
        f"add rule {table} {endpoint} meta l4proto {protocol} dnat to {target}:{each.endpoint_port}",
        f"add rule {table} {service} numgen random mod 1 vmap {{ 0 : goto {endpoint} }}",
        f"add rule {table} {external} jump mark-for-masquerade",
        f"add rule {table} {external} goto {service}",
        f"add element {table} service-ips {{ {key} : goto {service} }}",
    ]
    if each.node_port:
        lines.append(
            f"add element {table} service-nodeports {{ {protocol} . {each.node_port} : goto {external} }}"
        )
    return lines


def iptables(services: Sequence[Service]) -> str:
    """Input of ``iptables-restore --noflush``; of ``ip6tables-restore`` for services of IPv6."""
    chains = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"]
    rules = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {MARK}",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    for each in services:
        for protocol in PROTOCOLS:
            name = f"{each.name}-{protocol}".upper()
            service, external, endpoint = (f"KUBE-{kind}-{name}" for kind in ("SVC", "EXT", "SEP"))
            chains += [service, external, endpoint]
            host, target = ("/128", f"[{each.endpoint}]") if ":" in each.endpoint else ("/32", each.endpoint)
            matched = f"-p {protocol} -m {protocol} --dport"
            rules += [
                f"-A KUBE-SERVICES -d {each.cluster_ip}{host} {matched} {each.port} -j {service}",
                f"-A {external} -j KUBE-MARK-MASQ",
                f"-A {external} -j {service}",
                f"-A {service} -j {endpoint}",
                f"-A {endpoint} -s {each.endpoint}{host} -j KUBE-MARK-MASQ",
                f"-A {endpoint} -p {protocol} -j DNAT --to-destination {target}:{each.endpoint_port}",
            ]
            if each.node_port:
                rules.append(f"-A KUBE-NODEPORTS {matched} {each.node_port} -j {external}")
    rules.append("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    return "\n".join(["*nat", *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT", ""])
