"""Between the verbs and the pool: passes ``ipam`` what it needs to know about the node.

Owns reading a source when a call can't do without, and reclaiming addresses whose pod is gone. It must not
make or remove links.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cni_plugin.addresses import reclaim, recovery, way_out
from cni_plugin.addresses.requested import requested_addresses
from cni_plugin.cni.netconf import NetConf
from cni_plugin.cni.params import Parameters
from cni_plugin.cni.result import Dns
from cni_plugin.datapath import for_mode
from cni_plugin.datapath.names import names_for
from cni_plugin.kernel import encode, locks, netns
from cni_plugin.kernel.decode import WayOut
from cni_plugin.kernel.family import Family, family_of
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import AddressRequest, Attachment, Holder, IPAddress, Owner, Reservation, SourceConfig
from ipam.value import replace

if TYPE_CHECKING:
    from cni_plugin.cni.call import VerbCall
    from ipam.model import AddressStatus, IPInterface

SET_ASIDE_SECONDS = 300.0
"""Seconds for which an address is not given out because something on the host uses it."""
READ_SECONDS = 10.0
"""Seconds that an ADD without a free address may wait for the source."""
QUICK_READ_SECONDS = 2.0
"""Seconds that a call that can do without it may wait for the source."""
GRACE_SECONDS = 60.0
"""Seconds between the two checks after which an address without an endpoint is freed."""
STALE_SECONDS = 300.0
"""A listing older than this is read again before an address is given out: there is no agent, or the node was
suspended meanwhile.
"""
FILLINGS = 5
"""Attempts at a reservation, each of which may fill in something that the store lacks. A new store lacks two
things: what is alive, and what the source lists."""


def source_config(netconf: NetConf) -> SourceConfig:
    """Where the addresses of a network come from."""
    ipam = netconf.our_ipam
    return SourceConfig(environment=ipam.source, file=ipam.file, query_interval=ipam.query_interval)


def address_request(netconf: NetConf, node: Node, out: WayOut | None = None, **more: Any) -> AddressRequest:
    """What an attachment of this network needs: addresses of the NIC that the netconf names, or else of the
    one by which packets leave.

    The fabric drops packets whose source address belongs to another NIC than they leave by.

    Raises:
        InvalidNetconf: ``ipam.subnet`` is not a network.
        UplinkUnclear: no NIC matches what the netconf names, or several do; or it names none, and it is not
            clear by which NIC packets leave.
    """
    ipam, config = netconf.our_ipam, source_config(netconf)
    if netconf.names_nic:
        from cni_plugin.addresses import named_nic

        nic_mac = named_nic.named_nic(netconf, lambda: node.ipam.nics(config), node)
    else:
        nic_mac = way_out.nic_of_pods(out or way_out.way_out(node), lambda: node.ipam.nics(config), node)
    return AddressRequest(
        source=config.key,
        families=ipam.versions,
        nic_mac=nic_mac,
        cooldown=ipam.cooldown,
        **more,
    )


def request_without_netconf(config: SourceConfig, node: Node) -> AddressRequest:
    """What an attachment needs if only the source of its network is known: an IPv4 address, the default.

    Raises:
        UplinkUnclear: it is not clear by which NIC packets leave.
    """
    mac = way_out.nic_of_pods(way_out.way_out(node), lambda: node.ipam.nics(config), node)
    return AddressRequest(config.key, (4,), mac, excluded=host_addresses(node))


class Pool:
    """The node's own addresses, an ``AddressProvider``."""

    needs_interface = False
    dns = Dns()

    def __init__(self, verb_call: VerbCall, node: Node, holder: Holder, netns_id: str) -> None:
        self._verb_call = verb_call
        self._node = node
        self._owner = owner(verb_call.parameters, verb_call.netconf, holder, netns_id, verb_call.call.call_id)
        self.reservations: tuple[Reservation, ...] = ()
        """What is held, one of each family."""
        self._out: WayOut | None = None

    def acquire(self) -> tuple[IPInterface, ...]:
        """As ``AddressProvider.acquire``."""
        conf, parameters = self._verb_call.netconf, self._verb_call.parameters
        # Where the netconf names the NIC, the kernel need not be asked.
        self._out = None if conf.names_nic else way_out.way_out(self._node)
        self.reservations = reserve(parameters, conf, self._owner, self._out, self._node)
        return tuple(each.address for each in self.reservations)

    def mtu(self) -> int:
        """As ``AddressProvider.mtu``."""
        conf, held = self._verb_call.netconf, self.reservations
        if conf.mtu:
            return conf.mtu
        link = self._out.link if self._out is not None else None
        if link is not None and link.mac == held[0].nic_mac:  # the NIC of all of them
            return link.mtu
        # The gateway of IPv4 identifies the link; that of IPv6 may be link-local, the same on every link.
        return way_out.uplink_mtu(min(held, key=lambda each: each.ip.version), conf, self._node)

    def confirm(self) -> None:
        """As ``AddressProvider.confirm``."""
        self._node.ipam.confirm(*self.reservations)

    def release(self) -> None:
        """As ``AddressProvider.release``; what can't be given back now is reclaimed later."""
        held, self.reservations = self.reservations, ()
        if held:
            with suppress(ipam_errors.IpamError):
                self._node.ipam.abandon(*held)

    def set_aside(self, ip: IPAddress, reason: str) -> None:
        """As ``AddressProvider.set_aside``, and the same for every other address in that state."""
        self._node.ipam.quarantine(ip, reason, SET_ASIDE_SECONDS)
        _set_aside_carried(self._node, family_of(ip), SET_ASIDE_SECONDS)


def host_addresses(node: Node, versions: Sequence[int] = (4,)) -> frozenset[IPAddress]:
    """The addresses of these IP versions that the host itself carries: cloud-init may have put the pods'
    there.
    """
    found = node.known_host.addresses(node.host) if node.known_host else node.host.own_addresses()
    return found | node.host.own_addresses(encode.AF_INET6) if 6 in versions else found


def versions_of(addresses: Iterable[AddressStatus]) -> tuple[int, ...]:
    """The IP versions of addresses of the pool."""
    return tuple({each.address.version for each in addresses})


def owner(parameters: Parameters, netconf: NetConf, holder: Holder, netns_id: str, call_id: str) -> Owner:
    """Who asks for an address."""
    args = parameters.args
    return Owner(
        network=netconf.name,
        holder=holder,
        pod_namespace=args.get("K8S_POD_NAMESPACE", ""),
        pod_name=args.get("K8S_POD_NAME", ""),
        pod_uid=args.get("K8S_POD_UID", ""),
        netns=parameters.netns,
        netns_id=netns_id,
        call_id=call_id.encode(errors="backslashreplace").decode(),
    )


def reserve(
    parameters: Parameters, netconf: NetConf, who: Owner, out: WayOut | None, node: Node
) -> tuple[Reservation, ...]:
    """Reserve an address of each family, asking the source only if none can be given from what is known.

    Args:
        parameters: of the call.
        netconf: of the call.
        who: the owner to be recorded.
        out: how packets leave the node; None where the netconf names the NIC.
        node: the node.

    Raises:
        IpamError: no address can be given.
        UplinkUnclear, KernelRefused: packets from it would not leave by its NIC.
    """
    asked = requested_addresses(parameters, netconf)
    more = {"looked_at": frozenset(), "max_age": STALE_SECONDS}
    request = address_request(netconf, node, out, requested=asked, **more)
    try:
        reserved = _reserve(parameters.attachment, netconf, who, request, node)
    except (ipam_errors.PoolExhausted, ipam_errors.AddressUnavailable, ipam_errors.SourceEmpty):
        reclaim_dead(node)
        refresh(netconf, node, QUICK_READ_SECONDS, quietly=True)
        from cni_plugin.addresses import outlook

        with outlook.told(who.pod or str(parameters.attachment), node):
            reserved = _reserve(parameters.attachment, netconf, who, request, node)
    try:
        for each in reserved:
            if out is not None and out.by_sender:  # else the NIC is that of the link
                way_out.require_own_nic(each, out, node)
            if each.several_nics:
                from cni_plugin.addresses import own_nic

                own_nic.ensure(each, out, netconf, node)
    except BaseException:
        node.ipam.abandon(*reserved)
        raise
    return reserved


def _reserve(
    attachment: Attachment, netconf: NetConf, who: Owner, request: AddressRequest, node: Node
) -> tuple[Reservation, ...]:
    """Reserve, after filling in what a new store lacks. It may be lost again meanwhile."""
    for _ in range(FILLINGS):
        try:
            made = node.ipam.reserve(attachment, who, request)
            if netconf.names_nic and not request.nic_mac:  # the agent may have read the source just now
                try:
                    request = replace(request, nic_mac=address_request(netconf, node).nic_mac)
                except BaseException:
                    node.ipam.abandon(*made)
                    raise
                if any(each.nic_mac != request.nic_mac for each in made) and request.nic_mac:
                    node.ipam.abandon(*made)
                    continue
            on_host = () if request.excluded else [each.ip for each in made if _is_of_host(each, node)]
            if not on_host:
                return made
            node.ipam.abandon(*made)
            request = replace(request, excluded=host_addresses(node, request.families).union(on_host))
        except ipam_errors.PredecessorsFound as found:
            release_predecessors(found.reservations, node)
            looked_at = frozenset(old.attachment for old in found.reservations)
            request = replace(request, looked_at=(request.looked_at or frozenset()) | looked_at)
        except ipam_errors.AdoptionNeeded:
            recovery.adopt(node)
        except ipam_errors.ListingStale:
            refresh(netconf, node, QUICK_READ_SECONDS, quietly=True)
            request = replace(request, max_age=None)
        except ipam_errors.NoAddressesKnown:
            refresh(netconf, node, READ_SECONDS)
            if not request.nic_mac:  # with rules by source address it depends on what is listed
                request = replace(request, nic_mac=address_request(netconf, node).nic_mac)
    return node.ipam.reserve(attachment, who, replace(request, looked_at=None, max_age=None))


def _is_of_host(made: Reservation, node: Node) -> bool:
    """Whether the host itself carries an address. Only the one to be given is checked: listing all takes long
    where there are thousands (kube-proxy with IPVS), and never ends while they change.
    """
    ip = made.address.ip
    if not node.host.may_carry(ip):
        return False
    route = node.host.one_route(encode.get_route(ip))
    return route is not None and route.kind == encode.RTN_LOCAL


def _set_aside_carried(node: Node, family: Family, seconds: float) -> None:
    """Quarantine every address that a host route leads to and no attachment holds.

    There is rarely only one, for example on a node that was migrated from another CNI plugin with its pods
    running: finding them one at a time would fail an ADD for every few of them.
    """
    routes = node.host.routes(encode.dump_routes(family.number))
    # In this order: an ADD reserves an address before it adds the route.
    held = {each.ip for each in node.ipam.reservations()}
    for route in routes:
        ip = route.dst.network_address
        if route.dst.prefixlen == route.dst.max_prefixlen and ip not in held:
            reason = f"{ip} has a host route over link {route.index} already"
            node.ipam.quarantine(ip, reason, seconds)


def require_available(netconf: NetConf, node: Node) -> None:
    """Find out whether an ADD could be given an address now.

    Raises:
        IpamError, UplinkUnclear: it could not.
    """
    request = address_request(netconf, node)
    node.ipam.require_available(replace(request, excluded=host_addresses(node, request.families)))
    from cni_plugin.addresses import own_nic

    own_nic.require_usable(request.nic_mac, netconf, node)


def refresh(netconf: NetConf, node: Node, seconds: float, *, quietly: bool = False) -> None:
    """Read the source, unless it was read a moment ago; ``quietly``: the call can go on without it.

    Raises:
        SourceUnreadable, SourceEmpty: unless ``quietly``.
    """
    try:
        node.ipam.refresh(source_config(netconf), deadline=seconds, in_use=True)
    except (ipam_errors.SourceUnreadable, ipam_errors.SourceEmpty):
        if not quietly:
            raise


def release_predecessors(reservations: Iterable[Reservation], node: Node) -> None:
    """Free what earlier sandboxes of the same pod still hold, if nothing of them is left.

    No second check is needed: the runtime creates a new sandbox of this pod, and the endpoint of the old
    one does not exist.
    """
    for old in reservations:
        if not is_alive(old, node):
            with locks.locked(node.run_dir, names_for(old.attachment, old.owner).lock_offset, 0) as ours:
                if ours:
                    reclaim.release_dead(old, node)


def reclaim_dead(node: Node) -> int:
    """Free addresses whose endpoint was missing in two checks far enough apart; returns how many."""
    missing: list[Attachment] = []
    present: list[Attachment] = []
    for reservation in node.ipam.reservations():
        (present if is_alive(reservation, node) else missing).append(reservation.attachment)
    node.ipam.note_present(present)
    return free_missing(missing, node)


def free_missing(missing: Iterable[Attachment], node: Node, grace: float = GRACE_SECONDS) -> int:
    """Note which attachments have no endpoint now, and free those that had none ``grace`` seconds ago.

    One whose lock is held has a call in progress and is left alone.
    """
    freed = 0
    for dead in node.ipam.note_missing(missing, grace=grace):
        with locks.locked(node.run_dir, names_for(dead.attachment, dead.owner).lock_offset, 0) as ours:
            if ours and not is_alive(dead, node) and reclaim.release_dead(dead, node):
                freed += 1
    return freed


def is_alive(reservation: Reservation, node: Node) -> bool:
    """Whether the holder of an address is alive; unknown counts as alive."""
    who = reservation.owner
    if who.holder is Holder.ENDPOINT:
        names = names_for(reservation.attachment, who)
        return for_mode().host_link(names, node.host) is not None
    if not who.netns or not who.netns_id:
        return True
    return not (netns.is_replaced(who.netns, who.netns_id) or recovery.stranger_is_gone(reservation, node))
