"""Attach, detach and inspect one endpoint: the kernel work of mode ``transparent``.

Owns the order of the steps. It must not know where an address came from, nor the store, nor the contract.
The host's own network is never written: a veth, a /32 route over it, and what is inside the pod is all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network

from cni_plugin.cni.errors import AttachmentExists, KernelRefused
from cni_plugin.datapath import endpoint as plan
from cni_plugin.datapath.endpoint import Endpoint, Found
from cni_plugin.kernel import encode, netns, sysctl
from cni_plugin.kernel.decode import KernelRoute, Link
from cni_plugin.kernel.netlink import DeviceBusy, Netlink, NoSuchDevice
from ipam.model import Attachment, IPAddress, IPInterface
from ipam.value import replace

INDEX_ATTEMPTS = 64


class AddressCarried(Exception):
    """A route to the address exists on the host, so something carries it that the pool does not know of."""

    def __init__(self, ip: IPAddress, route: KernelRoute | None) -> None:
        over = f"over link {route.index}" if route else "of unknown origin"
        super().__init__(f"{ip} has a host route {over} already")
        self.ip = ip


def attach(
    endpoint: Endpoint,
    host: Netlink,
    netns_fd: int,
    *,
    ask: Callable[[], tuple[IPInterface, ...]] | None = None,
) -> Endpoint:
    """Make the endpoint, and return it. When this raises, nothing of it is left.

    Args:
        endpoint: what to make.
        host: the socket of the host's namespace.
        netns_fd: the pod's namespace.
        ask: tells the addresses when the interface is there and up, for who has to ask over it (DHCP).

    Raises:
        AttachmentExists: an interface of that name is in the pod already.
        AddressCarried: the host has a route to one of the addresses.
        KernelRefused: any other step failed.
    """
    with netns.call_in(netns_fd, host.sibling) as pod:
        host_index, pod_index = _create_pair(endpoint, host, pod, netns_fd)
        try:
            sysctl.prepare_host_end(endpoint.host_ifname)
            if ask is not None:
                pod.change([pod.compile.set_link(pod_index)])
                endpoint = replace(endpoint, addresses=ask())
            _route_from_host(endpoint, host, host_index)
            _configure_pod(endpoint, pod, pod_index)
            # The alias comes last: a veth without it is what a killed ADD left behind.
            host.change([host.compile.set_link(host_index, alias=endpoint.alias)])
        except BaseException as error:
            _remove(endpoint.host_ifname, host)
            if isinstance(error, OSError):
                raise KernelRefused(str(error.strerror or error), "Nothing was left behind.") from error
            raise
    return endpoint


def detach(attachment: Attachment, host: Netlink) -> bool:
    """Remove an attachment's veth pair, and with it the host route. True when there was one.

    Raises:
        KernelRefused: it is there and can't be removed.
    """
    return _remove(plan.host_ifname(attachment), host)


def host_link(attachment: Attachment, host: Netlink) -> Link | None:
    """The host end of an attachment, if there is one."""
    return host.one_link(host.compile.get_link(name=plan.host_ifname(attachment)))


def inspect(
    attachment: Attachment, ifname: str, addresses: Sequence[IPInterface], host: Netlink, netns_fd: int
) -> Found:
    """What the kernel has of an attachment, for the comparison with what it should have."""
    link = host_link(attachment, host)
    host_routes = tuple(host.one_route(host.compile.get_route(address.ip)) for address in addresses)
    with netns.call_in(netns_fd, host.sibling) as pod:
        pod_link = pod.one_link(pod.compile.get_link(name=ifname))
        if pod_link is None:
            return Found(link, None)
        return Found(
            host_link=link,
            pod_link=pod_link,
            host_routes=host_routes,
            pod_addresses=tuple(pod.addresses(encode.dump_addresses(encode.AF_INET))),
            pod_routes=tuple(pod.routes(encode.dump_routes(encode.AF_INET))),
            pod_neighbours=tuple(pod.neighbours(encode.dump_neighbours(encode.AF_INET))),
        )


def _create_pair(endpoint: Endpoint, host: Netlink, pod: Netlink, netns_fd: int) -> tuple[int, int]:
    """Create the veth pair under indexes of our choice; returns them.

    A taken index answers EEXIST here and EBUSY there, a taken name EEXIST as well: which it was is only
    looked up then.
    """
    pairs = plan.index_pairs(endpoint.attachment)
    for _ in range(INDEX_ATTEMPTS):
        host_index, pod_index = next(pairs)
        request = host.compile.new_veth(
            host_name=endpoint.host_ifname,
            host_index=host_index,
            host_mac=plan.HOST_MAC,
            pod_name=endpoint.attachment.ifname,
            pod_index=pod_index,
            pod_mac=endpoint.pod_mac,
            mtu=endpoint.mtu,
            netns_fd=netns_fd,
        )
        try:
            host.change([request])
        except DeviceBusy:
            continue
        except FileExistsError:
            _make_room(endpoint, host, pod)
            continue
        except OSError as error:
            raise KernelRefused(str(error.strerror), "Nothing was made.") from error
        return host_index, pod_index
    raise KernelRefused(
        f"no free interface index was found in {INDEX_ATTEMPTS} attempts",
        "See `ip link` for what takes them all.",
    )


def _make_room(endpoint: Endpoint, host: Netlink, pod: Netlink) -> None:
    """Something had a name or an index already: refuse, or remove what a killed ADD left."""
    existing = host_link(endpoint.attachment, host)
    if plan.is_finished(existing, endpoint.attachment):
        raise AttachmentExists(
            f"{endpoint.attachment} is attached already",
            "Nothing was changed. DEL it before it is added again.",
        )
    if existing is not None:
        _remove(existing.name, host)
        return
    if pod.one_link(pod.compile.get_link(name=endpoint.attachment.ifname)) is not None:
        raise AttachmentExists(
            f"the pod has an interface {endpoint.attachment.ifname} already, and it is not ours",
            "Nothing was changed. Another plugin made it, or CNI_IFNAME is wrong.",
        )


def _route_from_host(endpoint: Endpoint, host: Netlink, index: int) -> None:
    for address in endpoint.addresses:
        try:
            host.change([host.compile.new_route(index, ip_network(address.ip))])
        except FileExistsError as error:
            raise AddressCarried(address.ip, host.one_route(host.compile.get_route(address.ip))) from error


def _configure_pod(endpoint: Endpoint, pod: Netlink, index: int) -> None:
    """Everything inside the pod in one send: each step is about the index that was acknowledged before."""
    if endpoint.in_host:
        last = encode.LAST_METRIC
        routes = [
            encode.new_pod_route(index, dst, gateway=gateway, metric=last if gateway else 0)
            for dst, gateway in plan.ROUTES
        ]
    else:
        routes = [pod.compile.new_pod_route(index, dst, gateway=gateway) for dst, gateway in plan.ROUTES]
    pod.change(
        [
            pod.compile.set_link(index),
            *(pod.compile.new_address(index, address) for address in endpoint.addresses),
            *routes,
            pod.compile.new_neighbour(index, plan.GATEWAY, plan.HOST_MAC),
        ]
    )


def _remove(name: str, host: Netlink) -> bool:
    try:
        host.delete(host.compile.delete_link(name))
    except NoSuchDevice:
        return False
    except OSError as error:
        raise KernelRefused(str(error.strerror), f"Remove it by hand: ip link delete {name}") from error
    return True
