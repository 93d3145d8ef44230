"""A blocking netlink socket: many requests in one send, each with its own acknowledgement.

Owns the exchange with the kernel and the reading of its answers. It must not know what the requests are
for. A socket belongs to the namespace it was opened in and to one thread at a time.
"""

from __future__ import annotations

import _socket as socket  # the module around it makes an enum of every constant at every import
import errno
import os
import struct
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import (
    KernelRoute,
    Link,
    LinkAddress,
    Neighbour,
    read_address,
    read_attributes,
    read_link,
    read_neighbour,
    read_route,
    read_text,
)
from cni_plugin.kernel.encode import NLM_F_ACK
from cni_plugin.kernel.templates import Request
from ipam.model import IPAddress

if TYPE_CHECKING:
    from typing import Self

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_DUMP_INTR, NLM_F_ACK_TLVS = 0x10, 0x200
NLMSGERR_ATTR_MSG = 1

HEADER = struct.Struct("=IHHII")
RECEIVE_BYTES = 1 << 15
"""The kernel fills a datagram of a dump up to this, whatever is offered (netlink_recvmsg)."""
TIMEVAL = struct.Struct("=qq")
ANSWER_SECONDS = 30
"""The kernel answers within the call to send(); a safety net only."""
DUMP_ATTEMPTS = 4
RTM_GETLINK = encode.RTM_GETLINK.to_bytes(2, "little")
IFI_INDEX = slice(4, 8)
"""The index in struct ifinfomsg: a link that was renamed meanwhile is still the same link."""


rtnl = threading.Lock()
"""Held while this process changes links, routes and the like. The kernel does so one at a time anyway (RTNL),
but a thread that waits there spins, and a write to ``disable_ipv6`` is restarted until it finds that lock
free (``restart_syscall`` in addrconf_disable_ipv6)."""


_open = partial(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
"""Opens a socket of a protocol, rtnetlink by default (which is 0), in the calling thread's namespace."""


class NoSuchDevice(OSError):
    """ENODEV: the link of the request does not exist."""


class DeviceBusy(OSError):
    """EBUSY: for a new link, its index is taken."""


class Deleter(Protocol):
    """Deletes links for a ``Netlink``."""

    def delete(self, request: Request, host: Netlink) -> None:
        """Send a request to delete a link; ``host`` is the socket that it was meant for."""


class Netlink:
    """A netlink socket, of rtnetlink by default, in the calling thread's namespace.

    A ``deleter`` takes over deleting links.
    """

    def __init__(
        self,
        *,
        protocol: int = NETLINK_ROUTE,
        answer_seconds: int = ANSWER_SECONDS,
        opened: socket.socket | None = None,
        received: memoryview | None = None,
        deleter: Deleter | None = None,
    ) -> None:
        self._deleter = deleter
        self._turn = rtnl if protocol == NETLINK_ROUTE else nullcontext()
        self._socket = opened or _open(protocol)
        self.sequence = 0
        """Sequence number of the last request."""
        self._received = received or memoryview(bytearray(RECEIVE_BYTES))
        self._home = -1
        """Descriptor of the namespace of this socket, once it had to be left; -1 before."""
        self._probes: dict[int, socket.socket] = {}
        """Unbound sockets, by family: a bind(2) that is refused leaves one as it was."""
        try:
            # As a socket option: with a timeout of Python's, every message costs a poll() beside its recv().
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(answer_seconds, 0))
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def delete(self, request: Request) -> None:
        """Send a request to delete a link. Raises OSError, as ``change``."""
        if self._deleter is None:
            self.change([request])
        else:
            self._deleter.delete(request, self)

    def sibling_in(self, netns_fd: int) -> Netlink:
        """Another socket like this one, in another namespace. For the same thread, since both receive into
        the same memory; that thread has to be in the namespace of this one.

        Raises:
            KernelRefused: the namespace can't be entered.
        """
        if self._home < 0:
            self._home = netns.open_own()
        opened = netns.call_and_return(netns_fd, self._home, _open)
        return Netlink(opened=opened, received=self._received)

    def may_carry(self, address: IPAddress) -> bool:
        """False: no link of the namespace carries this address. Takes a tenth of the time of a route lookup:
        a socket can be bound to local addresses only (ip(7)), unless a sysctl or a program permits others.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            probe = self._probes.get(family) or self._new_probe(family)
        except OSError:  # this kernel does not have the family
            return True
        try:
            probe.bind((str(address), 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
        self._probes.pop(family).close()
        return True

    def _new_probe(self, family: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._probes[family] = made
        return made

    def close(self) -> None:
        """Close everything that it has open; more than once is fine."""
        self._socket.close()
        while self._probes:
            self._probes.popitem()[1].close()
        if self._home >= 0:
            home, self._home = self._home, -1
            os.close(home)

    def change(self, requests: Sequence[Request]) -> None:
        """Make changes, in order, in one send. The last request may be to read an object: it is answered with
        that, which saves an acknowledgement.

        The kernel continues a batch after a message in it failed. So a request must not follow one whose
        success it relies on to hit the right object: put it into another ``change``.

        Raises:
            OSError: the first request that failed, as the class of its errno; the others took effect.
        """
        first = self.sequence + 1
        batch = self.numbered(requests)
        with self._turn:
            self.send(batch)
        failure: OSError | None = None
        while True:
            for kind, flags, sequence, body in self.receive():
                if not first <= sequence <= self.sequence:
                    continue
                if kind == NLMSG_ERROR:
                    failure = failure or error_of(body, flags, requests, sequence - first)
                if sequence == self.sequence:
                    if failure is not None:
                        raise failure
                    return

    def one_link(self, request: Request) -> Link | None:
        """The link that was asked for; None when there is none."""
        try:
            return next((read_link(body) for body in self.ask(request)), None)
        except NoSuchDevice:
            return None

    def links(self, request: Request) -> list[Link]:
        """Every link of the dump."""
        return [read_link(body) for body in self.dump(request)]

    def addresses(self, request: Request) -> list[LinkAddress]:
        """Every address of the dump."""
        return [read_address(body) for body in self.dump(request)]

    def own_addresses(self, family: int = encode.AF_INET) -> frozenset[IPAddress]:
        """The addresses of one family, IPv4 by default, that the links of the namespace carry."""
        return frozenset(each.ip for each in self.addresses(encode.dump_addresses(family)))

    def one_route(self, request: Request) -> KernelRoute | None:
        """The route that was asked for; None when nothing leads there."""
        try:
            return next((read_route(body) for body in self.ask(request)), None)
        except OSError as error:
            if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH}:
                return None
            raise

    def routes(self, request: Request) -> list[KernelRoute]:
        """Every route of the dump."""
        return [read_route(body) for body in self.dump(request)]

    def default_routes(self, family: int) -> list[KernelRoute]:
        """The default routes of one family. Routes to pods are not parsed: a full node has hundreds."""
        bodies = self.dump(encode.dump_routes(family))
        return [read_route(body) for body in bodies if not body[1]]  # rtm_dst_len

    def neighbours(self, request: Request) -> list[Neighbour]:
        """Every neighbour of the dump."""
        return [read_neighbour(body) for body in self.dump(request)]

    def ask(self, request: Request) -> list[bytes]:
        """One object: the kernel answers with it alone, or with an error."""
        self.send(self.numbered([request]))
        while True:
            for kind, flags, sequence, body in self.receive():
                if sequence != self.sequence:
                    continue
                if kind != NLMSG_ERROR:
                    return [body]
                error = error_of(body, flags, [request])
                if error is not None:
                    raise error
                return []

    def dump(self, request: Request) -> list[bytes]:
        """All objects, unparsed. A dump that the kernel marks as interrupted by a change is repeated.

        Where objects change all the time, every dump is interrupted: then all that several dumps listed is
        returned. The kernel continues where it was, so an object that existed throughout is in each of them;
        older kernels may leave it out of one, if the object listed just before it is deleted.
        """
        found: dict[bytes, bytes] = {}
        of_links = request.data[4:6] == RTM_GETLINK
        for _ in range(DUMP_ATTEMPTS):
            bodies, whole = self._dump_once(request)
            if whole:
                return bodies
            found.update((body[IFI_INDEX] if of_links else body, body) for body in bodies)
        return list(found.values())

    def _dump_once(self, request: Request) -> tuple[list[bytes], bool]:
        self.send(self.numbered([request]))
        bodies: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence, body in self.receive():
                if sequence != self.sequence:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind == NLMSG_DONE:
                    return bodies, whole
                if kind == NLMSG_ERROR:
                    error = error_of(body, flags, [request])
                    if error is not None:
                        raise error
                    return bodies, whole
                bodies.append(body)

    def numbered(self, requests: Sequence[Request], more_flags: int = 0) -> bytearray:
        """Requests as they are sent together, each with a number. Only the last one is acknowledged; the
        kernel reports failures of the others in any case (netlink(7), NLM_F_ACK).
        """
        batch = bytearray(b"".join([each.data for each in requests]))
        offset, size = 0, len(batch)
        while offset < size:
            self.sequence += 1
            length, kind, flags, _, _ = HEADER.unpack_from(batch, offset)
            end = offset + ((length + 3) & ~3)
            if end < size:
                flags &= ~NLM_F_ACK
            HEADER.pack_into(batch, offset, length, kind, flags | more_flags, self.sequence, 0)
            offset = end
        return batch

    def send(self, batch: bytearray) -> None:
        """Send what ``numbered`` returned. The kernel has handled it when this returns."""
        self._socket.send(batch)

    def receive(self) -> list[tuple[int, int, int, bytes]]:
        """Wait for one datagram. The messages of one datagram: type, flags, sequence number, body."""
        data = self._received
        size = self._socket.recv_into(data, 0, socket.MSG_TRUNC)  # returns the real length
        if size > len(data):
            raise OSError(errno.EMSGSIZE, f"the kernel's answer has {size} bytes, more than {len(data)}")
        found: list[tuple[int, int, int, bytes]] = []
        offset = 0
        while offset + HEADER.size <= size:
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
            if length < HEADER.size:
                break
            found.append((kind, flags, sequence, data[offset + HEADER.size : offset + length].tobytes()))
            offset += (length + 3) & ~3
        return found


def error_of(body: bytes, flags: int, requests: Sequence[Request], position: int = 0) -> OSError | None:
    """The error of an NLMSG_ERROR message; None for an acknowledgement (netlink(7)).

    Args:
        body: of the message.
        flags: of the message.
        requests: what was sent together.
        position: which message of them is answered.
    """
    number = -int(struct.unpack_from("=i", body)[0])
    if not number:
        return None
    said = ""
    if flags & NLM_F_ACK_TLVS:
        said = read_text(dict(read_attributes(body, 4 + HEADER.size)), NLMSGERR_ATTR_MSG)
    what = [text for each in requests for text in each.describe()][position]
    text = f"{what}: {os.strerror(number)}{f' ({said})' if said else ''}"
    if number == errno.ENODEV:
        return NoSuchDevice(number, text)
    if number == errno.EBUSY:
        return DeviceBusy(number, text)
    return OSError(number, text)
