"""The host as calls ask for it: links, routes and rules in a table, found by the bytes of each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugin.kernel import encode
from cni_plugin.kernel.decode import KernelRoute, Link
from cni_plugin.kernel.rules import RoutingRule
from ipam.model import IPNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugin.kernel.templates import Request
    from cni_plugin.node import Node


class Kept:
    """Stands in for what an agent keeps of the host, none of which changes."""

    def __init__(self) -> None:
        self.answers: dict[object, Any] = {}

    def answer(self, key: object, ask: Callable[[], Any]) -> Any:
        if key not in self.answers:
            self.answers[key] = ask()
        return self.answers[key]


class KernelTable:
    """Stands in for a node and for its netlink socket."""

    def __init__(self, *links: Link) -> None:
        self.known_host: Kept | None = None
        self.asked = 0
        """Requests to the kernel."""
        self.all_links = list(links)
        self.answers: dict[bytes, KernelRoute | OSError] = {}
        self.defaults: list[KernelRoute] = []
        self.rules: list[RoutingRule] = []

    @property
    def node(self) -> Node:
        node: Any = self
        return node  # type: ignore[no-any-return]

    @property
    def host(self) -> KernelTable:
        return self

    def route(self, request: Request, answer: KernelRoute | OSError) -> None:
        """The answer to a request; to all others nothing leads."""
        self.answers[request.data] = answer

    # As a node and its netlink socket have them

    def routing_rules(self) -> list[RoutingRule]:
        return self.rules

    def links(self, request: Request) -> list[Link]:
        self.asked += 1
        assert request.data == encode.dump_links().data
        return self.all_links

    def one_link(self, request: Request) -> Link | None:
        self.asked += 1
        for link in self.all_links:
            names = {encode.get_link(name=link.name).data, encode.get_link(index=link.index).data}
            if request.data in names:
                return link
        return None

    def one_route(self, request: Request) -> KernelRoute | None:
        self.asked += 1
        answer = self.answers.get(request.data)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def default_routes(self, family: int) -> list[KernelRoute]:
        assert family == encode.AF_INET6
        return self.defaults


def route_over(
    *links: int, dst: IPNetwork, gateway: Any = None, kind: int = encode.RTN_UNICAST
) -> KernelRoute:
    """A route over links, by their indexes."""
    return KernelRoute(dst, gateway, links[0] if links else 0, 0, 0, kind, links)
