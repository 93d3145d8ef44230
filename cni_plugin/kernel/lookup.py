"""How the kernel routes one packet: the route, and the rule that selected its table.

Owns that question and reading the answer. It must not know whose packet it is. The kernel names the table of
a route, not the rule that led there; the rule is the first one that fits the packet and names that table.
Layouts: include/uapi/linux/rtnetlink.h (RTA_*), include/uapi/linux/fib_rules.h (FRA_*).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network

from cni_plugin.kernel import encode, rules
from cni_plugin.kernel.decode import KernelRoute, read_attributes, read_number, read_route, read_text
from cni_plugin.kernel.family import family_of
from cni_plugin.kernel.messages import compiled
from cni_plugin.kernel.netlink import Netlink
from cni_plugin.kernel.templates import Request
from ipam.model import IPAddress, IPNetwork
from ipam.value import Value

FRA_DST = 1
MAIN, LOCAL = encode.RT_TABLE_MAIN, rules.RT_TABLE_LOCAL
TABLES = {253: "default", MAIN: "main", LOCAL: "local"}


class PolicyRule(Value):
    """One routing rule, as ``ip rule`` shows it."""

    priority: int
    table: int
    """0: it leads to no table (unreachable, prohibit, goto)."""
    source: IPNetwork | None = None
    target: IPNetwork | None = None
    in_link: str = ""
    out_link: str = ""
    mark: int = 0
    suppressed: int = -1
    """Length of the longest prefix whose routes it passes over; -1: none."""
    for_pods: bool = False
    """It takes only routes over host veths, as azvnet's own does (``rules.new_rule``)."""

    def __str__(self) -> str:
        words = [f"{self.priority}: from {self.source or 'all'}"]
        words += [f"to {self.target}"] if self.target else []
        words += [f"fwmark {self.mark:#x}"] if self.mark else []
        words += [f"iif {self.in_link}"] if self.in_link else []
        words += [f"oif {self.out_link}"] if self.out_link else []
        words.append(f"lookup {TABLES.get(self.table, self.table)}")
        words += [f"suppress_prefixlength {self.suppressed}"] if self.suppressed >= 0 else []
        return " ".join(words)

    def fits(self, target: IPAddress, source: IPAddress | None, in_link: str) -> bool:
        """Whether it matches an unmarked packet. Other selectors are not looked at."""
        return (
            (self.source is None or (source is not None and source in self.source))
            and (self.target is None or target in self.target)
            and self.in_link in {"", in_link}
            and not self.out_link
            and not self.mark
        )

    def passes(self, route: KernelRoute) -> bool:
        """Whether a route of its table is one that it takes."""
        to_pod = route.protocol == encode.RTPROT_AZVNET
        return route.dst.prefixlen > self.suppressed and (to_pod or not self.for_pods)


class Lookup(Value):
    """The kernel's answer."""

    route: KernelRoute | None
    """None: it has none, or refuses the packet; ``error`` says which."""
    rule: PolicyRule | None = None
    error: OSError | None = None


def look_up(
    netlink: Netlink, target: IPAddress, source: IPAddress, link: tuple[int, str] = (0, "lo"), out: int = 0
) -> Lookup:
    """How a packet to ``target`` is routed.

    Args:
        netlink: a socket of the namespace that routes.
        target: where it is sent.
        source: its source.
        link: index and name of the link that it comes in by; ``(0, "lo")`` for one that is sent there.
        out: of one that is sent to a link-local address: the link that it has to leave by; 0: any.
    """
    asked = _sent_by(out, target, source) if out else None
    try:
        (body,) = netlink.ask(asked or encode.get_forwarded_route(target, source, link[0]))
        bodies = netlink.dump(rules.dump_rules(family_of(target).number))
    except OSError as error:
        return Lookup(None, error=error)
    route = read_route(body)
    table = route.table
    if route.kind == encode.RTN_LOCAL and table == MAIN:
        table = LOCAL  # one trie holds both, and is called main, until a rule is added (fib_trie_unmerge)
    in_order = sorted(map(_policy_rule, bodies), key=lambda each: each.priority)
    fitting = (each for each in in_order if each.table == table and each.fits(target, source, link[1]))
    return Lookup(route, next((each for each in fitting if each.passes(route)), None))


def _sent_by(index: int, target: IPAddress, source: IPAddress) -> Request:
    """Ask for the route of an IPv6 packet that has to leave by a link."""
    fields = {"family": encode.AF_INET6, "dst_len": 128, "src_len": 128, "flags": encode.RTM_F_FIB_MATCH}
    attributes = [("RTA_DST", str(target)), ("RTA_SRC", str(source)), ("RTA_OIF", index)]
    return Request(
        compiled("rtmsg", encode.RTM_GETROUTE, encode.NLM_F_REQUEST, fields, attributes),
        lambda: [f"read the route from {source} to {target}"],
    )


def source_for(target: IPAddress, link: str = "") -> IPAddress:
    """The source that the kernel chooses for a packet from the calling thread's namespace; nothing is sent.

    Args:
        target: where it would be sent.
        link: the link by which it would leave; empty: by any.

    Raises:
        OSError: nothing leads there.
    """
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        if link:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        sock.connect((str(target), 9))
        return ip_address(sock.getsockname()[0])


def _policy_rule(body: bytes) -> PolicyRule:
    """Struct fib_rule_hdr, and FRA_*."""
    _, dst_len, src_len, _, table, _, _, action, _ = struct.unpack_from("=BBBBBBBBI", body)
    attributes = dict(read_attributes(body, 12))
    suppressed = attributes.get(rules.FRA_SUPPRESS_PREFIXLEN)
    return PolicyRule(
        priority=read_number(attributes, rules.FRA_PRIORITY),
        table=(read_number(attributes, rules.FRA_TABLE) or table) if action == rules.FR_ACT_TO_TBL else 0,
        source=_network(attributes.get(rules.FRA_SRC), src_len),
        target=_network(attributes.get(FRA_DST), dst_len),
        in_link=read_text(attributes, rules.FRA_IIFNAME),
        out_link=read_text(attributes, rules.FRA_OIFNAME),
        mark=read_number(attributes, rules.FRA_FWMARK),
        for_pods=rules.read_rule(body).for_pods,
        suppressed=-1 if suppressed is None else int.from_bytes(suppressed, "little", signed=True),
    )


def _network(value: bytes | None, length: int) -> IPNetwork | None:
    return None if value is None else ip_network((value, length))
