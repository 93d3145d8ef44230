"""The platform's services of one fabric: which site is at which address, and whose request it is."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from integration.fabric import imds, wireserver
from integration.fabric import namespaces as ns
from integration.fabric.faults import FaultBoard, Now, distort
from integration.fabric.model import IMDS, WIRESERVER, Estate, Surface, Vm
from integration.fabric.web import Request, Response, Server, Site

if TYPE_CHECKING:
    import ssl
    from ipaddress import IPv4Address

    from integration.fabric.goalstate import GoalState

_BACKLOG = 256


class Services:
    """Servers at the platform addresses in the fabric's namespace."""

    def __init__(self, goal: GoalState, board: FaultBoard, metadata: imds.Imds) -> None:
        self._goal = goal
        self._board = board
        self._metadata = metadata
        self._running = contextlib.ExitStack()

    def start(self, netns: int) -> None:
        """Begin to listen. Raises OSError."""
        with contextlib.ExitStack() as undo:
            for site, address, port, tls in self._sites():
                listener = ns.in_network(netns, lambda a=address, p=port: listen(a, p))  # type: ignore[misc]
                server = Server(site, listener, tls)
                undo.callback(server.close)
                server.start()
            self._running = undo.pop_all()

    def close(self) -> None:
        """Stop listening and break every connection."""
        self._running.close()

    def _sites(self) -> list[tuple[Site, IPv4Address, int, ssl.SSLContext | None]]:
        return [
            (
                Site(
                    "wireserver",
                    wireserver.SERVER_HEADER,
                    lambda request: self._now(Surface.WIRESERVER, request),
                    self._wireserver,
                    lambda _, status: wireserver.error(status),
                ),
                WIRESERVER,
                80,
                None,
            ),
            (
                Site(
                    "imds",
                    imds.SERVER_HEADER,
                    lambda request: self._now(Surface.IMDS, request),
                    self._imds,
                    lambda _, status: imds.error(status),
                ),
                IMDS,
                80,
                None,
            ),
        ]

    def _now(self, surface: Surface, request: Request) -> Now:
        return self._board.for_request(surface, self._machine(request))

    def _machine(self, request: Request) -> str:
        vm = self._goal.newest.vm_at(request.client)
        return vm.computer_name if vm is not None else ""

    def _view(self, surface: Surface, request: Request, now: Now) -> tuple[Estate, Vm]:
        """The estate as the surface shows it, and in it the machine that asks."""
        estate = distort(self._goal.seen_by(surface), now.fault)
        return estate, estate.vm(self._machine(request))

    def _wireserver(self, request: Request, now: Now) -> Response:
        _, vm = self._view(Surface.WIRESERVER, request, now)
        return wireserver.answer(request, vm)

    def _imds(self, request: Request, now: Now) -> Response:
        estate, vm = self._view(Surface.IMDS, request, now)
        return self._metadata.answer(request, estate, vm)


def listen(address: IPv4Address, port: int) -> socket.socket:
    """A listening socket in the namespace of the calling thread. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
