"""Under which address pods' packets leave, and which services of the platform pods may use: as decided, in
two files of the state directory.

Owns the decision as a value, its defaults, and the files, so that a call without the agent finds what the
agent decided. A reboot removes the files, and the first call or agent after it makes them again. It must not
know how the kernel is made to do it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_plugin.kernel import encode
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.kernel.netlink import Netlink
from ipam.state_file import replace_document
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ipam.model import IPAddress, IPNetwork

DECISION, NETWORKS = "traffic.json", "networks.json"
RFC_1918 = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""Where the virtual network's address space is not known; ip-masq-agent has the same default."""
UNIQUE_LOCAL = IPv6Network("fc00::/7")
"""RFC 4193."""
SUBNET_V6 = 64
"""Prefix length of every IPv6 subnet of Azure ("What is IPv6 for Azure Virtual Network?")."""
LINK_LOCAL = IPv4Network("169.254.0.0/16")
LINK_LOCAL_V6 = IPv6Network("fe80::/10")
WIRESERVER, IMDS = IPv4Network("168.63.129.16/32"), IPv4Network("169.254.169.254/32")
MOST_NAMED_NETWORKS = 64


class PodNetwork(Value):
    """What is decided about the pods of one network."""

    masqueraded: bool = True
    """``ipMasq`` of its netconf."""
    ipv6: bool = False
    """Whether they get IPv6 addresses."""


class Traffic(Value):
    """What becomes of pods' packets. Networks and addresses are of both families."""

    non_masquerade: tuple[IPNetwork, ...]
    """Destinations that see the pod's own address."""
    link_local: bool = True
    """Whether packets to 169.254.0.0/16 leave with the node's address."""
    link_local_v6: bool = False
    """The same for fe80::/10."""
    random_fully: bool = False
    """Whether the kernel chooses source ports at random."""
    imds: bool = False
    """Whether pods reach the instance metadata service."""
    wireserver: bool = False
    """Whether pods reach the wireserver's TCP ports 80 and 32526."""
    public: tuple[IPAddress, ...] = ()
    """Pods' addresses with a public address of their own, by which Azure lets them leave."""
    pool: tuple[IPNetwork, ...] = ()
    """The addresses that pods may have."""
    uplinks: tuple[int, ...] = ()
    """The links of the NICs that own them, by index."""


def read_decision(run_dir: Path) -> Traffic | None:
    """What was decided since boot; None: nothing yet, or the file is damaged."""
    try:
        found = json.loads((run_dir / DECISION).read_bytes())
        return Traffic(
            non_masquerade=tuple(map(ip_network, found["non_masquerade"])),
            public=tuple(map(ip_address, found["public"])),
            pool=tuple(map(ip_network, found["pool"])),
            uplinks=tuple(map(int, found["uplinks"])),
            link_local_v6=bool(found.get("link_local_v6")),
            **{name: bool(found[name]) for name in ("link_local", "random_fully", "imds", "wireserver")},
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_decision(decided: Traffic, run_dir: Path) -> None:
    """Replace the file, unless it says the same. Raises OSError."""
    fields: dict[str, Any] = {
        "non_masquerade": list(map(str, decided.non_masquerade)),
        "public": list(map(str, decided.public)),
        "pool": list(map(str, decided.pool)),
        "uplinks": decided.uplinks,
        "link_local_v6": decided.link_local_v6,
        **{name: getattr(decided, name) for name in ("link_local", "random_fully", "imds", "wireserver")},
    }
    if read_decision(run_dir) != decided:
        replace_document(run_dir / DECISION, fields)


def default_decision() -> Traffic:
    """What holds until it is decided: RFC 1918 and the node's own subnets are inside, IMDS is closed.

    Raises:
        OSError: the kernel does not list its routes and addresses.
    """
    return Traffic(non_masquerade=collapsed([*RFC_1918, *_own_subnets()]))


def default_of_ipv6() -> tuple[IPNetwork, ...]:
    """IPv6 destinations that are inside until it is decided: unique local addresses, as RFC 1918 for IPv4,
    and the node's own subnets, which are /64 on Azure whatever prefix an address was given with. Raises
    OSError.
    """
    with Netlink() as host:
        found = host.addresses(encode.dump_addresses(IPV6.number))
    own = [IPv6Network((int(each.ip), SUBNET_V6), strict=False) for each in found if each.ip.is_global]
    return collapsed([UNIQUE_LOCAL, *own])


def _own_subnets() -> Iterable[IPv4Network]:
    """The subnets of the links that a default route leads over."""
    with Netlink() as host:
        out = {index for route in host.default_routes(IPV4.number) for index in route.links}
        for each in host.addresses(encode.dump_addresses(IPV4.number)):
            if each.index in out:
                yield IPv4Network((int(each.ip), each.prefixlen), strict=False)


def links_with(addresses: Collection[IPAddress]) -> tuple[int, ...]:
    """The links of the host, by index, that carry one of these. Raises OSError, as above."""
    with Netlink() as host:
        families = (IPV4, IPV6) if any(each.version == 6 for each in addresses) else (IPV4,)
        found = [each for one in families for each in host.addresses(encode.dump_addresses(one.number))]
    return tuple(sorted({each.index for each in found if each.ip in addresses}))


def collapsed(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The same destinations by the fewest networks, in order: equal decisions are equal values."""
    of_4, of_6 = by_family(networks)
    return (*collapse_addresses(of_4), *collapse_addresses(of_6))


def by_family(networks: Iterable[IPNetwork]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Networks of IPv4, and those of IPv6."""
    every = list(networks)
    return (
        [each for each in every if isinstance(each, IPv4Network)],
        [each for each in every if isinstance(each, IPv6Network)],
    )


def has_ipv6(networks: Mapping[str, PodNetwork]) -> bool:
    """Whether pods of any network get IPv6 addresses."""
    return any(each.ipv6 for each in networks.values())


def read_networks(run_dir: Path) -> dict[str, PodNetwork]:
    """The networks of pods since boot, by name."""
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / NETWORKS).read_bytes())
        if isinstance(found, dict):
            return {str(name): _network(value) for name, value in found.items()}
    return {}


def _network(value: object) -> PodNetwork:
    """One network of the file: an object, or, if it has IPv4 only, whether it is masqueraded."""
    if isinstance(value, dict):
        return PodNetwork(bool(value.get("masqueraded")), bool(value.get("ipv6")))
    return PodNetwork(bool(value))


def note_network(name: str, network: PodNetwork | None, run_dir: Path) -> dict[str, PodNetwork]:
    """Record what the netconf of a call says; None removes the record. Returns all networks.

    Raises:
        OSError: it can't be written.
    """
    known = read_networks(run_dir)
    if known.get(name) != network:
        others = [each for each in known.items() if each[0] != name]
        known = dict([*others[-MOST_NAMED_NETWORKS + 1 :], *([(name, network)] if network else [])])
        document = {
            name: {"masqueraded": each.masqueraded, "ipv6": True} if each.ipv6 else each.masqueraded
            for name, each in known.items()
        }
        replace_document(run_dir / NETWORKS, document)
    return known
