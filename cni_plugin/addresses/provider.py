"""Who gives an attachment its addresses: the pool (``allocate``), or the IPAM plugin that its network names.

Owns what an ADD does with addresses: hold them, keep them, give them back. It must not make or remove links.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cni_plugin.addresses import way_out
from cni_plugin.cni import delegate
from cni_plugin.cni.errors import CniError, DelegateFailed, KernelRefused
from cni_plugin.cni.result import Dns

if TYPE_CHECKING:
    from cni_plugin.cni.call import VerbCall
    from cni_plugin.node import Node
    from ipam.model import IPAddress, IPInterface


class AddressProvider(Protocol):
    """Addresses for one ADD. ``acquire`` may be called again after ``release``."""

    needs_interface: bool
    """The addresses can be asked for only when the pod's interface is up (DHCP asks over it)."""
    dns: Dns
    """The DNS settings that came with the addresses."""

    def acquire(self) -> tuple[IPInterface, ...]:
        """Hold addresses for the attachment.

        Raises:
            IpamError: the pool has none; ``AlreadyReserved`` if the attachment holds some.
            DelegateError, DelegateFailed: the IPAM plugin gave none.
        """
        ...

    def mtu(self) -> int:
        """The MTU of the link that packets from these addresses leave by.

        Raises:
            UplinkUnclear: that link was not found.
        """
        ...

    def confirm(self) -> None:
        """Keep the addresses: the pod has them now.

        Raises:
            ReservationLost: they were released meanwhile.
        """
        ...

    def release(self) -> None:
        """Give back what was acquired, if anything. Never raises an error of the contract or the pool."""
        ...

    def set_aside(self, ip: IPAddress, reason: str) -> None:
        """Do not give out an address that something on this host has already.

        Raises:
            KernelRefused: another plugin gave it, so this can't be done here.
        """
        ...


class Delegate:
    """The IPAM plugin that ``ipam.type`` names.

    It is called when the interface exists. So an ADD for an interface that exists is refused before: the DEL
    that undoes this ADD would free the addresses of the existing one.
    """

    needs_interface = True

    def __init__(self, verb_call: VerbCall, node: Node) -> None:
        self._verb_call = verb_call
        self._node = node
        self._asked = False
        self.dns = Dns()

    def acquire(self) -> tuple[IPInterface, ...]:
        """As ``AddressProvider.acquire``."""
        self._asked = True
        answered = delegate.request_addresses(self._verb_call)
        addresses = tuple(ip.address for ip in answered.ips)
        if not addresses or any(address.version != 4 for address in addresses):
            gave = ", ".join(map(str, addresses)) or "nothing"
            raise DelegateFailed(
                f"IPAM plugin {self._verb_call.netconf.ipam_type} gave {gave}",
                "Mode transparent needs IPv4 addresses: configure such ranges for it.",
            )
        self.dns = answered.dns
        return addresses

    def mtu(self) -> int:
        """As ``AddressProvider.mtu``: that of the default route's link, as the address is not known yet."""
        conf = self._verb_call.netconf
        link = way_out.way_out(self._node).link if not conf.master else None
        return conf.mtu or (link or way_out.any_uplink("", conf, self._node)).mtu

    def confirm(self) -> None:
        """As ``AddressProvider.confirm``; a plugin needs no confirmation."""

    def release(self) -> None:
        """As ``AddressProvider.release``: its DEL. The error that led here is the one to report."""
        if self._asked:
            self._asked = False
            with suppress(CniError):
                delegate.forward(self._verb_call, "DEL")

    def set_aside(self, ip: IPAddress, reason: str) -> None:
        """As ``AddressProvider.set_aside``."""
        del ip
        raise KernelRefused(reason, "Something on this host uses it already.")
