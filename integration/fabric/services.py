"""The platform's services of one fabric: which site is at which address, and whose request it is."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from integration.fabric import arm, armanswers, clouds, identity, imds, wireserver
from integration.fabric import namespaces as ns
from integration.fabric.dns import DnsServer
from integration.fabric.faults import FaultBoard, Now, distort
from integration.fabric.model import IMDS, WIRESERVER, Estate, Surface, Vm
from integration.fabric.web import Request, Response, Server, Site

if TYPE_CHECKING:
    import ssl
    from ipaddress import IPv4Address

    from integration.fabric.goalstate import GoalState

_BACKLOG = 256
DNS_PORT = 53

PLACES = {
    Surface.WIRESERVER: (WIRESERVER, 80),
    Surface.IMDS: (IMDS, 80),
    Surface.ARM: (clouds.ARM_ADDRESS, 443),
}
"""Surfaces that have an address and a port to themselves; the identity endpoint lives at two others'."""


class Services:
    """Servers at the platform addresses in the fabric's namespace."""

    def __init__(
        self,
        goal: GoalState,
        board: FaultBoard,
        metadata: imds.Imds,
        tokens: identity.Identity,
        manager: arm.Arm,
        tls: ssl.SSLContext,
        *,
        wireserver_ipv6: bool = False,
    ) -> None:
        self._goal = goal
        self._board = board
        self._metadata = metadata
        self._tokens = tokens
        self._arm = manager
        self._tls = tls
        self._wireserver_ipv6 = wireserver_ipv6
        self._running = contextlib.ExitStack()

    def start(self, netns: int) -> None:
        """Begin to listen. Raises OSError."""
        sites = [
            (self._wireserver_site(), WIRESERVER, 80, None),
            (self._wireserver_site(), WIRESERVER, wireserver.HOST_PLUGIN_PORT, None),
            (self._imds_site(), IMDS, 80, None),
            (self._arm_site(), clouds.ARM_ADDRESS, 443, self._tls),
            (self._login_site(), clouds.LOGIN_ADDRESS, 443, self._tls),
        ]
        with contextlib.ExitStack() as undo:
            listeners = ns.in_network(netns, lambda: [listen(address, port) for _, address, port, _ in sites])
            for (site, _, _, tls), listener in zip(sites, listeners, strict=True):
                server = Server(site, listener, tls)
                undo.callback(server.close)
                server.start()
            sock, listener = ns.in_network(netns, lambda: (bind_dns(), listen(WIRESERVER, DNS_PORT)))
            dns = DnsServer(sock, listener, self._names, self._dns_fault)
            undo.callback(dns.close)
            dns.start()
            self._running = undo.pop_all()

    def close(self) -> None:
        """Stop listening and break every connection."""
        self._running.close()

    def _wireserver_site(self) -> Site:
        return Site(
            name="wireserver",
            server_header=wireserver.SERVER_HEADER,
            fault=lambda request: self._now(Surface.WIRESERVER, request.client),
            answer=self._answer_wireserver,
            error=lambda _, status: wireserver.error(status),
        )

    def _imds_site(self) -> Site:
        return Site(
            name="imds",
            server_header=imds.SERVER_HEADER,
            fault=lambda request: self._now(_imds_surface(request), request.client),
            answer=self._answer_imds,
            error=_imds_error,
        )

    def _arm_site(self) -> Site:
        return Site(
            name="arm",
            server_header=arm.SERVER_HEADER,
            fault=lambda request: self._now(Surface.ARM, request.client),
            answer=self._answer_arm,
            error=lambda _, status: armanswers.error(status),
        )

    def _login_site(self) -> Site:
        return Site(
            name="login",
            server_header=arm.SERVER_HEADER,
            fault=lambda request: self._now(Surface.IDENTITY, request.client),
            answer=lambda request, _: self._tokens.login(request, self._goal.newest),
            error=lambda _, status: identity.error(status),
        )

    def _answer_wireserver(self, request: Request, now: Now) -> Response:
        _, vm = self._view(Surface.WIRESERVER, request, now)
        return wireserver.answer(request, vm, ipv6=self._wireserver_ipv6)

    def _answer_imds(self, request: Request, now: Now) -> Response:
        surface = _imds_surface(request)
        estate, vm = self._view(surface, request, now)
        if surface is Surface.IDENTITY:
            return self._tokens.managed(request, estate, vm)
        return self._metadata.answer(request, estate, vm)

    def _answer_arm(self, request: Request, now: Now) -> Response:
        return self._arm.answer(request, distort(self._goal.seen_by(Surface.ARM), now.fault))

    def _now(self, surface: Surface, client: IPv4Address) -> Now:
        return self._board.for_request(surface, self._machine(client))

    def _dns_fault(self, client: IPv4Address) -> Now:
        return self._now(Surface.DNS, client)

    def _machine(self, client: IPv4Address) -> str:
        vm = self._goal.newest.vm_with(client)
        return vm.computer_name if vm is not None else ""

    def _view(self, surface: Surface, request: Request, now: Now) -> tuple[Estate, Vm]:
        """The estate as the surface shows it, and in it the machine that asks."""
        estate = distort(self._goal.seen_by(surface), now.fault)
        return estate, estate.vm(self._machine(request.client))

    def _names(self) -> dict[str, IPv4Address]:
        estate = self._goal.newest
        own = clouds.cloud(estate.environment)
        names = {own.arm_host: clouds.ARM_ADDRESS, own.login_host: clouds.LOGIN_ADDRESS}
        return names | {vm.computer_name: vm.primary_nic.primary_ip for vm in estate.vms}


def _imds_surface(request: Request) -> Surface:
    is_identity = request.path.casefold().startswith("/metadata/identity")
    return Surface.IDENTITY if is_identity else Surface.IMDS


def _imds_error(request: Request, status: int) -> Response:
    is_identity = _imds_surface(request) is Surface.IDENTITY
    return identity.error(status) if is_identity else imds.error(status)


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


def bind_dns() -> socket.socket:
    """A datagram socket at the address of Azure's DNS. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((str(WIRESERVER), DNS_PORT))
    except BaseException:
        sock.close()
        raise
    return sock
