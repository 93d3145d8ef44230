"""The rules of table ``inet azvnet`` that carry out a decision about pods' packets. Pure.

They concern what comes in by host veths, which have a group of their own, and addresses of the pool, but not
the node's own packets, nor those of other plugins' pods. A pod that comes or goes does not change them. It
must not know what the kernel has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni_plugin.host import traffic
from cni_plugin.kernel import nftables
from cni_plugin.kernel.digest import sha1_of
from cni_plugin.kernel.encode import HOST_LINK_GROUP
from cni_plugin.kernel.nftables import Chain, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_plugin.host.traffic import Traffic
    from cni_plugin.kernel.nftables import Step

RAW, FILTER, SOURCE_NAT = -300, 0, 100
"""Priorities with names of their own in nft."""
WIRESERVER_PORTS = (80, 32526)
"""Secrets of the node: goal state with certificates, and extensions' settings (HostGAPlugin). DNS is 53."""
DIGEST = 8
SOURCE_CHECK = "not the pod's address"
_FROM_PODS = nftables.from_group(HOST_LINK_GROUP)


@lru_cache(maxsize=4)
def chains_of(
    decided: Traffic, *, masqueraded: bool = True, excepted: Sequence[int] = (), ipv6: bool = False
) -> tuple[Chain, ...]:
    """The table. Each rule's comment has the digest of the whole, so that the rules alone show whether it is
    complete and as it should be. Without ``ipv6`` it has nothing for IPv6.
    """
    chains = [
        ("forward", "filter", nftables.FORWARD, FILTER, tuple(_forward_rules(decided, ipv6=ipv6))),
    ]
    if ipv6:
        chains.insert(0, ("prerouting", "filter", nftables.PREROUTING, RAW, (_SOURCE_CHECK,)))
    if masqueraded:
        rules = tuple(_masquerade_rules(decided, excepted, ipv6=ipv6))
        chains.append(("postrouting", "nat", nftables.POSTROUTING, SOURCE_NAT, rules))
    digest = sha1_of(repr(chains)).hex()[:DIGEST]
    total = sum(len(chain[-1]) for chain in chains)
    numbers = iter(range(1, total + 1))
    return tuple(
        Chain(
            *chain[:-1],
            tuple(
                Rule(f"{each.comment} [{digest} {next(numbers)}/{total}]", each.steps) for each in chain[-1]
            ),
        )
        for chain in chains
    )


_SOURCE_CHECK = Rule(
    SOURCE_CHECK, (_FROM_PODS, nftables.IPV6_ONLY, nftables.FOREIGN_SOURCE, nftables.DISCARD)
)
"""What ``rp_filter`` is for IPv4, which the kernel does not have for IPv6. A host veth has no route to
link-local addresses, so a pod's router advertisements, redirects and forged neighbours end here as well."""


_TO_PODS = Rule("to a pod", (nftables.to_group(HOST_LINK_GROUP), nftables.RETURN))
"""First in each chain whose other rules do not concern packets to pods: most packets then meet no other."""


def _forward_rules(decided: Traffic, *, ipv6: bool) -> Iterator[Rule]:
    yield _TO_PODS
    of_4, of_6 = traffic.by_family(decided.pool)
    if of_4 and decided.uplinks:
        held = (nftables.DESTINATION, nftables.in_networks(of_4))
        yield from _turn_away(decided.uplinks, nftables.IPV4_ONLY, held)
    if ipv6 and of_6 and decided.uplinks:
        held = (nftables.DESTINATION_V6, nftables.in_networks(of_6))
        yield from _turn_away(decided.uplinks, nftables.IPV6_ONLY, held)
    to = (_FROM_PODS, nftables.IPV4_ONLY, nftables.TCP, nftables.DESTINATION)
    if not decided.wireserver:
        ports = (nftables.DESTINATION_PORT, nftables.in_ports(WIRESERVER_PORTS), nftables.REFUSE_TCP)
        yield Rule("wireserver", (*to, nftables.in_networks([traffic.WIRESERVER]), *ports))
    if not decided.imds:
        yield Rule("metadata service", (*to, nftables.in_networks([traffic.IMDS]), nftables.REFUSE_TCP))


def _turn_away(uplinks: Sequence[int], family: Step, held: tuple[Step, ...]) -> Iterator[Rule]:
    """Refuse what is routed back to an uplink because no pod has the address: otherwise it bounces between
    node and network until its TTL ends. TCP is reset, since the redirects that the kernel sends before this
    use up its rate of other ICMP (ip_rt_send_redirect).
    """
    turned = (*nftables.from_links(uplinks), *nftables.to_links(uplinks), family)
    yield Rule("no pod has the address", (*turned, nftables.TCP, *held, nftables.REFUSE_TCP))
    yield Rule("no pod has the address", (*turned, *held, nftables.UNREACHABLE))


def _masquerade_rules(decided: Traffic, excepted: Sequence[int], *, ipv6: bool) -> Iterator[Rule]:
    """Only the first packet of a connection gets here (nf_nat). What the node itself sends came in by no
    link, so no rule that matches a link matches it, not even one that excludes a link.
    """
    yield _TO_PODS
    if excepted:
        yield Rule("ipMasq is false", (*nftables.from_links(excepted), nftables.RETURN))
    to = (nftables.IPV4_ONLY, nftables.DESTINATION)
    public, public_v6 = traffic.by_family(map(ip_network, decided.public))
    if public:  # the platform's services answer the node's address alone
        platform = nftables.in_networks([traffic.WIRESERVER, traffic.LINK_LOCAL], inverted=True)
        own = nftables.in_networks(public)
        steps = (nftables.IPV4_ONLY, nftables.SOURCE, own, nftables.DESTINATION, platform, nftables.RETURN)
        yield Rule("has a public address", steps)
    inside, inside_v6 = traffic.by_family(decided.non_masquerade)
    inside += [] if decided.link_local else [traffic.LINK_LOCAL]
    if inside:
        yield Rule("inside", (*to, nftables.in_networks(inside), nftables.RETURN))
    leave = nftables.masquerade(random_fully=decided.random_fully)
    yield Rule("with the node's address", (_FROM_PODS, nftables.IPV4_ONLY, leave))
    if not ipv6:
        return
    if public_v6:
        own = nftables.in_networks(public_v6)
        yield Rule("has a public address", (nftables.IPV6_ONLY, nftables.SOURCE_V6, own, nftables.RETURN))
    inside_v6 += [] if decided.link_local_v6 else [traffic.LINK_LOCAL_V6]
    if inside_v6:
        kept = (nftables.IPV6_ONLY, nftables.DESTINATION_V6, nftables.in_networks(inside_v6))
        yield Rule("inside", (*kept, nftables.RETURN))
    yield Rule("with the node's address", (_FROM_PODS, nftables.IPV6_ONLY, leave))
