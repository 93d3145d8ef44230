"""The routers that Azure's fabric plays on every link: router advertisements over raw ICMPv6 sockets.

Owns what is announced on which port, when, and the bytes (RFC 4861, section 4.2). It must not know machines.
What Azure's advertisements have is not documented; nodes show a default route by fe80::1234:5678:9abc with
``proto ra`` that expires after 9,000 s, and addresses of /128 without a route for a prefix.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from integration.fabric import namespaces as ns
from integration.fabric.model import FABRIC_MAC, FABRIC_ROUTER

if TYPE_CHECKING:
    from collections.abc import Iterable

LIFETIME = 9000
"""Seconds for which a default route is announced; 0: the router is none any more."""
INTERVAL = 200.0
"""Seconds between advertisements that nobody asked for: a third of MaxRtrAdvInterval's default."""
SOLICITATION, ADVERTISEMENT = 133, 134
ICMP6_FILTER = 1
SOURCE_LINK_LAYER = 1
MANAGED = 0x80
"""Addresses come from DHCPv6."""
ALL_NODES = "ff02::1"
INFO = struct.Struct("=16sI")
"""Struct in6_pktinfo (RFC 3542)."""


@dataclass(frozen=True, slots=True)
class Router:
    """The router of one port."""

    address: IPv6Address = FABRIC_ROUTER
    lifetime: int = LIFETIME

    def advertisement(self) -> bytes:
        """Hop limit, times and MTU are left to the host; the kernel fills in the checksum."""
        head = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 0, MANAGED, self.lifetime, 0, 0)
        mac = bytes.fromhex(FABRIC_MAC.replace(":", ""))
        return head + struct.pack("!BB6s", SOURCE_LINK_LAYER, 1, mac)


class Routers:
    """Announces a router on each of its ports, regularly and to who asks. Methods may be called from any
    thread.
    """

    def __init__(self, netns: int) -> None:
        self._by_index: dict[int, Router] = {}
        self._index: dict[str, int] = {}
        self._netns = netns
        self._lock = threading.Lock()
        self._socket = ns.in_network(netns, _raw_socket)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._loop, name="routers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it. Nobody is told that the routers are gone, as when a host loses power."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._socket.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def put(self, port: str, router: Router) -> None:
        """From now on this is the router of a port; see ``announce``. Raises OSError: there is no port."""
        index = ns.in_network(self._netns, lambda: socket.if_nametoindex(port))
        with self._lock:
            self._index[port] = index
            self._by_index[index] = router

    def router_of(self, port: str) -> Router:
        """The router of a port. Raises KeyError: it has none."""
        with self._lock:
            return self._by_index[self._index[port]]

    def forget(self, port: str) -> None:
        """The port is gone."""
        with self._lock:
            self._by_index.pop(self._index.pop(port, 0), None)

    def announce(self, ports: Iterable[str]) -> None:
        """Send an advertisement on ports, as far as they have a router."""
        with self._lock:
            chosen = [(index, self._by_index[index]) for each in ports if (index := self._index.get(each))]
        for index, router in chosen:
            self._send(index, router)

    def withdraw(self, port: str, address: IPv6Address) -> None:
        """Say that an address is no router any more."""
        with self._lock:
            index = self._index[port]
        self._send(index, Router(address, lifetime=0))

    def _send(self, index: int, router: Router) -> None:
        control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, INFO.pack(router.address.packed, index))]
        with contextlib.suppress(OSError):  # the port has just gone, or is down
            self._socket.sendmsg([router.advertisement()], control, 0, (ALL_NODES, 0, 0, index))

    def _loop(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._wake_read], [], [], INTERVAL)
            if self._wake_read in ready:
                return
            if not ready:
                with self._lock:
                    ports = list(self._index)
                self.announce(ports)
                continue
            _, control, _, _ = self._socket.recvmsg(1500, 256)
            index = next(
                (INFO.unpack(data)[1] for _, kind, data in control if kind == socket.IPV6_PKTINFO), 0
            )
            with self._lock:
                router = self._by_index.get(index)
            if router is not None and router.lifetime:
                self._send(index, router)


def _raw_socket() -> socket.socket:
    """One that gets solicitations alone, and sends with the hop limit that receivers insist on."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    blocked = bytearray(b"\xff" * 32)
    blocked[SOLICITATION // 8] &= ~(1 << SOLICITATION % 8)
    made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    return made
