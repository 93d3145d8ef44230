"""A node for tests of ``ipam``: a clock turned by hand, a boot id, a source that says what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import TYPE_CHECKING

from ipam.ipam import Ipam
from ipam.model import (
    AddressRequest,
    Attachment,
    IPAddress,
    Listing,
    Nic,
    Owner,
    PoolAddress,
    SourceConfig,
    SourceState,
)
from ipam.value import replace

if TYPE_CHECKING:
    from pathlib import Path

MAC = "00:0d:3a:e5:1c:c0"
GATEWAY = IPv4Address("10.0.0.1")
ANY = AddressRequest()


class Clock:
    """Seconds since the node was started."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def ips(*numbers: int) -> tuple[IPAddress, ...]:
    """10.0.0.N for each N."""
    return tuple(IPv4Address(f"10.0.{number // 256}.{number % 256}") for number in numbers)


def pool_address(ip: IPAddress | str, *, mac: str = MAC, prefix: int = 16) -> PoolAddress:
    return PoolAddress(ip_interface(f"{ip}/{prefix}"), GATEWAY, mac)


def listing_of(
    *addresses: IPAddress | str, mac: str = MAC, source: str = "imds", digest: str = ""
) -> Listing:
    nic = Nic(mac, None, (ip_address("10.0.0.4"),), tuple(pool_address(ip, mac=mac) for ip in addresses))
    return Listing(source, (nic,), digest=digest)


def attachment(name: str, ifname: str = "eth0") -> Attachment:
    return Attachment(name, ifname)


def owner(pod: str = "", **more: str) -> Owner:
    plain = Owner("azure", pod_namespace="default" if pod else "", pod_name=pod)
    return replace(plain, **more)


@dataclass
class Node:
    """One node; every ``process()`` is another process of it."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    wall: Clock = field(default_factory=lambda: Clock(1_800_000_000.0))
    says: Listing | Exception = field(default_factory=lambda: listing_of(*ips(5, 6, 7)))
    reads: int = 0

    def __post_init__(self) -> None:
        self.boot_id_file = self.directory / "boot_id"
        self.run_dir = self.directory / "run"
        self.start_anew("boot-1")

    def start_anew(self, boot_id: str) -> None:
        self.boot_id_file.write_text(f"{boot_id}\n")

    def read(self, config: SourceConfig, deadline: float, last: str) -> Listing:
        self.reads += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def process(self, busy_timeout: float = 5.0) -> Ipam:
        return Ipam(
            self.run_dir,
            boot_id_file=self.boot_id_file,
            clock=self.clock,
            wall_clock=self.wall,
            busy_timeout=busy_timeout,
            reader=self.read,
        )

    def ready(self, *numbers: int) -> Ipam:
        """A process of a node that is adopted and knows 10.0.0.N for each N."""
        ipam = self.process()
        ipam.adopt(())
        if numbers:
            self.says = listing_of(*ips(*numbers))
        refresh(ipam)
        return ipam


def refresh(ipam: Ipam, *, force: bool = True) -> SourceState:
    return ipam.refresh(SourceConfig(), deadline=5.0, force=force)
