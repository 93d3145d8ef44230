"""A DHCP server at the host's ends of pods: it gives one address, in offers and acknowledgements (RFC 2131).

    dhcp_server.py ADDRESS/LENGTH ROUTER

It listens on packet sockets, as the host's end of a routed pod has no address of its own.
"""

import socket
import struct
import sys
from ipaddress import IPv4Address, IPv4Interface

COOKIE = bytes.fromhex("63825363")
TYPE, MASK, ROUTER, LEASE, SERVER, END = 53, 1, 3, 51, 54, 255
ANSWERS = {1: 2, 3: 5}
"""DISCOVER is answered by OFFER, REQUEST by ACK."""
LEASE_SECONDS = 3600


def options_of(message: bytes) -> dict[int, bytes]:
    """The options behind the cookie."""
    found: dict[int, bytes] = {}
    rest = message[240:]
    while rest and rest[0] != END:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        found[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return found


def reply(request: bytes, kind: int, address: IPv4Interface, router: IPv4Address) -> bytes:
    """The message that answers one."""
    head = bytearray(request[:236])
    head[0] = 2  # BOOTREPLY
    head[16:20] = address.ip.packed
    values = {
        TYPE: bytes([kind]),
        SERVER: router.packed,
        LEASE: struct.pack("!I", LEASE_SECONDS),
        MASK: address.netmask.packed,
        ROUTER: router.packed,
    }
    options = b"".join(bytes([code, len(value)]) + value for code, value in values.items())
    return bytes(head) + COOKIE + options + bytes([END])


def packet(payload: bytes, source: IPv4Address) -> bytes:
    """IPv4 and UDP around it, to everybody; the UDP checksum is left out, as IPv4 allows."""
    udp = struct.pack("!HHHH", 67, 68, 8 + len(payload), 0) + payload
    everybody = bytes([255] * 4)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    total = sum(struct.unpack("!10H", head + source.packed + everybody))
    folded = (total & 0xFFFF) + (total >> 16)
    checksum = ~(folded + (folded >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + source.packed + everybody + udp


def main() -> None:
    """Serve until killed."""
    address, router = IPv4Interface(sys.argv[1]), IPv4Address(sys.argv[2])
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as link:
        print("listening", flush=True)
        while True:
            data, (ifname, *_) = link.recvfrom(2048)
            length = (data[0] & 15) * 4
            ports = data[length : length + 4]
            if not ifname.startswith("azv") or data[9] != socket.IPPROTO_UDP or ports[2:] != b"\0\x43":
                continue
            request = data[length + 8 :]
            kind = ANSWERS.get(options_of(request).get(TYPE, b"\0")[0])
            if kind is not None:
                answer = packet(reply(request, kind, address, router), router)
                link.sendto(answer, (ifname, 0x0800, 0, 0, b"\xff" * 6))
                print(f"answered {kind} on {ifname}", flush=True)


if __name__ == "__main__":
    main()
