"""Requests compiled once and filled in.

pyroute2 compiles a request in 0.1 to 0.4 ms; a request differs from the one before it in a name, an index
and an address only. A template is compiled with two sets of values, and where the bytes differ is where the
values stand: no offset is ever typed in. If the two do not differ exactly there, or filling in the second
set does not give the second request byte for byte, there is no template and each request is compiled.

The resident agent finds a template when it first needs one. A process that carries out one call gains
nothing by that: it uses those that were found when the bundle was built (``prepared``), or compiles.

Owns finding and filling. It must not know what a request means: ``encode`` builds it.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Protocol

from cni_plugin.kernel import encode, prepared
from cni_plugin.kernel.encode import Request
from ipam.model import IPAddress, IPInterface, IPNetwork

Build = Callable[..., Request]
Span = tuple[str, int, int]
"""Which value, and the bytes where it stands."""


class Compiler(Protocol):
    """Who makes requests for the datapath: the module ``encode`` itself, or ``Templates``."""

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
    def delete_link(self, name: str = "", *, alt_name: str = "", index: int = 0) -> Request: ...  # noqa: D102
    def new_address(self, index: int, address: IPInterface) -> Request: ...  # noqa: D102
    def new_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request: ...  # noqa: D102
    def new_pod_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request: ...  # noqa: D102
    def new_neighbour(self, index: int, address: IPAddress, mac: str) -> Request: ...  # noqa: D102
    def get_link(self, *, name: str = "", alt_name: str = "", index: int = 0) -> Request: ...  # noqa: D102
    def get_route(self, dst: IPAddress) -> Request: ...  # noqa: D102


class Templates:
    """A ``Compiler`` that fills in. Threads may share one: a template is never changed once it is there.

    Args:
        learn: find a template for what there is none of yet.
    """

    def __init__(self, *, learn: bool) -> None:
        self._learn = learn
        self._templates: dict[tuple[object, ...], _Template | None] = {}

    def found(self) -> dict[tuple[object, ...], tuple[bytes, list[Span]]]:
        """The templates as plain values: what ``prepared`` has."""
        return {key: (each.data, each.spans) for key, each in self._templates.items() if each is not None}

    def new_veth(self, **values: Any) -> Request:
        """As ``encode.new_veth``, in whatever order the values are given."""
        return self._request(encode.new_veth, dict(sorted(values.items())))

    def set_link(self, index: int, *, alias: str | None = None) -> Request:
        """As ``encode.set_link``."""
        return self._request(encode.set_link, {"index": index, "alias": alias})

    def set_mark(self, index: int, alt_name: str) -> Request:
        """As ``encode.set_mark``."""
        return self._request(encode.set_mark, {"index": index, "alt_name": alt_name})

    def delete_link(self, name: str = "", *, alt_name: str = "", index: int = 0) -> Request:
        """As ``encode.delete_link``."""
        return self._request(encode.delete_link, {"name": name, "alt_name": alt_name, "index": index})

    def new_address(self, index: int, address: IPInterface) -> Request:
        """As ``encode.new_address``."""
        return self._request(encode.new_address, {"index": index, "address": address})

    def new_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request:
        """As ``encode.new_route``."""
        return self._request(encode.new_route, {"index": index, "dst": dst, "gateway": gateway})

    def new_pod_route(self, index: int, dst: IPNetwork, *, gateway: IPAddress | None = None) -> Request:
        """As ``encode.new_pod_route``."""
        return self._request(encode.new_pod_route, {"index": index, "dst": dst, "gateway": gateway})

    def new_neighbour(self, index: int, address: IPAddress, mac: str) -> Request:
        """As ``encode.new_neighbour``."""
        return self._request(encode.new_neighbour, {"index": index, "address": address, "mac": mac})

    def get_link(self, *, name: str = "", alt_name: str = "", index: int = 0) -> Request:
        """As ``encode.get_link``."""
        return self._request(encode.get_link, {"name": name, "alt_name": alt_name, "index": index})

    def get_route(self, dst: IPAddress) -> Request:
        """As ``encode.get_route``."""
        return self._request(encode.get_route, {"dst": dst})

    def _request(self, build: Build, values: dict[str, Any]) -> Request:
        key = (build.__name__, *[_shape(name, value) for name, value in values.items()])
        try:
            template = self._templates[key]
        except KeyError:
            template = self._templates[key] = self._first(key, build, values)
        if template is None:
            return build(**values)
        return Request(template.fill(values), lambda: build(**values).what)

    def _first(self, key: tuple[object, ...], build: Build, values: dict[str, Any]) -> _Template | None:
        ready = prepared.TEMPLATES.get(key)
        if ready is not None:
            return _Template(*ready)
        return _find(build, values) if self._learn else None


class _Template:
    """The bytes of a request, and where its values stand."""

    def __init__(self, data: bytes, spans: list[Span]) -> None:
        self.data = data
        self.spans = spans

    def fill(self, values: dict[str, Any]) -> bytes:
        data = bytearray(self.data)
        for name, start, end in self.spans:
            data[start:end] = _encode(name, values[name])
        return bytes(data)


def _shape(name: str, value: Any) -> object:
    """What a template is for: everything of a value that decides how long a request is, or what is in it
    beside the value itself.
    """
    kind = type(value)
    if kind is int:
        return (name, "number") if value else (name, value)
    if kind is str:
        return (name, "mac" if _is_mac(name) else "text", len(value.encode()))
    if kind is IPv4Network:
        return (name, "net", value.prefixlen)
    if kind is IPv4Address:
        return (name, "address")
    if kind is IPv4Interface:
        return (name, "interface", value.network.prefixlen)
    return (name, value)


def _is_mac(name: str) -> bool:
    return name.endswith("mac")


def _encode(name: str, value: Any) -> bytes:
    """A value as it stands in a message: numbers in the host's order, addresses in the network's."""
    kind = type(value)
    if kind is int:
        number: bytes = value.to_bytes(4, "little")
        return number
    if kind is str:
        return bytes.fromhex(value.replace(":", "")) if _is_mac(name) else value.encode()
    address = value.network_address if kind is IPv4Network else value.ip if kind is IPv4Interface else value
    packed: bytes = address.packed
    return packed


def _probes(name: str, value: Any) -> tuple[Any, Any] | None:
    """Two values of the same shape that differ in every byte; None where there is nothing to fill in."""
    if isinstance(value, IPv4Network):
        length = value.prefixlen
        pair = (
            IPv4Network((0x55555555, length), strict=False),
            IPv4Network((0xAAAAAAAA, length), strict=False),
        )
        return pair if length == value.max_prefixlen else None
    if isinstance(value, IPv4Interface):
        length = value.network.prefixlen
        return IPv4Interface((0x55555555, length)), IPv4Interface((0xAAAAAAAA, length))
    if isinstance(value, IPv4Address):
        return IPv4Address(0x55555555), IPv4Address(0xAAAAAAAA)
    if isinstance(value, str) and value:
        if _is_mac(name):
            return "56:57:58:59:5a:5b", "a6:a7:a8:a9:aa:ab"
        size = len(value.encode())
        return "x" * size, "y" * size
    if isinstance(value, int) and not isinstance(value, bool) and value:
        return 0x15161718, 0x25262728
    return None


def _find(build: Build, values: dict[str, Any]) -> _Template | None:
    """Find where the values stand, by changing one at a time; None where that is not beyond doubt."""
    probes = {name: pair for name, value in values.items() if (pair := _probes(name, value)) is not None}
    first = {**values, **{name: pair[0] for name, pair in probes.items()}}
    second = {**values, **{name: pair[1] for name, pair in probes.items()}}
    data = build(**first).data
    spans: list[Span] = []
    for name, pair in probes.items():
        changed = build(**{**first, name: pair[1]}).data
        found = _spans(name, data, changed, _encode(name, pair[0]), _encode(name, pair[1]))
        if found is None:
            return None
        spans += found
    template = _Template(data, spans)
    return template if template.fill(second) == build(**second).data else None


def _spans(name: str, before: bytes, after: bytes, old: bytes, new: bytes) -> list[Span] | None:
    """Where ``old`` became ``new``; None where anything else changed as well."""
    if len(before) != len(after):
        return None
    different = [index for index in range(len(before)) if before[index] != after[index]]
    spans: list[Span] = []
    covered: set[int] = set()
    for index in different:
        if index in covered:
            continue
        end = index + len(old)
        if before[index:end] != old or after[index:end] != new:
            return None
        spans.append((name, index, end))
        covered.update(range(index, end))
    return spans if spans and covered == set(different) else None
