"""ADD: give a pod its interface, or an IPAM caller its address (CNI spec 1.1.0, "ADD").

Every step pushes its undo; if a later one fails, or the caller no longer waits, nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from cni_plugin import host
from cni_plugin.addresses import allocate
from cni_plugin.addresses.allocate import Pool
from cni_plugin.cni import errors, result
from cni_plugin.cni.call import VerbCall
from cni_plugin.datapath import AddressCarried, Endpoint, for_mode, names
from cni_plugin.host.traffic import PodNetwork
from cni_plugin.kernel import locks, netns
from cni_plugin.kernel.family import family_of
from cni_plugin.node import Node
from ipam.errors import AddressTaken, AlreadyReserved
from ipam.model import Holder, Reservation
from ipam.quoting import quoted

if TYPE_CHECKING:
    from cni_plugin.addresses.provider import AddressProvider

LOCK_SECONDS = 20.0
ADDRESS_ATTEMPTS = 8
NO_DNS = result.Dns()


def add(verb_call: VerbCall, node: Node) -> dict[str, Any]:
    """Attach; returns the result document in the version that the netconf asks for."""
    conf = verb_call.netconf
    # Read first: with an unreadable result of the plugins before this one, nothing may be created.
    previous = result.from_json(conf.prev_result, conf.cni_version) if conf.prev_result else None
    with locks.locked(node.run_dir, verb_call.names.lock_offset, LOCK_SECONDS) as ours:
        if not ours:
            raise errors.TryAgainLater(
                "another call for this interface of this container is still in progress",
                "The kubelet retries.",
            )
        made = _give_address(verb_call, node) if verb_call.call.as_ipam else _connect(verb_call, node)
    return result.to_json(previous.followed_by(made) if previous else made, conf.cni_version)


def _connect(verb_call: VerbCall, node: Node) -> result.Result:
    """Called as ``azvnet``: an interface with an address."""
    with netns.opened(verb_call.call.netns_fd, verb_call.parameters.netns) as netns_fd:
        identity = netns.identity(netns_fd)
        in_host = identity == (node.known_host.identity if node.known_host else netns.own_identity())
        if in_host:
            _require_override(verb_call)
        network = _pod_network(verb_call)
        host.ensure(node, verb_call.netconf.name, network)
        provider: AddressProvider
        if verb_call.netconf.uses_our_ipam:
            provider = Pool(verb_call, node, Holder.ENDPOINT, identity)
        else:
            from cni_plugin.addresses.provider import Delegate

            provider = Delegate(verb_call, node)
        datapath, netlink = for_mode(verb_call.netconf.mode), node.host

        def connect(undo: ExitStack) -> result.Result:
            late = provider.needs_interface
            planned = Endpoint(
                names=verb_call.names,
                network=verb_call.netconf.name,
                addresses=() if late else provider.acquire(),
                mtu=provider.mtu(),
                pod_mac=pod_mac(verb_call),
                in_host=in_host,
                call_id=verb_call.call.call_id,
            )
            ask = provider.acquire if late else None
            made = datapath.attach(planned, netlink, netns_fd, ask=ask)
            undo.callback(datapath.detach, verb_call.names, netlink)
            if not verb_call.netconf.ip_masq:  # what is excepted is the link
                host.ensure_attached(verb_call.netconf.name, network, node)
            return _result(verb_call, made, provider.dns)

        return _with_addresses(verb_call, node, provider, connect)


def _pod_network(verb_call: VerbCall) -> PodNetwork:
    conf = verb_call.netconf
    return PodNetwork(conf.ip_masq, conf.uses_our_ipam and 6 in conf.our_ipam.versions)


def _give_address(verb_call: VerbCall, node: Node) -> result.Result:
    """Called as ``azvnet-ipam``: an address, and nothing in the kernel."""
    fd = verb_call.call.netns_fd
    pool = Pool(verb_call, node, Holder.DELEGATED, netns.identity(fd) if fd is not None else "")

    def give(_: ExitStack) -> result.Result:
        pool.acquire()
        return result.Result(
            ips=tuple(result.Address(each.address, each.gateway) for each in pool.reservations),
            routes=tuple(
                result.Route(family_of(each.ip).default, each.gateway) for each in pool.reservations
            ),
            dns=_dns(verb_call),
        )

    return _with_addresses(verb_call, node, pool, give)


def _with_addresses(
    verb_call: VerbCall, node: Node, provider: AddressProvider, make: Callable[[ExitStack], result.Result]
) -> result.Result:
    """Connect with addresses of ``provider``, and with others if those turn out to be in use."""
    refused: Exception | None = None
    for _ in range(ADDRESS_ATTEMPTS):
        try:
            with ExitStack() as undo:
                undo.callback(provider.release)
                made = make(undo)
                if not verb_call.call.caller_alive():
                    raise errors.TryAgainLater(
                        "the caller did not wait for the result", "The ADD was undone."
                    )
                provider.confirm()
                undo.pop_all()
                return made
        except AlreadyReserved as error:
            finished = _finished(verb_call, node, error.reservations)
            if finished is not None:
                return finished
            _remove_leftovers(verb_call, node)
        except AddressCarried as carried:
            provider.set_aside(carried.ip, str(carried))
        except AddressTaken as error:
            refused = error
    raise refused or errors.KernelRefused(
        f"{ADDRESS_ATTEMPTS} addresses in a row are already in use on this host",
        "See `ip route show proto 155` and `ip route get ADDRESS`; they are set aside for five minutes.",
    )


def _require_override(verb_call: VerbCall) -> None:
    if verb_call.call.environ.get("CNI_NETNS_OVERRIDE", "").lower() not in {"1", "true"}:
        raise errors.InvalidNetns(
            f"CNI_NETNS {verb_call.parameters.netns} is the host's own network namespace",
            "Pods with hostNetwork get no CNI call. If it is intended, set CNI_NETNS_OVERRIDE=1.",
        )


def _finished(verb_call: VerbCall, node: Node, existing: tuple[Reservation, ...]) -> result.Result | None:
    """The result, if an agent finished this very call and died before it could answer. None for leftovers of
    a killed ADD.

    Raises:
        AttachmentExists: another call has attached it.
    """
    attachment, call_id = verb_call.parameters.attachment, verb_call.call.call_id
    owner = existing[0].owner
    same_call = bool(call_id) and owner.call_id == call_id
    if owner.holder is Holder.ENDPOINT:
        link = for_mode(verb_call.netconf.mode).host_link(verb_call.names, node.host)
        finished = names.is_finished(link, attachment)
        if finished and link and same_call:
            return _made_before(verb_call, node, existing, link.name)
    else:
        finished = allocate.is_alive(existing[0], node) and not same_call
    if finished:
        addresses = ", ".join(str(each.ip) for each in existing)
        raise errors.AttachmentExists(
            f"{attachment} is already attached, as {addresses}",
            "Nothing was changed. DEL it before another ADD.",
        )
    return None


def _made_before(
    verb_call: VerbCall, node: Node, existing: tuple[Reservation, ...], host_ifname: str
) -> result.Result | None:
    """The result of this very call as the pod has it; None if the pod does not have the addresses.

    The store may be a new one that knows the address from its host route, so without its subnet.
    """
    ifname = verb_call.parameters.attachment.ifname
    versions = verb_call.netconf.our_ipam.versions
    held = {each.ip: each.address for each in existing}
    if {ip.version for ip in held} != set(versions):
        return None
    with netns.opened(verb_call.call.netns_fd, verb_call.parameters.netns) as netns_fd:
        found = for_mode(verb_call.netconf.mode).inspect(
            verb_call.names, ifname, tuple(held.values()), node.host, netns_fd
        )
    pod = found.pod_link
    addresses = tuple(
        ip_interface(f"{each.ip}/{each.prefixlen}")
        for each in found.pod_addresses
        if pod is not None and each.index == pod.index and each.ip in held
    )
    if pod is None or len(addresses) != len(held):
        return None
    addresses = tuple(sorted(addresses, key=lambda each: versions.index(each.version)))
    node.ipam.confirm(*existing)
    made = Endpoint(
        names=verb_call.names,
        network=verb_call.netconf.name,
        addresses=addresses,
        mtu=pod.mtu,
        pod_mac=pod.mac,
        host_ifname=host_ifname,
    )
    return _result(verb_call, made, NO_DNS)


def _remove_leftovers(verb_call: VerbCall, node: Node) -> None:
    """Remove what a killed ADD of this attachment created."""
    for_mode(verb_call.netconf.mode).detach(verb_call.names, node.host)
    node.ipam.release(verb_call.parameters.attachment)


def pod_mac(verb_call: VerbCall) -> str:
    """The MAC of the pod's end: the requested one, or the derived one."""
    return _wanted_mac(verb_call) or verb_call.names.pod_mac


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
            f"the requested MAC {quoted(wanted)} is not a unicast MAC address",
            "Write it as 02:00:0a:01:00:07.",
        )
    return bytes(values).hex(":")


def _dns(verb_call: VerbCall, given: result.Dns = NO_DNS) -> result.Dns:
    """The runtime's DNS settings, else the netconf's, else those that came with the addresses."""
    conf = verb_call.netconf
    asked = conf.runtime_config.dns
    own = conf.dns
    members = (
        tuple((asked and asked.servers) or own.nameservers),
        own.domain,
        tuple((asked and asked.searches) or own.search),
        tuple((asked and asked.options) or own.options),
    )
    return result.Dns(*members) if any(members) else given


def _result(verb_call: VerbCall, made: Endpoint, given: result.Dns) -> result.Result:
    """What the pod has: routes and gateway are those in its namespace."""
    parameters = verb_call.parameters
    families = [family_of(address) for address in made.addresses]
    return result.Result(
        interfaces=(
            result.Interface(made.host_ifname, names.HOST_MAC, made.mtu),
            result.Interface(parameters.attachment.ifname, made.pod_mac, made.mtu, parameters.netns),
        ),
        ips=tuple(
            result.Address(address, family.gateway, 1)
            for address, family in zip(made.addresses, families, strict=True)
        ),
        routes=tuple(
            result.Route(dst, gateway, None if gateway else result.SCOPE_LINK)
            for position, family in enumerate(families)
            if family not in families[:position]
            for dst, gateway in family.routes
        ),
        dns=_dns(verb_call, given),
    )
