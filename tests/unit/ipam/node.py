"""A node for tests of ``ipam``: a clock turned by hand, a boot id, a source that says what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from ipam.ipam import Ipam
from ipam.model import (
    DEFAULT_COOLDOWN_SECONDS,
    AddressRequest,
    Attachment,
    IPAddress,
    Listing,
    Nic,
    Owner,
    PoolAddress,
    PoolCounts,
    Reservation,
    SourceConfig,
    SourceState,
)
from ipam.reclaim import GRACE
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAC = "00:0d:3a:e5:1c:c0"
GATEWAY = IPv4Address("10.0.0.1")
CONFIG = SourceConfig()
FAMILIES = (4,)


def asking(
    source: str = CONFIG.key,
    families: tuple[int, ...] = FAMILIES,
    requested: IPAddress | None = None,
    **more: Any,
) -> AddressRequest:
    return AddressRequest(source, families, requested=(requested,) if requested else (), **more)


ANY = asking()


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
    asked: list[str] = field(default_factory=list)
    """The keys of the sources that were read."""

    def __post_init__(self) -> None:
        self.boot_id_file = self.directory / "boot_id"
        self.run_dir = self.directory / "run"
        self.lib_dir = self.directory / "lib"
        self.start_anew("boot-1")

    def start_anew(self, boot_id: str) -> None:
        self.boot_id_file.write_text(f"{boot_id}\n")

    @property
    def reads(self) -> int:
        return len(self.asked)

    def read(self, config: SourceConfig, deadline: float, last: str) -> Listing:
        self.asked.append(config.key)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def process(self, busy_timeout: float = 5.0) -> Ipam:
        ipam = Ipam(
            self.run_dir,
            boot_id_file=self.boot_id_file,
            clock=self.clock,
            wall_clock=self.wall,
            busy_timeout=busy_timeout,
            reader=self.read,
        )
        ipam.lasting = self.lib_dir
        return ipam

    def ready(self, *numbers: int) -> Ipam:
        """A process of a node that is adopted and knows 10.0.0.N for each N."""
        ipam = self.process()
        ipam.adopt(())
        if numbers:
            self.says = listing_of(*ips(*numbers))
        refresh(ipam)
        return ipam


def refresh(ipam: Ipam, *, force: bool = True) -> SourceState:
    return ipam.refresh(CONFIG, deadline=5.0, force=force)


def reserve(ipam: Ipam, who: Attachment, owner_: Owner, request: AddressRequest) -> Reservation:
    """The one address of an attachment that asks for one."""
    (made,) = ipam.reserve(who, owner_, request)
    return made


def confirm(ipam: Ipam, made: Reservation) -> Reservation:
    (confirmed,) = ipam.confirm(made)
    return confirmed


def release(ipam: Ipam, who: Attachment, expected: Reservation | None = None) -> Reservation | None:
    released = ipam.release(who, expected=expected)
    assert len(released) <= 1
    return next(iter(released), None)


def held(ipam: Ipam, who: Attachment) -> Reservation | None:
    return next(iter(ipam.held_by(who)), None)


def counts(ipam: Ipam, cooldown: float = DEFAULT_COOLDOWN_SECONDS) -> PoolCounts:
    return ipam.overview(cooldown).counts


def counters(ipam: Ipam) -> Mapping[str, int]:
    return ipam.overview().counters


def find(ipam: Ipam, ip: IPAddress) -> Reservation | None:
    return next((each for each in ipam.reservations() if each.ip == ip), None)


def sweep(
    ipam: Ipam, missing: Iterable[Attachment], present: Iterable[Attachment] = (), grace: float = GRACE
) -> tuple[Reservation, ...]:
    """Free what is dead as the agent and an ADD do (``allocate.free_missing``); what was freed."""
    ipam.note_present(present)
    return tuple(dead for dead in ipam.note_missing(missing, grace=grace) if ipam.release_dead(dead))
