"""A blocking netlink socket: many requests in one send, each with its own acknowledgement.

Owns the exchange with the kernel and the reading of its answers. It must not know what the requests are
for. A socket belongs to the namespace it was opened in and to one thread at a time.
"""

from __future__ import annotations

import _socket as socket  # the module around it makes an enum of every constant at every import
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from cni_plugin.kernel import requests
from cni_plugin.kernel.requests import Request
from ipam.model import IPAddress, IPNetwork

if TYPE_CHECKING:
    from typing import Self

    from cni_plugin.kernel.templates import Compiler

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_DUMP_INTR, NLM_F_ACK_TLVS, NLM_F_MULTI = 0x10, 0x200, 0x2
NLMSGERR_ATTR_MSG = 1
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
RECEIVE_BYTES = 1 << 18
ANSWER_SECONDS = 30
"""The kernel answers within the call to send(); this bound is for the unthinkable."""
DUMP_ATTEMPTS = 20


class NoSuchDevice(OSError):
    """ENODEV: the link of the request does not exist."""


class DeviceBusy(OSError):
    """EBUSY: for a new link, its index is taken."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface."""

    index: int
    name: str
    mac: str
    mtu: int
    flags: int
    alias: str = ""
    kind: str = ""
    master: int = 0
    lower: int = 0
    """IFLA_LINK: the link below (vlan, macvlan) or the peer (veth)."""
    lower_elsewhere: bool = False
    """Whether ``lower`` is an index of another namespace."""

    @property
    def up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & 1)

    @property
    def slave(self) -> bool:
        """IFF_SLAVE, as the VF of accelerated networking has it."""
        return bool(self.flags & 0x800)


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """One address of a link."""

    index: int
    ip: IPAddress
    prefixlen: int


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """One route."""

    dst: IPNetwork
    gateway: IPAddress | None
    index: int
    protocol: int
    scope: int
    kind: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One neighbour."""

    index: int
    ip: IPAddress
    mac: str
    state: int


class Netlink:
    """A netlink socket, of rtnetlink if nothing else is said, in the calling thread's namespace.

    ``compile`` makes the requests that are sent through it often.
    """

    def __init__(self, compiler: Compiler = requests, *, protocol: int = NETLINK_ROUTE) -> None:
        self.compile = compiler
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(ANSWER_SECONDS)
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sibling(self) -> Netlink:
        """Another socket like this one, of the namespace that the calling thread is in now."""
        return Netlink(self.compile)

    def close(self) -> None:
        """Close the socket; more than once is fine."""
        self._socket.close()

    def change(self, requests: Sequence[Request]) -> None:
        """Carry out changes, in order, in one send.

        The kernel goes on with a batch after a message in it failed. So no request may stand behind one
        on whose success it relies to hit the right object: give such requests to another ``change``.

        Raises:
            OSError: the first request that failed, as the class of its errno; the others were carried out.
        """
        first = self._sequence + 1
        self._send(requests)
        failures: dict[int, OSError] = {}
        waiting = len(requests)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind == NLMSG_ERROR and first <= sequence <= self._sequence:
                    waiting -= 1
                    error = _error(body, flags, requests[sequence - first])
                    if error is not None:
                        failures[sequence] = error
        if failures:
            raise failures[min(failures)]

    def one_link(self, request: Request) -> Link | None:
        """The link that was asked for; None when there is none."""
        try:
            return next((read_link(body) for body in self._ask(request)), None)
        except NoSuchDevice:
            return None

    def links(self, request: Request) -> list[Link]:
        """Every link of the dump."""
        return [read_link(body) for body in self.dump(request)]

    def addresses(self, request: Request) -> list[LinkAddress]:
        """Every address of the dump."""
        return [_address(body) for body in self.dump(request)]

    def one_route(self, request: Request) -> KernelRoute | None:
        """The route that was asked for; None when nothing leads there."""
        try:
            return next((read_route(body) for body in self._ask(request)), None)
        except OSError as error:
            if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH}:
                return None
            raise

    def routes(self, request: Request) -> list[KernelRoute]:
        """Every route of the dump."""
        return [read_route(body) for body in self.dump(request)]

    def neighbours(self, request: Request) -> list[Neighbour]:
        """Every neighbour of the dump."""
        return [_neighbour(body) for body in self.dump(request)]

    def _ask(self, request: Request) -> list[bytes]:
        """One object: the kernel answers with it alone, or with an error."""
        self._send([request])
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind != NLMSG_ERROR:
                    return [body]
                error = _error(body, flags, request)
                if error is not None:
                    raise error
                return []

    def dump(self, request: Request) -> list[bytes]:
        """All objects, unread. The kernel marks a dump that a change ran into; it is asked for again then."""
        for _ in range(DUMP_ATTEMPTS):
            bodies, whole = self._dump_once(request)
            if whole:
                return bodies
        raise InterruptedError(
            errno.EINTR, f"{request.what}: interrupted by changes {DUMP_ATTEMPTS} times in a row"
        )

    def _dump_once(self, request: Request) -> tuple[list[bytes], bool]:
        self._send([request])
        bodies: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind == NLMSG_DONE:
                    return bodies, whole
                if kind == NLMSG_ERROR:
                    error = _error(body, flags, request)
                    if error is not None:
                        raise error
                    return bodies, whole
                bodies.append(body)

    def _send(self, requests: Sequence[Request]) -> None:
        batch = bytearray()
        for request in requests:
            self._sequence += 1
            offset = len(batch)
            batch += request.data
            struct.pack_into("=I", batch, offset + 8, self._sequence)
        self._socket.send(batch)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one datagram: type, flags, sequence number, body."""
        data = self._socket.recv(RECEIVE_BYTES)
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
            if length < HEADER.size:
                break
            yield kind, flags, sequence, data[offset + HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _error(body: bytes, flags: int, request: Request) -> OSError | None:
    """The error of an NLMSG_ERROR message; None for an acknowledgement (netlink(7))."""
    number = -int(struct.unpack_from("=i", body)[0])
    if not number:
        return None
    said = ""
    if flags & NLM_F_ACK_TLVS:
        said = (
            dict(read_attributes(body, 4 + HEADER.size))
            .get(NLMSGERR_ATTR_MSG, b"")
            .rstrip(b"\0")
            .decode(errors="replace")
        )
    text = f"{request.what}: {os.strerror(number)}{f' ({said})' if said else ''}"
    if number == errno.ENODEV:
        return NoSuchDevice(number, text)
    if number == errno.EBUSY:
        return DeviceBusy(number, text)
    return OSError(number, text)


def read_attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message, or of a nested one, from an offset on: kind and value."""
    while offset + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, body[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode(errors="replace")


def _number(attributes: dict[int, bytes], kind: int) -> int:
    value = attributes.get(kind)
    return int.from_bytes(value, "little", signed=False) if value else 0


def _mac(value: bytes) -> str:
    return value.hex(":")


def read_link(body: bytes) -> Link:
    """Struct ifinfomsg and IFLA_* (include/uapi/linux/if_link.h)."""
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", body)
    attributes = dict(read_attributes(body, 16))
    info = dict(read_attributes(attributes.get(18, b""), 0))
    return Link(
        index=index,
        name=_text(attributes.get(3, b"")),
        mac=_mac(attributes.get(1, b"")),
        mtu=_number(attributes, 4),
        flags=flags,
        alias=_text(attributes.get(20, b"")),
        kind=_text(info.get(1, b"")),
        master=_number(attributes, 10),
        lower=_number(attributes, 5),
        lower_elsewhere=37 in attributes,
    )


def _address(body: bytes) -> LinkAddress:
    """Struct ifaddrmsg and IFA_*: IFA_LOCAL is the address, IFA_ADDRESS that of a point-to-point peer."""
    _, prefixlen, _, _, index = struct.unpack_from("=BBBBI", body)
    attributes = dict(read_attributes(body, 8))
    return LinkAddress(index, ip_address(attributes.get(2) or attributes[1]), prefixlen)


def read_route(body: bytes) -> KernelRoute:
    """Struct rtmsg and RTA_*."""
    family, dst_len, _, _, _, protocol, scope, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    attributes = dict(read_attributes(body, 12))
    zero = bytes(4 if family == socket.AF_INET else 16)
    gateway = attributes.get(5)
    return KernelRoute(
        dst=ip_network((attributes.get(1, zero), dst_len)),
        gateway=ip_address(gateway) if gateway else None,
        index=_number(attributes, 4),
        protocol=protocol,
        scope=scope,
        kind=kind,
    )


def _neighbour(body: bytes) -> Neighbour:
    """Struct ndmsg and NDA_*."""
    _, _, _, index, state, _, _ = struct.unpack_from("=BBHiHBB", body)
    attributes = dict(read_attributes(body, 12))
    return Neighbour(index, ip_address(attributes[1]), _mac(attributes.get(2, b"")), state)
