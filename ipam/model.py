"""The value types of ``ipam``: immutable, no I/O.

It imports nothing of the project: everything else imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from ipam.value import Value, field

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

DEFAULT_COOLDOWN_SECONDS = 30.0


class Attachment(Value, order=True):
    """One interface of one container: the key of everything (CNI spec, "Lifecycle & Ordering").

    The spec identifies an attachment by CNI_CONTAINERID and CNI_IFNAME; the network's name is a
    property of it, since one interface name exists once in a container.
    """

    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.ifname} of container {self.container_id}"


class Holder(Enum):
    """What kind of caller holds an address, which decides how to check that it is alive."""

    ENDPOINT = "endpoint"
    """Our own interface plugin: alive as long as its host veth exists."""

    DELEGATED = "delegated"
    """``azvnet-ipam`` called by another plugin: alive as long as its network namespace exists."""


class Owner(Value):
    """Who an address was given to, beyond the attachment: for people, ``status`` and clean-up."""

    network: str
    holder: Holder = Holder.ENDPOINT
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    netns: str = ""
    """CNI_NETNS as the runtime wrote it; empty when it gave none."""
    netns_id: str = ""
    """``"<st_dev>:<st_ino>"`` of the namespace, since its path can be reused."""
    call_id: str = ""
    """The call that made the reservation, so that the same call, repeated because the agent died
    before it could answer, is completed instead of refused."""

    @property
    def pod(self) -> str:
        """``namespace/name``; empty where the runtime named no pod."""
        return f"{self.pod_namespace}/{self.pod_name}" if self.pod_name else ""


class PoolAddress(Value):
    """One address of the NIC as a source lists it."""

    address: IPInterface
    """The address with the prefix length of its subnet."""
    gateway: IPAddress
    """The subnet's gateway; Azure reserves the first host address of every subnet for it."""
    nic_mac: str
    """MAC of the NIC that owns it, lower case with colons."""

    @property
    def ip(self) -> IPAddress:
        """The bare address."""
        return self.address.ip


class Nic(Value):
    """One NIC of the node as a source describes it."""

    mac: str
    """Lower case, colons."""
    primary: bool | None
    """Whether Azure calls it the primary NIC; None where the source does not say (IMDS)."""
    own_addresses: tuple[IPAddress, ...]
    """The addresses that belong to the host: the primary IP configuration."""
    addresses: tuple[PoolAddress, ...]
    """The secondary IP configurations, fit for pods."""
    subnets: tuple[IPNetwork, ...] = ()
    configurations: tuple[tuple[IPAddress, str], ...] = ()
    """Addresses with the names of their IP configurations, where the source has them (ARM)."""
    public: tuple[IPAddress, ...] | None = None
    """Those of ``addresses`` with a public address of their own; None where the source does not say."""


class Listing(Value):
    """What one successful read of a source returned."""

    source: str
    """``file``, ``imds``, ``wireserver`` or ``arm``."""
    nics: tuple[Nic, ...]
    warnings: tuple[str, ...] = ()
    """Entries that were skipped and why (an unparsable address, a duplicate, ...)."""
    inside: tuple[IPNetwork, ...] = ()
    """The address space of the virtual network and its peerings, where the source has it (ARM)."""
    digest: str = ""
    """Digest of the document; the same digest means the same listing. Empty: not known."""


class SourceConfig(Value):
    """Where addresses come from: ``ipam`` of the netconf, already validated."""

    environment: str = "auto"
    """``auto``, ``file``, ``imds``, ``wireserver``, ``arm`` (aliases are resolved by the netconf)."""
    file: str = "/etc/kubernetes/interfaces.json"
    query_interval: float = 10.0
    """Seconds: no source is read more often than this."""

    @property
    def key(self) -> str:
        """Identifies the source in the store: configurations with the same key read the same documents."""
        return f"{self.environment}:{self.file}" if self.environment in {"auto", "file"} else self.environment


class AddressRequest(Value):
    """What an attachment needs: one address of each family, from one NIC of one source."""

    source: str
    """``SourceConfig.key`` of the source that has to list them."""
    families: tuple[int, ...]
    """IP versions. All of them are reserved, or none."""
    nic_mac: str = ""
    """The NIC that has to own them; empty: not known, see ``pool.choose_nic``."""
    requested: tuple[IPAddress, ...] = ()
    """Requested addresses (CNI_ARGS ``IP``, ``runtimeConfig.ips``, ``args.cni.ips``), at most one of each
    family; a family without one gets any address."""
    cooldown: float = DEFAULT_COOLDOWN_SECONDS
    """Seconds a released address cools down before it is given out again."""
    excluded: frozenset[IPAddress] = field(default_factory=frozenset)
    """Never to be given out now: addresses that the host itself carries."""
    looked_at: frozenset[Attachment] | None = None
    """What the caller knows the same pod to hold under other container ids; None: don't check."""
    max_age: float | None = None
    """Seconds; an older listing has to be read again first. None: any age will do."""


class Reservation(Value):
    """An address that is held, with its holder. An attachment holds one of each family at most."""

    attachment: Attachment
    owner: Owner
    address: IPInterface
    gateway: IPAddress
    source: str
    created_at: float
    """Wall clock, seconds since the epoch: for display only."""
    confirmed: bool
    """False between the choice of the address and the end of the ADD."""
    generation: str
    """Id of the store it was written to; a different one means the store was lost in between."""
    nic_mac: str = ""
    """MAC of the NIC that owns the address; empty when it was adopted from the kernel."""
    several_nics: bool = False
    """Whether its source lists other NICs of the node; known only when it is made."""

    @property
    def ip(self) -> IPAddress:
        """The bare address."""
        return self.address.ip


def by_attachment(held: Iterable[Reservation]) -> list[tuple[Reservation, ...]]:
    """Reservations that belong together, in their order."""
    found: dict[Attachment, list[Reservation]] = {}
    for each in held:
        found.setdefault(each.attachment, []).append(each)
    return [tuple(some) for some in found.values()]


class AddressState(Enum):
    """The state of an address of the pool; exactly one of these."""

    FREE = "free"
    ASSIGNED = "assigned"
    COOLING = "cooling"
    QUARANTINED = "quarantined"


class AddressStatus(Value):
    """Everything that is known about one address of the pool: for ``status`` and ``explain``."""

    address: IPInterface
    gateway: IPAddress
    nic_mac: str
    """Empty when it was adopted from the kernel."""
    source: str
    """Which source listed it; empty when none ever did."""
    state: AddressState
    listed: bool
    """The last successful read listed it. If not, held or free, it is about to leave the pool."""
    reservation: Reservation | None = None
    cooling_left: float = 0.0
    """Seconds until its cooldown is over."""
    quarantine_left: float = 0.0
    """Seconds until its quarantine ends; also 0 when it is only no longer listed."""
    reason: str = ""
    """Why it is in quarantine."""


class PoolCounts(Value):
    """The pool by state. The four states are disjoint and add up to ``total``."""

    free: int
    assigned: int
    cooling: int
    quarantined: int

    @property
    def total(self) -> int:
        """Every address the node knows of."""
        return self.free + self.assigned + self.cooling + self.quarantined


class SourceState(Value):
    """When and how the source was last read: for errors, ``status`` and metrics."""

    source: str
    last_attempt_at: float | None = None
    """Wall clock seconds; None: never tried."""
    last_success_at: float | None = None
    """Wall clock seconds; None: never readable."""
    success_age: float | None = None
    """Seconds since the last successful read, by a clock that does not jump."""
    attempt_age: float | None = None
    """Seconds since the last attempt, by a clock that does not jump."""
    error: str = ""
    """Why the last attempt failed; empty when it succeeded."""
    listed: int = 0
    """How many addresses the last successful read listed."""
    remedy: str = ""
    """What to do about ``error``."""
    failures: int = 0
    """Attempts that failed since the last success."""
    retry_in: float = 0.0
    """Seconds until the source may be read again; 0: now."""
    config: SourceConfig = field(default_factory=SourceConfig)
    """Which source this is, its interval aside."""


class ListedNic(Value):
    """A NIC as the last successful read of one source described it."""

    mac: str
    primary: bool | None
    own_addresses: tuple[IPAddress, ...]
    subnets: tuple[IPNetwork, ...]
    example: IPAddress | None
    """One of its addresses for pods that nobody holds; None: it has none."""


class Overview(Value):
    """The pool, its counters and its sources in one consistent snapshot."""

    counts: PoolCounts
    known: int
    """Every address of the pool, counted separately: the four states have to add up to it."""
    counters: Mapping[str, int]
    """Events since the store was made, by the names of ``overview.COUNTERS`` and ``nic_counts``."""
    sources: tuple[SourceState, ...]
    """Every source that a network of the node uses."""
    adopted: bool
    """``adopt`` was called: the store knows what is alive."""
    same_boot: bool
    """False: the store is from before the last boot and has not been used since."""

    @property
    def source(self) -> SourceState:
        """The source in the worst state: one that fails, else the one with the oldest listing."""
        return max(
            self.sources,
            key=lambda each: (each.failures > 0, each.success_age is None, each.success_age or 0.0),
            default=SourceState(""),
        )
