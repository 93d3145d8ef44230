"""Small programs for network namespaces: servers that answer with the address that they saw, and one that
asks them, over TCP or UDP.
"""

from __future__ import annotations

SERVER = """
import select, socket, sys
places = {}
for address in sys.argv[2:]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        if ":" in host:
            place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, int(port)))
        if kind == socket.SOCK_STREAM:
            place.listen(16)
        places[place.fileno()] = (place, kind)
open(sys.argv[1], "w").write("ready")
while True:
    for fd in select.select(list(places), [], [])[0]:
        place, kind = places[fd]
        if kind == socket.SOCK_STREAM:
            connection, peer = place.accept()
            with connection:
                connection.sendall(peer[0].encode())
        else:
            _, peer = place.recvfrom(100)
            place.sendto(peer[0].encode(), peer)
"""
"""Arguments: a file to write once it listens, then addresses with ports; it listens on TCP and UDP."""

ASK = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
for place in sys.argv[2:]:
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as asking:
        asking.settimeout(10)
        try:
            asking.connect((host, int(port)))
            if kind == socket.SOCK_DGRAM:
                asking.send(b"?")
            print(asking.recv(100).decode())
        except TimeoutError:
            print("no answer")
        except OSError as error:
            print("refused")
"""
"""Arguments: ``tcp`` or ``udp``, then addresses with ports; prints a line for each."""
