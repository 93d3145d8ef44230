"""What an attachment is in the kernel: its names, creating it, and how it drifts from what it should be.

A datapath is one way to connect a pod with its node, chosen by ``mode`` of the netconf. Owns the interface
that all of them share; the verbs and the agent know nothing else of a datapath. It must not do I/O itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ipam.value import Value

if TYPE_CHECKING:
    from cni_plugin.datapath.drift import Difference, Expected, Found, FoundHost
    from cni_plugin.datapath.names import Names
    from cni_plugin.kernel.decode import KernelRoute, Link
    from cni_plugin.kernel.netlink import Netlink
    from ipam.model import IPAddress, IPInterface


class Endpoint(Value):
    """One attachment's veth pair as it should be, or as it was made."""

    names: Names
    network: str
    addresses: tuple[IPInterface, ...]
    mtu: int
    pod_mac: str
    in_host: bool = False
    """Its namespace is the host's own (CNI_NETNS_OVERRIDE), whose default route must stay the one in use."""
    host_ifname: str = ""
    """Name of the host end, once it is made."""
    call_id: str = ""
    """The call that creates it: when an agent dies before it can answer, the call is repeated."""


class AddressCarried(Exception):
    """The host has a route to the address, so something that the pool does not know about uses it."""

    def __init__(self, ip: IPAddress, route: KernelRoute | None) -> None:
        over = f"over link {route.index}" if route else "of unknown origin"
        super().__init__(f"{ip} has a host route {over} already")
        self.ip = ip


class Datapath(Protocol):
    """One way to connect pods. ``host`` is always a socket of the host's namespace."""

    def attach(
        self,
        endpoint: Endpoint,
        host: Netlink,
        netns_fd: int,
        *,
        ask: Callable[[], tuple[IPInterface, ...]] | None = None,
    ) -> Endpoint:
        """Create the endpoint and return it as created. When this raises, nothing of it is left.

        Args:
            endpoint: what to create.
            host: the socket.
            netns_fd: the pod's namespace.
            ask: returns the addresses once the interface is up, for a plugin that needs it (DHCP).

        Raises:
            AttachmentExists: it is already attached, or an interface of that name is in the pod.
            AddressCarried: the host has a route to one of the addresses.
            KernelRefused: any other step failed.
        """
        ...

    def detach(self, names: Names, host: Netlink) -> bool:
        """Remove what ``attach`` created, even if it did not finish. True when there was something.

        Raises:
            KernelRefused: it is there and can't be removed.
        """
        ...

    def host_link(self, names: Names, host: Netlink) -> Link | None:
        """The host end of an attachment, if there is one."""
        ...

    def inspect_host(self, names: Names, addresses: Sequence[IPInterface], host: Netlink) -> FoundHost:
        """What the kernel has of an attachment on the host's side."""
        ...

    def inspect(
        self, names: Names, ifname: str, addresses: Sequence[IPInterface], host: Netlink, netns_fd: int
    ) -> Found:
        """What the kernel has of an attachment on both sides."""
        ...

    def repair(self, expected: Expected, host: Netlink) -> list[Difference]:
        """Put back what is missing on the host's side, and return that. Nothing inside the pod is touched: a
        change there may be intended.

        Raises:
            OSError: something can't be put back.
        """
        ...


def for_mode(mode: str = "transparent") -> Datapath:
    """The datapath of a ``mode`` of the netconf. There is one so far: the netconf refuses an ADD with another
    mode, and whatever a DEL with another mode has to remove was made by this one.
    """
    from cni_plugin.datapath import transparent

    del mode
    return transparent
