"""A TCP relay from this machine's loopback into a machine of the fabric.

So kubectl, helm, a browser or a test reach the API server without entering a namespace. Must not know
what is relayed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.fabric import Machine

_PIECE = 65536


class Relay:
    """Listens on 127.0.0.1 until `close`; every connection is carried on to one place in a machine.

    Args:
        machine: whose network the other end is in.
        address: address and port there; port 0: the one that is listened at here.
        port: to listen at; 0: any free one.
    """

    def __init__(self, machine: Machine, address: tuple[str, int], port: int = 0) -> None:
        self._machine = machine
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._address = (address[0], address[1] or self.port)
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection."""
        for each in (self._listener, *list(self._open)):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), name="relay", daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near:
            try:
                far = self._machine.in_network(lambda: socket.create_connection(self._address, timeout=10))
            except (OSError, RuntimeError):
                return  # the client sees a connection that ends at once
            with far:
                far.settimeout(None)
                for each in (near, far):  # an answer in two pieces waits 40 ms for the first one's ACK else
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {near, far}
                back = threading.Thread(target=_pump, args=(far, near), name="relay", daemon=True)
                back.start()
                _pump(near, far)
                back.join()
                self._open -= {near, far}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes one way until one side ends, and pass the end on."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        source.shutdown(socket.SHUT_RD)
