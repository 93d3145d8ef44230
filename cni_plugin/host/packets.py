"""Table ``inet azvnet`` of nf_tables: masquerading, and what is not forwarded.

Owns its rules, and whether the kernel has them. They concern what comes in by host veths, which have a group
of their own, and addresses of the pool: neither the node's packets nor those of other plugins' pods. Nothing
in it changes with a pod.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cni_plugin.cni.errors import KernelRefused, StateUnavailable
from cni_plugin.datapath.names import owner_of
from cni_plugin.host import traffic
from cni_plugin.host.traffic import Traffic
from cni_plugin.kernel import encode, nftables
from cni_plugin.kernel.digest import sha1_of
from cni_plugin.kernel.encode import HOST_LINK_GROUP
from cni_plugin.kernel.nftables import Chain, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni_plugin.kernel.netlink import Netlink
    from cni_plugin.node import Node
    from ipam.model import IPAddress

T = TypeVar("T")

KIND = "nftables"
SHARED = False
TABLE = "azvnet"
FILTER, SOURCE_NAT = 0, 100
"""Priorities with names of their own in nft."""
MASQUERADES_SINCE = (5, 7)
OTHERS_CHAIN = "IP-MASQ-AGENT"
"""Of ip-masq-agent and ip-masq-agent-v2. With iptables-legacy it is not seen."""
WIRESERVER_PORTS = (80, 32526)
"""Secrets of the node: goal state with certificates, and extensions' settings (HostGAPlugin). DNS is 53."""
DIGEST = 8
_FROM_PODS = nftables.from_group(HOST_LINK_GROUP)

_written: tuple[str, ...] = ()
"""The comments of the rules that this process has last seen in the kernel."""


def ensure(node: Node) -> str:
    """As ``HostState.ensure``; a decision that changed is carried out without a word."""
    global _written
    run_dir = node.run_dir
    decided = traffic.read_decision(run_dir)
    try:
        if decided is None:
            decided = traffic.default_decision()
            _keep(partial(traffic.write_decision, decided, run_dir), run_dir)
        networks = traffic.read_networks(run_dir)
        excepted = _excepted(networks, node.host)
        chains = chains_of(decided, masqueraded=_any(networks), excepted=excepted)
        wanted = tuple(rule.comment for chain in chains for rule in chain.rules)
        found = tuple(nftables.comments_of(TABLE))
        if found != wanted:
            nftables.replace_table(TABLE, chains)
    except OSError as error:
        _written = ()
        raise _refused(error) from error
    was, _written = _written, wanted
    if found == wanted or was != wanted:
        return ""
    how = "changed" if found else "gone"
    return f"nf_tables table inet {TABLE} was {how} and was written again"


def ensure_for(network: str, *, masqueraded: bool, node: Node) -> None:
    """As ``ensure``, for a pod of a network; nothing where an agent keeps what is there.

    Raises:
        KernelRefused: it is not there and can't be written.
        StateUnavailable: the state directory can't be written.
    """
    run_dir = node.run_dir
    known = _networks.get(run_dir) if node.background_reads else None
    if known is None or known.get(network) is not masqueraded:
        known = _keep(
            lambda: traffic.note_network(network, masqueraded=masqueraded, run_dir=run_dir), run_dir
        )
        _networks[run_dir] = known
    elif _written and (masqueraded or not _any(known)):
        return
    ensure(node)


_networks: dict[Path, dict[str, bool]] = {}
"""What this process has last read of ``traffic.NETWORKS``; of the agent, which handles all calls."""


def _keep(write: Callable[[], T], run_dir: Path) -> T:
    try:
        return write()
    except OSError as error:
        raise StateUnavailable(
            f"what is decided about pods' packets can't be written to {run_dir}: {error.strerror}",
            f"Free some space: `df -h {run_dir}; df -i {run_dir}` shows what is used.",
        ) from error


def _refused(error: OSError) -> KernelRefused:
    return KernelRefused(
        f"the rules for pods' packets (nf_tables table inet {TABLE}) can't be written: {error.strerror}",
        "Without them pods reach nothing outside the virtual network, and read the node's secrets from the "
        "wireserver. The kernel needs nf_tables with nat, masq and reject (`modprobe nf_tables`).",
    )


def _any(networks: dict[str, bool]) -> bool:
    """Whether any network is masqueraded, as one that nothing is known of is."""
    return any(networks.values()) or not networks


def _excepted(networks: dict[str, bool], host: Netlink) -> tuple[int, ...]:
    """Host veths of networks that are not masqueraded, where others are."""
    off = {name for name, masqueraded in networks.items() if not masqueraded}
    if not off or not _any(networks):
        return ()
    links = [each for each in host.links(encode.dump_links()) if each.group == HOST_LINK_GROUP]
    return tuple(sorted(each.index for each in links if (named := owner_of(each)) and named[1] in off))


def check(node: Node, *, in_use: bool) -> list[str]:
    """As ``HostState.check``."""
    try:
        found = nftables.comments_of(TABLE)
    except OSError as error:
        if error.errno not in nftables.NO_TABLES:
            raise
        return ["this kernel has no nf_tables: pods reach nothing outside the virtual network"]
    if not found:
        missing = f"nf_tables table inet {TABLE} is missing: pods reach nothing outside the virtual network"
        return [missing] if in_use else []
    ends = {each.rpartition(" ")[2] for each in found}
    first = found[0].rpartition("[")[2].partition(" ")[0]
    if ends != {f"{number}/{len(found)}]" for number in range(1, len(found) + 1)} or any(
        f"[{first} " not in each for each in found
    ):
        return [f"nf_tables table inet {TABLE} is not as it was written"]
    return [*_too_old(), *_masqueraded_twice(node)]


def _too_old() -> list[str]:
    """Before Linux 5.7 a rule at postrouting does not know by which link a packet came in (nft_meta)."""
    release = os.uname().release
    major, minor, *_ = release.replace("-", ".").split(".")
    if (int(major), int(minor)) >= MASQUERADES_SINCE:
        return []
    since = ".".join(map(str, MASQUERADES_SINCE))
    return [f"Linux {release} does not masquerade pods' packets to the outside: {since} or newer is needed"]


def _masqueraded_twice(node: Node) -> list[str]:
    from cni_plugin.kernel import packet_filter  # loads ctypes, which an ADD does without

    networks = traffic.read_networks(node.run_dir)
    if not (networks and _any(networks) and packet_filter.has_chain(OTHERS_CHAIN)):
        return []
    text = (
        f"ip-masq-agent masquerades pods' packets as well (chain {OTHERS_CHAIN}), and the chain that the "
        "kernel calls first decides: remove it, its files are followed without it, or set ipMasq to false in "
        "the network's configuration"
    )
    return [text]


def recorded(node: Node) -> dict[str, str]:
    """As ``HostState.recorded``: there was no table before."""
    del node
    try:
        return {TABLE: "absent"} if nftables.comments_of(TABLE) else {}
    except OSError as error:
        if error.errno not in nftables.NO_TABLES:
            raise
        return {}


def kept(values: dict[str, str], users: str) -> str:
    """As ``HostState.kept``."""
    return f"nf_tables table inet {', '.join(values)} stays, {users} may need it"


def restore(node: Node, values: dict[str, str], place: Path) -> str:
    """As ``HostState.restore``: delete the table."""
    del node, values, place
    nftables.delete_table(TABLE)
    return f"nf_tables table inet {TABLE} was removed"


def is_masqueraded(network: str, source: IPAddress, target: IPAddress, run_dir: Path) -> bool:
    """Whether what a pod of a network sends off the node leaves with the node's address.

    Raises:
        OSError: as ``traffic.default_decision``.
    """
    decided = _decided(run_dir)
    networks = traffic.read_networks(run_dir)
    if not networks.get(network, _any(networks)) or target.version != 4:
        return False
    if source in decided.public and not _is_of_platform(target):
        return False
    inside = [*decided.non_masquerade, *([] if decided.link_local else [traffic.LINK_LOCAL])]
    return not any(target in each for each in inside)


def is_outside(source: IPAddress, target: IPAddress, run_dir: Path) -> bool:
    """Whether a target is neither in the virtual network, as far as is known, nor the platform, so that Azure
    has no answer for an address of the node without a public one, as this source is.

    Raises:
        OSError: as ``traffic.default_decision``.
    """
    decided = _decided(run_dir)
    if target.version != 4 or source in decided.public or _is_of_platform(target):
        return False
    return not any(target in each for each in decided.non_masquerade)


def _is_of_platform(target: IPAddress) -> bool:
    return any(target in each for each in (traffic.LINK_LOCAL, traffic.WIRESERVER))


def refused_to_pods(target: IPAddress, protocol: str, port: int, run_dir: Path) -> str:
    """Why what a pod sends is refused: a service of the platform that is closed. Empty: it is not refused.

    Raises:
        OSError: as ``is_masqueraded``.
    """
    decided = _decided(run_dir)
    if protocol == "tcp" and not decided.imds and target in traffic.IMDS:
        return "the metadata service is closed to pods (setting platform.imds)"
    secret = target in traffic.WIRESERVER and port in WIRESERVER_PORTS
    if protocol == "tcp" and not decided.wireserver and secret:
        return f"port {port} of the wireserver is closed to pods (setting platform.wireserver)"
    return ""


def is_without_pod(target: IPAddress, run_dir: Path) -> bool:
    """Whether it is an address of the pool, which a packet that came from outside and is routed back there
    was sent to in vain. Raises OSError, as above.
    """
    return any(target in each for each in _decided(run_dir).pool)


def _decided(run_dir: Path) -> Traffic:
    return traffic.read_decision(run_dir) or traffic.default_decision()


@lru_cache(maxsize=4)
def chains_of(
    decided: Traffic, *, masqueraded: bool = True, excepted: Sequence[int] = ()
) -> tuple[Chain, ...]:
    """The table. Each rule's comment has the digest of the whole, so that the rules alone show whether it is
    complete and as it should be.
    """
    chains = [
        ("forward", "filter", nftables.FORWARD, FILTER, tuple(_forward_rules(decided))),
    ]
    if masqueraded:
        rules = tuple(_masquerade_rules(decided, excepted))
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


def _forward_rules(decided: Traffic) -> Iterator[Rule]:
    if decided.pool and decided.uplinks:
        # Otherwise it goes to and fro between node and network until its TTL ends. TCP is reset, since the
        # redirects that the kernel sends before this use up its rate of other ICMP (ip_rt_send_redirect).
        turned = (*nftables.from_links(decided.uplinks), *nftables.to_links(decided.uplinks))
        held = (nftables.DESTINATION, nftables.in_networks(decided.pool))
        tcp = (*turned, nftables.IPV4_ONLY, nftables.TCP, *held, nftables.REFUSE_TCP)
        yield Rule("no pod has the address", tcp)
        yield Rule("no pod has the address", (*turned, nftables.IPV4_ONLY, *held, nftables.UNREACHABLE))
    to = (_FROM_PODS, nftables.IPV4_ONLY, nftables.TCP, nftables.DESTINATION)
    if not decided.wireserver:
        ports = (nftables.DESTINATION_PORT, nftables.in_ports(WIRESERVER_PORTS), nftables.REFUSE_TCP)
        yield Rule("wireserver", (*to, nftables.in_networks([traffic.WIRESERVER]), *ports))
    if not decided.imds:
        yield Rule("metadata service", (*to, nftables.in_networks([traffic.IMDS]), nftables.REFUSE_TCP))


def _masquerade_rules(decided: Traffic, excepted: Sequence[int]) -> Iterator[Rule]:
    """Only the first packet of a connection comes here (nf_nat). What the node itself sends came in by no
    link, so no rule about one holds for it, not even one that names a link it must not be.
    """
    yield Rule("to a pod", (nftables.to_group(HOST_LINK_GROUP), nftables.RETURN))
    if excepted:
        yield Rule("ipMasq is false", (*nftables.from_links(excepted), nftables.RETURN))
    to = (nftables.IPV4_ONLY, nftables.DESTINATION)
    if decided.public:  # those services answer the node's address alone
        platform = nftables.in_networks([traffic.WIRESERVER, traffic.LINK_LOCAL], inverted=True)
        own = nftables.in_networks(map(IPv4Network, decided.public))
        steps = (nftables.IPV4_ONLY, nftables.SOURCE, own, nftables.DESTINATION, platform, nftables.RETURN)
        yield Rule("has a public address", steps)
    inside = [*decided.non_masquerade, *([] if decided.link_local else [traffic.LINK_LOCAL])]
    if inside:
        yield Rule("inside", (*to, nftables.in_networks(inside), nftables.RETURN))
    leave = nftables.masquerade(random_fully=decided.random_fully)
    yield Rule("with the node's address", (_FROM_PODS, nftables.IPV4_ONLY, leave))
