"""IPv6 in the namespace that plays Azure's host network: delivery by address, the router, the filter.

Owns that beside what `hostnetwork` has of IPv4, in the same namespace. A node asks for nobody but the router,
since it has no route to a neighbour; that announces itself (`routers`) and answers with the fabric's MAC.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from integration.fabric import namespaces as ns
from integration.fabric import ruleset_v6
from integration.fabric.publicips import translated
from integration.fabric.routers import LIFETIME, Router, Routers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv6Network

    from integration.fabric.model import Estate

_NEXT_HOP = "fe80::ffff"
"""Name of a NIC on its port, for the routing table only."""
_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_dad": 0,
}


class HostNetworkV6:
    """Delivery of IPv6. Its owner sees to it that one thread at a time calls."""

    def __init__(self, netns: int) -> None:
        self._netns = netns
        self._routers: Routers | None = None
        self._routes: dict[str, set[IPv6Network]] = {}
        self._owned: dict[str, frozenset[IPv6Network]] = {}

    @property
    def tables(self) -> list[str]:
        """Those of the filter that have counters."""
        return [ruleset_v6.TABLE] if self._routers else []

    def close(self) -> None:
        """End what announces routers."""
        if self._routers is not None:
            self._routers.close()

    def forget(self, port: str) -> None:
        """The cable of a port is taken away, and its routes with it."""
        self._routes.pop(port, None)
        if self._routers is not None:
            self._routers.forget(port)

    def announce(self, ports: Iterable[str]) -> None:
        """Send a router advertisement on ports."""
        if self._routers is not None:
            self._routers.announce(ports)

    def move_router(self, port: str, address: IPv6Address, lifetime: int = LIFETIME) -> None:
        """Have another router on a port, which announces itself; the former one says that it is none any
        more, and does not answer. Raises ToolError.
        """
        assert self._routers is not None
        before = self._routers.router_of(port)
        lines = [f"address add {address}/64 dev {port} nodad"] if address != before.address else []
        ns.ip_batch(self._netns, lines)
        self._routers.put(port, Router(address, lifetime))
        if address != before.address:
            self._routers.withdraw(port, before.address)
            ns.ip_batch(self._netns, [f"address delete {before.address}/64 dev {port}"])
        self._routers.announce([port])

    def plugged_in(self, port: str, mac: str) -> None:
        """The cable of a port is laid. Raises ToolError."""
        if self._routers is None:
            ns.write_sysctls(self._netns, _SYSCTLS)
            ns.nft(self._netns, ruleset_v6.base())
            ns.ip_batch(self._netns, ["route add ::/0 dev lo"])
            self._routers = Routers(self._netns)
        if port not in self._owned:
            ns.nft(self._netns, ruleset_v6.port(port))
            self._owned[port] = frozenset()
        router = Router()
        # The port was made while IPv6 was switched off.
        ns.write_sysctls(self._netns, {f"net/ipv6/conf/{port}/disable_ipv6": 0})
        ns.ip_batch(
            self._netns,
            [
                f"address add {router.address}/64 dev {port} nodad",
                f"neighbour replace {_NEXT_HOP} lladdr {mac} dev {port} nud permanent",
            ],
        )
        self._routers.put(port, router)
        self._routes[port] = set()

    def apply(self, estate: Estate, ports: dict[str, str]) -> None:
        """Deliver and accept exactly what the estate says. ``ports``: their names, by MAC."""
        if self._routers is None:
            return
        lines: list[str] = []
        script = _who_reaches_whom(estate)
        for nic in (nic for vm in estate.vms for nic in vm.nics if ports.get(nic.mac) in self._routes):
            port, wanted = ports[nic.mac], {entry.block for entry in nic.delivered_v6}
            routed = self._routes[port]
            lines += [f"route delete {each}" for each in sorted(routed - wanted)]
            lines += [f"route add {each} via {_NEXT_HOP} dev {port}" for each in sorted(wanted - routed)]
            self._routes[port] = wanted
            if self._owned[port] != wanted:
                script += ruleset_v6.owned(port, wanted)
                self._owned[port] = frozenset(wanted)
        ns.ip_batch(self._netns, lines)
        ns.nft(self._netns, script)


def _who_reaches_whom(estate: Estate) -> str:
    outside = {"internet", *(name for vnet in estate.vnets for name in vnet.behind_gateway)}
    private = [vnet for vnet in estate.vnets if vnet.name != "internet"]
    reachable = [
        (a.prefix_v6, b.prefix_v6)
        for a in private
        for b in private
        if (a is b or b.name in a.peers | a.behind_gateway or a.name in b.behind_gateway)
        and a.prefix_v6
        and b.prefix_v6
    ]
    egress = [nic.ipv6[0] for vm in estate.vms for nic in vm.nics if nic.ipv6 and nic.vnet not in outside]
    pairs = ((private, own.address) for private, own in translated(estate, estate.vms).items())
    public = [(a, b) for a, b in pairs if isinstance(a, IPv6Address) and isinstance(b, IPv6Address)]
    return ruleset_v6.networks(reachable, egress, public)
