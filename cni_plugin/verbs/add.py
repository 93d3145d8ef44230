"""ADD: give a pod its interface, or an IPAM caller its address (CNI spec 1.1.0, "ADD").

Every step pushes its undo first; what fails or is not waited for any more leaves nothing behind.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

from cni_plugin.addresses import allocate
from cni_plugin.cni import delegate, errors, result
from cni_plugin.cni.call import VerbCall
from cni_plugin.datapath import endpoint, transparent
from cni_plugin.datapath.endpoint import Endpoint
from cni_plugin.kernel import locks, netns, sysctl
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import Holder, IPInterface, Reservation
from ipam.value import Value

LOCK_SECONDS = 20.0
ADDRESS_ATTEMPTS = 8
QUARANTINE_SECONDS = 300.0
"""How long an address that something on the host carries, unknown to the pool, is set aside."""


class Given(Value):
    """Addresses for the endpoint, wherever they came from."""

    addresses: tuple[IPInterface, ...]
    mtu: int
    dns: result.Dns
    reservation: Reservation | None
    """Of our own pool; None when another plugin gave the addresses."""


def add(verb_call: VerbCall, node: Node) -> dict[str, Any]:
    """Attach; returns the result document in the version that was asked for."""
    previous = _previous(verb_call)
    node.ensure_run_dir()
    with locks.hold(node.run_dir, verb_call.parameters.attachment, LOCK_SECONDS) as ours:
        if not ours:
            raise errors.TryAgainLater(
                "another call for this interface of this container is still being carried out",
                "It is tried again by the kubelet.",
            )
        made = _reserve_only(verb_call, node) if verb_call.call.as_ipam else _attach(verb_call, node)
    return result.to_json(previous.followed_by(made) if previous else made, verb_call.netconf.cni_version)


def _previous(verb_call: VerbCall) -> result.Result | None:
    """What plugins before this one made; read first, since nothing may be left when it can't be."""
    document = verb_call.netconf.prev_result
    return result.from_json(document, verb_call.netconf.cni_version) if document else None


def _attach(verb_call: VerbCall, node: Node) -> result.Result:
    path = verb_call.parameters.netns
    with netns.opened(verb_call.call.netns_fd, path) as netns_fd:
        own = node.known_host.identity if node.known_host else netns.own_identity()
        in_host = netns.identity(netns_fd) == own
        if in_host:
            _require_override(verb_call)
        sysctl.ensure_forwarding(node.run_dir)
        refused: Exception = errors.KernelRefused(
            f"{ADDRESS_ATTEMPTS} addresses in a row are carried by something on this host already",
            "See `ip route show proto 155` and `ip route get ADDRESS`; they are set aside for five minutes.",
        )
        for _ in range(ADDRESS_ATTEMPTS):
            try:
                return _attach_once(verb_call, node, netns_fd, in_host=in_host)
            except transparent.AddressCarried as carried:
                if not verb_call.netconf.uses_our_ipam:
                    raise errors.KernelRefused(
                        str(carried), "Something on this host uses it already."
                    ) from carried
                node.ipam.quarantine(carried.ip, str(carried), QUARANTINE_SECONDS)
                allocate.set_aside_carried(node, QUARANTINE_SECONDS)
            except ipam_errors.AddressTaken as error:
                refused = error
            except Finished as finished:
                return _result(verb_call, finished.planned, finished.dns)
    raise refused


def _attach_once(verb_call: VerbCall, node: Node, netns_fd: int, *, in_host: bool) -> result.Result:
    conf = verb_call.netconf
    with ExitStack() as undo:
        if conf.uses_our_ipam:
            given = _own_address(verb_call, node, netns_fd, undo)
            planned = _plan(verb_call, given, in_host=in_host)
            transparent.attach(planned, node.host, netns_fd)
        else:
            given = Given((), _mtu_without_address(verb_call, node), _dns(verb_call), None)
            planned = _plan(verb_call, given, in_host=in_host)
            delegated = Delegated(verb_call, undo)
            planned = transparent.attach(planned, node.host, netns_fd, ask=delegated.addresses)
            dns = given.dns if given.dns != result.Dns() else delegated.dns
            given = Given(given.addresses, given.mtu, dns, given.reservation)
        undo.callback(transparent.detach, verb_call.parameters.attachment, node.host)
        if not verb_call.call.caller_alive():
            raise errors.TryAgainLater("the caller did not wait for the result", "What was made was undone.")
        if given.reservation is not None:
            node.ipam.confirm(given.reservation)
        undo.pop_all()
    return _result(verb_call, planned, given.dns)


class Finished(Exception):
    """This very call was carried out before, by an agent that died before it could answer."""

    def __init__(self, planned: Endpoint, dns: result.Dns) -> None:
        super().__init__()
        self.planned = planned
        self.dns = dns


def _require_override(verb_call: VerbCall) -> None:
    if verb_call.call.environ.get("CNI_NETNS_OVERRIDE", "").lower() not in {"1", "true"}:
        raise errors.InvalidNetns(
            f"CNI_NETNS {verb_call.parameters.netns} is the host's own network namespace",
            "Pods with hostNetwork get no CNI call; set CNI_NETNS_OVERRIDE=1 if it is really meant.",
        )


def _own_address(verb_call: VerbCall, node: Node, netns_fd: int, undo: ExitStack) -> Given:
    conf = verb_call.netconf
    reservation = _reservation(verb_call, node, Holder.ENDPOINT, netns.identity(netns_fd))
    undo.callback(_abandon, node, reservation)
    mtu = conf.mtu or allocate.uplink_mtu(reservation, conf, node)
    return Given((reservation.address,), mtu, _dns(verb_call), reservation)


def _mtu_without_address(verb_call: VerbCall, node: Node) -> int:
    """The uplink's where no NIC is known to own the address, which is not known yet either."""
    conf = verb_call.netconf
    link = allocate.default_link(node) if not conf.master else None
    return conf.mtu or (link or allocate.any_uplink("", conf, node)).mtu


class Delegated:
    """Addresses that another plugin gives. It is asked when the interface is there: one that is there already
    is then refused before, since the DEL that undoes its ADD would free what that one has.
    """

    def __init__(self, verb_call: VerbCall, undo: ExitStack) -> None:
        self._verb_call = verb_call
        self._undo = undo
        self.dns = result.Dns()

    def addresses(self) -> tuple[IPInterface, ...]:
        """Ask it."""
        self._undo.callback(_delegate_del, self._verb_call)
        answered = delegate.request_addresses(self._verb_call)
        addresses = tuple(ip.address for ip in answered.ips)
        if not addresses or any(address.version != 4 for address in addresses):
            gave = ", ".join(map(str, addresses)) or "nothing"
            raise errors.DelegateFailed(
                f"IPAM plugin {self._verb_call.netconf.ipam_type} gave {gave}",
                "Mode transparent needs IPv4 addresses: configure such ranges for it.",
            )
        self.dns = answered.dns
        return addresses


def _reservation(verb_call: VerbCall, node: Node, holder: Holder, netns_id: str) -> Reservation:
    """Reserve; what an ADD that was killed left behind is removed first."""
    parameters, conf = verb_call.parameters, verb_call.netconf
    who = allocate.owner(parameters, conf, holder, netns_id, verb_call.call.call_id)
    try:
        return allocate.reserve(parameters, conf, who, node)
    except ipam_errors.AlreadyReserved as error:
        _refuse_if_finished(verb_call, node, error.reservation)
    node.ipam.release(parameters.attachment)
    return allocate.reserve(parameters, conf, who, node)


def _refuse_if_finished(verb_call: VerbCall, node: Node, existing: Reservation) -> None:
    attachment = verb_call.parameters.attachment
    if existing.owner.holder is Holder.ENDPOINT:
        link = transparent.host_link(attachment, node.host)
        finished = endpoint.is_finished(link, attachment)
        if finished and link and _is_same_call(verb_call, existing):
            node.ipam.confirm(existing)
            given = Given((existing.address,), link.mtu, _dns(verb_call), existing)
            raise Finished(_plan(verb_call, given), given.dns)
    else:
        finished = allocate.is_alive(existing, node) and not _is_same_call(verb_call, existing)
    if finished:
        raise errors.AttachmentExists(
            f"{attachment} is attached already, as {existing.ip}",
            "Nothing was changed. DEL it before it is added again.",
        )
    transparent.detach(attachment, node.host)


def _is_same_call(verb_call: VerbCall, existing: Reservation) -> bool:
    return bool(verb_call.call.call_id) and existing.owner.call_id == verb_call.call.call_id


def _reserve_only(verb_call: VerbCall, node: Node) -> result.Result:
    """Called as ``azvnet-ipam``: an address, and nothing in the kernel."""
    fd = verb_call.call.netns_fd
    netns_id = netns.identity(fd) if fd is not None else ""
    reservation = _reservation(verb_call, node, Holder.DELEGATED, netns_id)
    with ExitStack() as undo:
        undo.callback(_abandon, node, reservation)
        if not verb_call.call.caller_alive():
            raise errors.TryAgainLater(
                "the caller did not wait for the result", "The address was given back."
            )
        reservation = node.ipam.confirm(reservation)
        undo.pop_all()
    return result.Result(
        ips=(result.Address(reservation.address, reservation.gateway),),
        routes=(result.Route(endpoint.DEFAULT_ROUTE, reservation.gateway),),
        dns=_dns(verb_call),
    )


def _plan(verb_call: VerbCall, given: Given, *, in_host: bool = False) -> Endpoint:
    attachment = verb_call.parameters.attachment
    return Endpoint(
        attachment=attachment,
        network=verb_call.netconf.name,
        addresses=given.addresses,
        mtu=given.mtu,
        pod_mac=pod_mac(verb_call),
        in_host=in_host,
    )


def pod_mac(verb_call: VerbCall) -> str:
    """The MAC of the pod's end: the one that is asked for, or its own."""
    return _wanted_mac(verb_call) or endpoint.default_pod_mac(verb_call.parameters.attachment)


def _wanted_mac(verb_call: VerbCall) -> str:
    """The MAC that CNI_ARGS or the capability ``mac`` asks for, checked."""
    wanted = verb_call.netconf.runtime_config.mac or verb_call.parameters.args.get("MAC") or ""
    octets = wanted.replace("-", ":").split(":")
    if not wanted:
        return ""
    try:
        values = [int(octet, 16) for octet in octets]
    except ValueError:
        values = []
    if (
        len(values) != 6
        or any(not 0 <= value <= 0xFF for value in values)
        or values[0] & 1
        or not any(values)
    ):
        raise errors.InvalidNetconf(
            f"the requested MAC {wanted!r} is no unicast MAC address", "Write it as 02:00:0a:01:00:07."
        )
    return bytes(values).hex(":")


def _dns(verb_call: VerbCall) -> result.Dns:
    """The netconf's dns, or the runtime's where it passes some."""
    conf = verb_call.netconf
    asked = conf.runtime_config.dns
    return result.Dns(
        nameservers=tuple((asked and asked.servers) or conf.dns.nameservers),
        domain=conf.dns.domain,
        search=tuple((asked and asked.searches) or conf.dns.search),
        options=tuple((asked and asked.options) or conf.dns.options),
    )


def _result(verb_call: VerbCall, planned: Endpoint, dns: result.Dns) -> result.Result:
    """What the pod really has: the routes and the gateway are those in its namespace."""
    return result.Result(
        interfaces=(
            result.Interface(planned.host_ifname, endpoint.HOST_MAC, planned.mtu),
            result.Interface(
                planned.attachment.ifname, planned.pod_mac, planned.mtu, sandbox=verb_call.parameters.netns
            ),
        ),
        ips=tuple(result.Address(address, endpoint.GATEWAY, 1) for address in planned.addresses),
        routes=tuple(
            result.Route(dst, gateway, None if gateway else result.SCOPE_LINK)
            for dst, gateway in endpoint.ROUTES
        ),
        dns=dns,
    )


def _abandon(node: Node, reservation: Reservation) -> None:
    """Give an address back that never worked; if even that fails, reclaiming will find it."""
    with suppress(ipam_errors.IpamError):
        node.ipam.abandon(reservation)


def _delegate_del(verb_call: VerbCall) -> None:
    """Undo the delegate's ADD; the error that led here is the one to tell."""
    with suppress(errors.CniError):
        delegate.forward(verb_call, "DEL")
