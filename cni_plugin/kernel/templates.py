"""Filling in requests that were compiled once.

pyroute2 compiles a request in 0.1 to 0.4 ms; a request differs from the one before it in a name, an index and
an address only. The build compiles each with two sets of values and finds where they stand
(packaging/prepare.py); ``prepared`` has the result. A request without a template is compiled, as is
everything in a source tree.

Owns requests as values, and filling them in. It must not know what a request means: ``encode`` builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, ParamSpec

from cni_plugin.kernel import prepared
from ipam.value import Value

P = ParamSpec("P")

Span = tuple[int, bool, tuple[tuple[int, int], ...]]
"""The place of a value among the parameters, whether it is a MAC, and the bytes where it stands."""
Template = tuple[bytes, tuple[Span, ...]]
Key = tuple[object, ...]


class Request(Value):
    """One compiled message, or several that are sent together, and their purpose, for error messages."""

    data: bytes
    describe: Callable[[], Sequence[str]]
    """The purpose of each message; formatted only when needed."""

    @property
    def what(self) -> str:
        """Its purpose."""
        return ", ".join(self.describe())


def together(*requests: Request) -> Request:
    """Several requests as one."""
    data = b"".join([each.data for each in requests])
    return Request(data, lambda: [text for each in requests for text in each.describe()])


def filled_in(build: Callable[P, Request]) -> Callable[P, Request]:
    """``build``, filled in where there is a template for such values."""
    defaults = parameters_of(build)
    parameters = tuple(defaults)

    @wraps(build)
    def request(*args: P.args, **named: P.kwargs) -> Request:
        values: tuple[Any, ...] = args
        if len(values) < len(parameters):
            values += tuple([named.get(each, defaults[each]) for each in parameters[len(values) :]])
        template = prepared.TEMPLATES.get(template_key(build, values))
        if template is None:
            return build(*args, **named)
        return Request(fill(template, values), lambda: build(*args, **named).describe())

    return request


def parameters_of(build: Callable[..., Request]) -> dict[str, Any]:
    """Its parameters with their defaults; None where one has none."""
    code, given = build.__code__, build.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    with_default = names[code.co_argcount - len(given) : code.co_argcount]
    keyword_only = build.__kwdefaults__ or {}
    return dict.fromkeys(names) | dict(zip(with_default, given, strict=True)) | keyword_only


def template_key(build: Callable[..., Request], values: Sequence[Any]) -> Key:
    """The key of a template: a request, and the shapes of its values, which is everything about them that
    decides its length, or what is in it beside the value itself.
    """
    key: list[object] = [build.__name__]
    for value in values:  # in one function: an ADD has twenty
        kind = type(value)
        if kind is int:
            key.append(value != 0)
        elif kind is str:
            key.append(len(value) if value.isascii() else len(value.encode()))
        elif kind is IPv4Address:
            key.append(("ip", 4))
        elif kind is IPv6Address:
            key.append(("ip", 6))
        elif kind is IPv4Interface:
            key.append((4, value.network.prefixlen))
        elif kind is IPv6Interface:
            key.append((6, value.network.prefixlen))
        else:
            key.append(value)
    return tuple(key)


def fill(template: Template, values: Sequence[Any]) -> bytes:
    """The request that the template is of, with other values."""
    data = bytearray(template[0])
    for position, is_mac, places in template[1]:
        value = values[position]
        written = value.to_bytes(4, "little") if type(value) is int else encoded(value, is_mac=is_mac)
        for start, end in places:
            data[start:end] = written
    return bytes(data)


def encoded(value: Any, *, is_mac: bool) -> bytes:
    """A value as it stands in a message: numbers in the host's order, addresses in the network's."""
    kind = type(value)
    if kind is int:
        number: bytes = value.to_bytes(4, "little")
        return number
    if kind is str:
        return bytes.fromhex(value.replace(":", "")) if is_mac else value.encode()
    packed: bytes = value.packed
    return packed
