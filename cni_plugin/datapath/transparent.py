"""The datapath of mode ``transparent``: a routed veth pair.

Owns the order of the steps. It must not know where an address came from, nor the store, nor the contract.
It writes a veth, a /32 route over it and what is inside the pod; never the host's own network.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_network

from cni_plugin.cni.errors import AttachmentExists, KernelRefused, of_system
from cni_plugin.datapath import AddressCarried, Endpoint, drift
from cni_plugin.datapath import names as naming
from cni_plugin.datapath.drift import Difference, Expected, Found, FoundHost
from cni_plugin.datapath.names import HOST_MAC, Names
from cni_plugin.kernel import encode, netns, nic_table, rules, sysctl
from cni_plugin.kernel.decode import Link
from cni_plugin.kernel.family import IPV4, IPV6, Family
from cni_plugin.kernel.netlink import DeviceBusy, Netlink, NoSuchDevice
from cni_plugin.kernel.nic_table import TableRoute
from cni_plugin.kernel.templates import Request
from ipam.model import IPInterface
from ipam.value import replace

DELIVERY_SECONDS = 2.0
"""Seconds to wait for the delivery of IPv6, which takes less than a thousandth of that."""


def attach(
    endpoint: Endpoint,
    host: Netlink,
    netns_fd: int,
    *,
    ask: Callable[[], tuple[IPInterface, ...]] | None = None,
) -> Endpoint:
    """As ``Datapath.attach``."""
    with host.sibling_in(netns_fd) as pod:
        host_ifname, host_index, pod_index = _create_pair(endpoint, host, pod, netns_fd)
        try:
            addresses = endpoint.addresses
            ipv6 = _has_ipv6(addresses)
            if ipv6:
                sysctl.prepare_host_ipv6(host_ifname)
                ifname = endpoint.names.attachment.ifname
                netns.call_in(netns_fd, partial(sysctl.prepare_pod_ipv6, ifname))
            else:
                sysctl.disable_ipv6(host_ifname)
            if ask is not None:
                host.change([encode.own_link(host_index, endpoint.names.mark)])
                pod.change([encode.set_link(pod_index)])
                addresses = ask()
            made = replace(endpoint, host_ifname=host_ifname, addresses=tuple(map(_alone, addresses)))
            _set_up_host(made, host, host_index, marked=ask is not None)
            another_v6 = ipv6 and not endpoint.in_host and bool(pod.default_routes(encode.AF_INET6))
            try:
                pod.change(list(_pod_requests(made, pod_index, another_v6=another_v6)))
            except FileExistsError:
                _lead_back(made, pod, pod_index, IPV4)
            if another_v6:
                _lead_back(made, pod, pod_index, IPV6)
            host.change(_last_requests(made, host_index))
            if ipv6:
                _wait_for_delivery(made, pod)
        except BaseException as error:
            _remove(encode.delete_link(index=host_index), host)
            if isinstance(error, OSError):
                raise of_system(error, "Nothing was left behind.") from error
            raise
    return made


def detach(names: Names, host: Netlink) -> bool:
    """As ``Datapath.detach``: one request where the host veth has its mark."""
    if _remove(encode.delete_link(alt_name=names.mark), host):
        return True
    link = _unmarked(names, host)
    return link is not None and _remove(encode.delete_link(index=link.index), host)


def host_link(names: Names, host: Netlink) -> Link | None:
    """As ``Datapath.host_link``: one request where the host veth has its mark."""
    return host.one_link(encode.get_link(alt_name=names.mark)) or _unmarked(names, host)


def _unmarked(names: Names, host: Netlink) -> Link | None:
    """What an earlier version made, or an ADD that was killed right after it had created the pair."""
    for name in dict.fromkeys((names.own_ifname, names.host_ifname)):
        link = host.one_link(encode.get_link(name=name))
        if link is not None and naming.is_own(link, names):
            return link
    return None


def inspect_host(names: Names, addresses: Sequence[IPInterface], host: Netlink) -> FoundHost:
    """As ``Datapath.inspect_host``."""
    link = host_link(names, host)
    return FoundHost(link, tuple(host.one_route(encode.get_route(each.ip)) for each in addresses))


def inspect(
    names: Names, ifname: str, addresses: Sequence[IPInterface], host: Netlink, netns_fd: int
) -> Found:
    """As ``Datapath.inspect``."""
    found = inspect_host(names, addresses, host)
    numbers = (encode.AF_INET, encode.AF_INET6) if _has_ipv6(addresses) else (encode.AF_INET,)
    with host.sibling_in(netns_fd) as pod:
        link = pod.one_link(encode.get_link(name=ifname))
        if link is None:
            return Found(found, None)
        return Found(
            host=found,
            pod_link=link,
            pod_addresses=tuple(each for n in numbers for each in pod.addresses(encode.dump_addresses(n))),
            pod_routes=tuple(each for n in numbers for each in pod.routes(encode.dump_routes(n))),
            pod_neighbours=tuple(each for n in numbers for each in pod.neighbours(encode.dump_neighbours(n))),
        )


def repair(expected: Expected, host: Netlink) -> list[Difference]:
    """As ``Datapath.repair``."""
    repaired: list[Difference] = []
    while True:
        found = inspect_host(expected.names, expected.routed, host)
        if found.link is None or not naming.is_finished(found.link, expected.names.attachment):
            return repaired
        done = {(each.kind, each.ip) for each in repaired}
        wrong = (each for each in drift.of_host(expected, found) if (each.kind, each.ip) not in done)
        difference = next(wrong, None)
        if difference is None:
            return repaired
        # One at a time: a link that had to be set up has lost its routes, so what was found is outdated.
        try:
            _put_back(difference, found.link, expected, host)
        except (FileExistsError, NoSuchDevice):
            return repaired
        repaired.append(difference)


def _put_back(difference: Difference, link: Link, expected: Expected, host: Netlink) -> None:
    if difference.kind == drift.HOST_IPV6:
        if not _has_ipv6(expected.routed):
            sysctl.disable_ipv6(link.name)
            return
        sysctl.prepare_host_ipv6(link.name)
        with suppress(FileExistsError):
            host.change([encode.new_address(link.index, IPV6.gateway_address)])
        return
    requests = {
        drift.HOST_DOWN: lambda: encode.set_link(link.index),
        drift.HOST_MAC_CHANGED: lambda: encode.set_link(link.index, mac=HOST_MAC),
        drift.HOST_MARK: lambda: encode.set_mark(link.index, expected.names.mark),
        drift.HOST_GROUP: lambda: encode.set_link(link.index, group=encode.HOST_LINK_GROUP),
        drift.HOST_SETTINGS_CHANGED: lambda: encode.secure_link(link.index),
        drift.HOST_ROUTE: lambda: encode.new_route(link.index, difference.ip),  # type: ignore[arg-type]
    }
    host.change([requests[difference.kind]()])


def _create_pair(endpoint: Endpoint, host: Netlink, pod: Netlink, netns_fd: int) -> tuple[str, int, int]:
    """Create the veth pair under a name and indexes of our choice; returns them.

    A taken index answers EEXIST here and EBUSY there, a taken name EEXIST as well: which it was is only
    looked up then.
    """
    names, host_ifname = endpoint.names, endpoint.names.host_ifname
    for host_index, pod_index in naming.index_pairs(names):
        request = encode.new_veth(
            host_name=host_ifname,
            host_index=host_index,
            host_mac=HOST_MAC,
            pod_name=names.attachment.ifname,
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
            host_ifname = _make_room(endpoint, host_ifname, host, pod)
            continue
        except OSError as error:
            raise of_system(error, "Nothing was created.") from error
        return host_ifname, host_index, pod_index
    raise KernelRefused(
        f"no free interface index was found in {naming.INDEX_ATTEMPTS} attempts",
        "See `ip link` for the links that have them.",
    )


def _make_room(endpoint: Endpoint, host_ifname: str, host: Netlink, pod: Netlink) -> str:
    """A name or an index is taken: refuse, or remove what a killed ADD left.

    Returns:
        The visible name to go on with.
    """
    names = endpoint.names
    existing = host_link(names, host)
    if naming.is_finished(existing, names.attachment):
        raise AttachmentExists(
            f"{names.attachment} is already attached",
            "Nothing was changed. DEL it before another ADD.",
        )
    if existing is not None:
        _remove(encode.delete_link(index=existing.index), host)
        return host_ifname
    if pod.one_link(encode.get_link(name=names.attachment.ifname)) is not None:
        raise AttachmentExists(
            f"the pod already has an interface {names.attachment.ifname}, and it is not ours",
            "Nothing was changed. Another plugin made it, or CNI_IFNAME is wrong.",
        )
    if host.one_link(encode.get_link(name=host_ifname)) is None:
        return host_ifname  # it was the index
    if host_ifname == names.own_ifname:
        raise KernelRefused(
            f"a link {host_ifname} exists that does not belong to this attachment",
            "Remove or rename that link.",
        )
    return names.own_ifname  # another interface of this pod, or of an earlier sandbox of it


def _alone(address: IPInterface) -> IPInterface:
    """An address as the pod has it: nothing of its subnet is on this link.

    From a shorter prefix `portmap` concludes that all of it is on one bridge, where replies go past the host,
    and masquerades these clients (its ``fillDnatRules``).
    """
    return type(address)(address.packed)


def _set_up_host(made: Endpoint, host: Netlink, index: int, *, marked: bool) -> None:
    """Mark the host's end, and route to it: both use the index that the kernel has acknowledged."""
    first, *others = [address.ip for address in made.addresses]
    requests = [
        encode.new_route(index, first) if marked else encode.own_link(index, made.names.mark, first),
        *(encode.new_route(index, other) for other in others),
    ]
    if _has_ipv6(made.addresses):
        requests.append(encode.new_address(index, IPV6.gateway_address))
    try:
        host.change(requests)
    except FileExistsError as error:
        for address in made.addresses:
            route = host.one_route(encode.get_route(address.ip))
            if route is None or route.index != index:
                raise AddressCarried(address.ip, route) from error
        raise AttachmentExists(
            f"{made.names.attachment} is already attached", "Nothing was changed. DEL it first."
        ) from error


def _pod_requests(made: Endpoint, index: int, *, another_v6: bool) -> Iterator[Request]:
    """Everything inside the pod in one send: each step uses the index that the kernel has acknowledged.

    The kernel spreads packets over all IPv6 default routes with the same metric (rt6_qualify_for_ecmp). So
    beside ``another_v6`` the new one has the index as its metric, which is greater than the usual 1024.
    """
    versions: set[int] = set()
    for address in made.addresses:
        if address.version in versions:
            yield encode.new_address(index, address)
        else:
            versions.add(address.version)
            metric = encode.LAST_METRIC if made.in_host else 0
            if another_v6 and address.version == 6:
                metric = index
            yield encode.new_pod_address(index, address, HOST_MAC, metric)


def _lead_back(made: Endpoint, pod: Netlink, index: int, family: Family) -> None:
    """For a pod that has a default route by another interface, which stays in use: what is sent from the
    addresses of this one, such as replies, leaves by this one. The other's host veth would refuse it, and so
    would Azure.

    The index of the link is the number of its table, and the metric of its default route in the main table.
    Programs that bind to the interface use that route, and all programs once the other one is gone.
    """
    way = family.gateway
    requests = [
        encode.new_neighbour(index, way, HOST_MAC),
        nic_table.new_table_route(index, TableRoute(family.default, index=index, gateway=way)),
    ]
    if family is IPV4:  # the one for IPv6 was made with its address
        requests.insert(1, encode.new_pod_route(index, family.default, gateway=way, metric=index))
    pod.change(requests)
    for address in made.addresses:
        with suppress(FileExistsError):  # left by an interface that had both the address and the index
            if address.version == family.version:
                pod.change([rules.new_nic_rule(ip_network(address.ip), index)])


def _wait_for_delivery(made: Endpoint, pod: Netlink) -> None:
    """Until the kernel delivers to the IPv6 addresses: it adds their local routes a moment later, from a work
    queue (addrconf_dad_work).
    """
    until = time.monotonic() + DELIVERY_SECONDS
    for address in made.addresses:
        while address.version == 6:
            route = pod.one_route(encode.get_route(address.ip))
            if route is not None and route.kind == encode.RTN_LOCAL:
                break
            if time.monotonic() > until:
                raise OSError(errno.ETIMEDOUT, f"the pod does not receive packets to {address.ip}")
            time.sleep(0.0005)


def _has_ipv6(addresses: Iterable[IPInterface]) -> bool:
    return any(address.version == 6 for address in addresses)


def _last_requests(made: Endpoint, index: int) -> list[Request]:
    """After the pod's end is up. The alias is the last change: without it, it is what a killed ADD left."""
    alias = naming.alias(made.names.attachment, made.network, made.call_id)
    neighbours = [encode.learn_neighbour(index, each.ip, made.pod_mac) for each in made.addresses]
    return [*neighbours, encode.finish_link(index, alias)]


def _remove(request: Request, host: Netlink) -> bool:
    try:
        host.delete(request)
    except NoSuchDevice:
        return False
    except OSError as error:
        raise of_system(error, "See `ip link`, and remove it by hand.") from error
    return True
