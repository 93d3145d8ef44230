"""A real packet along the way that ``explain`` computed: sent from where the packet would come from.

Owns sending it and reading what became of it: the answer, and what the node's connection tracking made of its
addresses. One packet, or one TCP handshake; nothing is changed. It must not know which way was computed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from cni_plugin.kernel import conntrack, netns
from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.cli.facts import Facts
    from ipam.model import IPAddress

SECONDS = 2.0
"""Seconds to wait for an answer."""
End = tuple[str, int] | tuple[str, int, int, int]
"""An address for ``connect``, of IPv4 or IPv6 with its link."""
ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
"""Types of ICMP (RFC 792) and ICMPv6 (RFC 4443)."""


class Answer(Value):
    """What became of the packet."""

    arrived: bool
    """Something at the far end has answered, if only with a refusal."""
    detail: str
    source: str = ""
    """The source that the far end saw, as the node's connection tracking has it; empty: not tracked."""
    target: str = ""
    """Where it was really sent."""

    def __str__(self) -> str:
        seen = f", seen there as {self.source}" if self.source else ""
        sent = f", sent to {self.target}" if self.target else ""
        return self.detail + sent + seen

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "arrived": self.arrived,
            "detail": self.detail,
            "source": self.source or None,
            "target": self.target or None,
        }


def send(
    pod: Facts | None, source: IPAddress, target: IPAddress, port: int, *, udp: bool, link: str = ""
) -> Answer:
    """Send a packet from ``source``: from its pod, or from the node that has the address; to a link-local
    address by that link of it.
    """
    try:
        if pod is None:
            answer, flow = _exchange(source, _end(target, port, link), udp=udp)
        else:
            with netns.opened(None, pod.owner.netns) as fd:
                answer, flow = netns.call_in(fd, lambda: _exchange(source, _end(target, port, link), udp=udp))
        tracked = conntrack.translation(source, target, flow)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return Answer(arrived=False, detail=f"{source} is not an address of this node")
        return Answer(arrived=False, detail=f"not sent: {error.strerror or error}")
    if tracked is None:
        return answer
    return Answer(answer.arrived, answer.detail, source=str(tracked[0]), target=str(tracked[1]))


def _end(target: IPAddress, port: int, link: str) -> End:
    """Raises OSError: the namespace has no such link."""
    if target.version == 4:
        return str(target), port
    return str(target), port, 0, socket.if_nametoindex(link) if link else 0


def _exchange(source: IPAddress, end: End, *, udp: bool) -> tuple[Answer, int]:
    """The answer, and what identifies the connection: its source port, or the identifier of the echo."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    if not end[1]:
        identity = os.getpid() & 0xFFFF
        return _echo(source, end, identity), identity
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(SECONDS)
        sock.bind((str(source), 0))
        own_port = sock.getsockname()[1]  # now: the socket loses it when the connection is refused
        return _answer(sock, end, udp=udp), own_port


def _answer(sock: socket.socket, end: End, *, udp: bool) -> Answer:
    try:
        sock.connect(end)
        if not udp:
            return Answer(arrived=True, detail="connected")
        sock.send(b"azvnet explain")
        sock.recv(1)
    except TimeoutError:
        return Answer(arrived=False, detail=f"no answer within {SECONDS:g} s")
    except OSError as error:
        # Only a machine that has the address sends these.
        arrived = error.errno in {errno.ECONNREFUSED, errno.ECONNRESET}
        return Answer(arrived=arrived, detail=(error.strerror or str(error)).lower())
    return Answer(arrived=True, detail="answered")


def _echo(source: IPAddress, end: End, identity: int) -> Answer:
    """An ICMP echo, by a raw socket: whether an unprivileged one may be used is a sysctl of the namespace."""
    version = source.version
    family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
    if version == 6:
        family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.bind((str(source), 0))
        until = time.monotonic() + SECONDS
        try:
            sock.connect(end)
            sock.send(_request(version, identity))
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                answer = sock.recv(1500)
                body = answer[(answer[0] & 15) * 4 :] if version == 4 else answer
                if body[0] == ECHO_REPLY[version] and struct.unpack_from("!H", body, 4)[0] == identity:
                    return Answer(arrived=True, detail="echoed")
        except TimeoutError:
            pass
        except OSError as error:
            return Answer(arrived=False, detail=(error.strerror or str(error)).lower())
    return Answer(arrived=False, detail=f"no echo within {SECONDS:g} s")


def _request(version: int, identity: int) -> bytes:
    """An echo request; the kernel fills in the checksum of ICMPv6 only."""
    header = struct.Struct("!BBHHH")
    packet = header.pack(ECHO_REQUEST[version], 0, 0, identity, 1)
    total = sum(struct.unpack("!4H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return header.pack(ECHO_REQUEST[version], 0, ~total & 0xFFFF, identity, 1)
