"""What IPv4 and IPv6 differ in where packets are sent, answered and watched.

Owns the numbers of both and reading their headers. It must not know who sends.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.fabric import Machine
    from integration.fabric.model import Nic


@dataclass(frozen=True, slots=True)
class Family:
    """One address family. Headers: RFC 791, RFC 8200 (packets here have no extension headers)."""

    version: int
    table: str
    """The family of its tables in nf_tables; with ``tables`` after it, the program of iptables."""
    number: socket.AddressFamily
    ethertype: int
    anywhere: str
    icmp: int
    """Protocol of its echoes."""
    echo_request: int
    echo_reply: int
    options: int
    """Level of its socket options."""
    wants_info: int
    info: int
    """Option that asks for the address that was asked, and the control message that has it."""
    info_layout: struct.Struct

    def protocol_of(self, packet: bytes) -> tuple[int, int]:
        """Of a packet: the protocol, and where its header begins."""
        return (packet[9], (packet[0] & 15) * 4) if self.version == 4 else (packet[6], 40)

    def ends_of(self, packet: bytes) -> tuple[str, str]:
        """Source and target of a packet."""
        first, length = (12, 4) if self.version == 4 else (8, 16)
        source, target = (packet[at : at + length] for at in (first, first + length))
        return str(ip_address(source)), str(ip_address(target))

    def echo_in(self, received: bytes) -> bytes:
        """The echo in what a raw socket received: that of IPv6 leaves the header out (RFC 3542)."""
        return received[self.protocol_of(received)[1] :] if self.version == 4 else received

    def asked_of(self, info: bytes) -> bytes:
        """The address that was asked, of the control message."""
        asked: bytes = self.info_layout.unpack(info)[1 if self.version == 4 else 0]
        return asked

    def answering_as(self, asked: bytes) -> bytes:
        """The control message with which an answer leaves from that address."""
        fields = (0, asked, bytes(4)) if self.version == 4 else (asked, 0)
        return self.info_layout.pack(*fields)

    def address_of(self, nic: Nic) -> str:
        """The primary one of a NIC."""
        return str(nic.primary_ip if self.version == 4 else nic.ipv6[0])

    def of_machine(self, machine: Machine) -> str:
        """The primary one of a machine."""
        return self.address_of(machine.vm.primary_nic)

    def with_port(self, address: str, port: int) -> str:
        """As people write it."""
        return f"{address}:{port}" if self.version == 4 else f"[{address}]:{port}"


IPV4 = Family(
    version=4,
    table="ip",
    number=socket.AF_INET,
    ethertype=0x0800,
    anywhere="0.0.0.0",
    icmp=socket.IPPROTO_ICMP,
    echo_request=8,
    echo_reply=0,
    options=socket.IPPROTO_IP,
    wants_info=8,
    info=8,
    info_layout=struct.Struct("=i4s4s"),
)
"""Struct in_pktinfo: link, the address that answers, the address in the header (ip(7))."""
IPV6 = Family(
    version=6,
    table="ip6",
    number=socket.AF_INET6,
    ethertype=0x86DD,
    anywhere="::",
    icmp=socket.IPPROTO_ICMPV6,
    echo_request=128,
    echo_reply=129,
    options=socket.IPPROTO_IPV6,
    wants_info=socket.IPV6_RECVPKTINFO,
    info=socket.IPV6_PKTINFO,
    info_layout=struct.Struct("=16sI"),
)
"""Struct in6_pktinfo: the address, link (RFC 3542)."""
