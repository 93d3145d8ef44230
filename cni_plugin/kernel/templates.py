"""Filling in requests that were compiled once.

pyroute2 compiles a request in 0.1 to 0.4 ms; a request differs from the one before it in a name, an index and
an address only. The build compiles each with two sets of values and finds where they stand
(packaging/prepare.py); ``prepared`` has the result. A request without a template is compiled, as is
everything in a source tree.

Owns filling in. It must not know what a request means: ``encode`` builds it.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Protocol

from cni_plugin.kernel import encode, prepared
from cni_plugin.kernel.encode import Request
from ipam.model import IPAddress, IPInterface, IPNetwork

Build = Callable[..., Request]
Span = tuple[str, int, int]
"""Which value, and the bytes where it stands."""
Template = tuple[bytes, list[Span]]
Key = tuple[object, ...]

_ADDRESSES, _INTERFACES = (IPv4Address, IPv6Address), (IPv4Interface, IPv6Interface)
_NETWORKS = (IPv4Network, IPv6Network)


class Compiler(Protocol):
    """Makes requests for the datapath: the module ``encode`` itself, or ``Templates``."""

    def new_veth(  # noqa: D102
        self,
        *,
        host_name: str,
        host_index: int,
        host_mac: str,
        pod_name: str,
        pod_index: int,
        pod_mac: str,
        mtu: int,
        netns_fd: int,
    ) -> Request: ...
    def set_link(self, index: int, *, alias: str | None = None) -> Request: ...  # noqa: D102
    def set_mark(self, index: int, alt_name: str) -> Request: ...  # noqa: D102
    def secure_link(self, index: int) -> Request: ...  # noqa: D102
    def learn_neighbour(self, index: int, address: IPAddress, mac: str) -> Request: ...  # noqa: D102
    def delete_link(self, name: str = "", *, alt_name: str = "", index: int = 0) -> Request: ...  # noqa: D102
    def new_address(self, index: int, address: IPInterface) -> Request: ...  # noqa: D102
    def new_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request: ...  # noqa: D102
    def new_pod_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request: ...  # noqa: D102
    def new_neighbour(self, index: int, address: IPAddress, mac: str) -> Request: ...  # noqa: D102
    def get_link(self, *, name: str = "", alt_name: str = "", index: int = 0) -> Request: ...  # noqa: D102
    def get_route(self, dst: IPAddress) -> Request: ...  # noqa: D102
    def get_forwarded_route(self, dst: IPAddress, source: IPAddress, index: int) -> Request: ...  # noqa: D102


class Templates:
    """A ``Compiler`` that fills in. Threads may share one: a template is never changed once it is there."""

    def new_veth(self, **values: Any) -> Request:
        """As ``encode.new_veth``, in whatever order the values are given."""
        return self.request(encode.new_veth, dict(sorted(values.items())))

    def set_link(self, index: int, *, alias: str | None = None) -> Request:
        """As ``encode.set_link``."""
        return self.request(encode.set_link, {"index": index, "alias": alias})

    def set_mark(self, index: int, alt_name: str) -> Request:
        """As ``encode.set_mark``."""
        return self.request(encode.set_mark, {"index": index, "alt_name": alt_name})

    def secure_link(self, index: int) -> Request:
        """As ``encode.secure_link``."""
        return self.request(encode.secure_link, {"index": index})

    def learn_neighbour(self, index: int, address: IPAddress, mac: str) -> Request:
        """As ``encode.learn_neighbour``."""
        return self.request(encode.learn_neighbour, {"index": index, "address": address, "mac": mac})

    def delete_link(self, name: str = "", *, alt_name: str = "", index: int = 0) -> Request:
        """As ``encode.delete_link``."""
        return self.request(encode.delete_link, {"name": name, "alt_name": alt_name, "index": index})

    def new_address(self, index: int, address: IPInterface) -> Request:
        """As ``encode.new_address``."""
        return self.request(encode.new_address, {"index": index, "address": address})

    def new_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request:
        """As ``encode.new_route``."""
        return self.request(encode.new_route, {"index": index, "dst": dst, "gateway": gateway})

    def new_pod_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request:
        """As ``encode.new_pod_route``."""
        return self.request(encode.new_pod_route, {"index": index, "dst": dst, "gateway": gateway})

    def new_neighbour(self, index: int, address: IPAddress, mac: str) -> Request:
        """As ``encode.new_neighbour``."""
        return self.request(encode.new_neighbour, {"index": index, "address": address, "mac": mac})

    def get_link(self, *, name: str = "", alt_name: str = "", index: int = 0) -> Request:
        """As ``encode.get_link``."""
        return self.request(encode.get_link, {"name": name, "alt_name": alt_name, "index": index})

    def get_route(self, dst: IPAddress) -> Request:
        """As ``encode.get_route``."""
        return self.request(encode.get_route, {"dst": dst})

    def get_forwarded_route(self, dst: IPAddress, source: IPAddress, index: int) -> Request:
        """As ``encode.get_forwarded_route``."""
        return self.request(encode.get_forwarded_route, {"dst": dst, "source": source, "index": index})

    def request(self, build: Build, values: dict[str, Any]) -> Request:
        """The request that ``build`` makes, filled in where there is a template for such values."""
        template = prepared.TEMPLATES.get(template_key(build, values))
        if template is None:
            return build(**values)
        return Request(fill(template, values), lambda: build(**values).what)


def template_key(build: Build, values: dict[str, Any]) -> Key:
    """The key of a template: a request, and the shapes of its values."""
    return (build.__name__, *[shape(*each) for each in values.items()])


def fill(template: Template, values: dict[str, Any]) -> bytes:
    """The request that the template is of, with other values."""
    data = bytearray(template[0])
    for name, start, end in template[1]:
        data[start:end] = encoded(name, values[name])
    return bytes(data)


def shape(name: str, value: Any) -> object:
    """Everything about a value that decides a request's length, or what is in it beside the value itself."""
    kind = type(value)
    if kind is int:
        return (name, "number") if value else (name, value)
    if kind is str:
        return (name, "mac" if is_mac(name) else "text", len(value.encode()))
    if kind in _NETWORKS:
        return (name, "net", value.version, value.prefixlen)
    if kind in _ADDRESSES:
        return (name, "address", value.version)
    if kind in _INTERFACES:
        return (name, "interface", value.version, value.network.prefixlen)
    return (name, value)


def is_mac(name: str) -> bool:
    """Whether a text of that name is a MAC address."""
    return name.endswith("mac")


def encoded(name: str, value: Any) -> bytes:
    """A value as it stands in a message: numbers in the host's order, addresses in the network's."""
    kind = type(value)
    if kind is int:
        number: bytes = value.to_bytes(4, "little")
        return number
    if kind is str:
        return bytes.fromhex(value.replace(":", "")) if is_mac(name) else value.encode()
    address = value.network_address if kind in _NETWORKS else value.ip if kind in _INTERFACES else value
    packed: bytes = address.packed
    return packed
