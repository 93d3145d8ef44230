"""A node with an agent whose NIC is in a small Azure, and the pods on it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from ipam.errors import IpamError
from ipam.mac import normalize_mac
from ipam.model import Attachment, IPAddress, Listing, Nic
from ipam.provision import nic_document
from ipam.provision.conversation import Conversation
from ipam.provision.nic_writer import NicTarget, NicWriter
from ipam.provision.pace import Bucket
from ipam.provision.plan import Sizes
from ipam.provision.progress import Demand
from ipam.provision.provisioner import Provisioner
from ipam.provision.tally import Tally
from ipam.sources.arm_answer import ArmAnswer
from tests.unit.ipam.arm_service import INSTANCE, NIC, ArmService
from tests.unit.ipam.node import ANY, CONFIG, Node, attachment, confirm, owner, pool_address, release, reserve

MAC = normalize_mac(nic_document.mac_of(NIC))
SHRINK_AFTER = 600.0
COOLDOWN = 30.0


class KilledError(Exception):
    """The end of the agent, at any point."""


class Machine:
    """A node with an agent whose NIC is in a small Azure; time passes by waiting alone."""

    def __init__(self, node: Node, arm: ArmService, sizes: Sizes, *, dry_run: bool = False) -> None:
        self.node, self.arm, self.sizes, self.dry_run = node, arm, sizes, dry_run
        self.lag = 0.0
        """Seconds until the source lists what the NIC has."""
        self.shown: list[tuple[float, frozenset[IPAddress]]] = []
        self.pods: dict[Attachment, IPAddress] = {}
        self.waiting_pods: set[str] = set()
        self.scheduled: Callable[[int], Demand | None] = lambda held: None
        """What is known of pods that are bound to the node, of which so many hold an address."""
        self.kill_at: int | None = None
        """The request at which the agent is killed."""
        self.while_waiting: list[object] = []
        self.log: list[str] = []
        self.asked = 0
        self.looked_up = 0
        """Times that it was looked up where the NIC is."""
        self.read_source()
        self.start()

    def start(self) -> None:
        """Start the agent, for the first time or again."""
        self.ipam = self.node.process()
        self.ipam.adopt(())
        self.tally = Tally(self.ipam.count, self.clock)
        self.provisioner = Provisioner(self.ipam, self, self.tally, self.sizes, dry_run=self.dry_run)

    # What the provisioner needs

    def clock(self) -> float:
        return self.node.clock()

    def cooldown(self) -> float:
        return COOLDOWN

    def carried(self) -> frozenset[IPAddress]:
        return frozenset()

    def waiting(self) -> frozenset[str]:
        return frozenset(self.waiting_pods)

    def demand(self, held: int) -> Demand | None:
        return self.scheduled(held)

    def tell(self, level: str, text: str) -> None:
        self.log.append(f"{level}: {text}")

    def refresh(self) -> None:
        self.read_source()
        try:
            self.ipam.refresh(CONFIG, deadline=5, force=True)
        except IpamError:
            return

    def writer(self, subnet: str) -> NicWriter:
        assert subnet == ""
        self.looked_up += 1
        bucket = Bucket(1000, 1.0, self.clock)
        arm = Conversation(self.ask, self.wait, self.tally, bucket, bucket)
        return NicWriter(
            arm, NicTarget(NIC["id"], self.arm.nic["name"], INSTANCE["id"] if self.arm.uniform else "")
        )

    # What surrounds it

    def ask(self, method: str, where: str, body: nic_document.Document | None, etag: str) -> ArmAnswer:
        self.asked += 1
        if self.kill_at is not None and self.asked > self.kill_at:
            raise KilledError
        before = self.on_nic()
        if method == "PUT" and body is not None and not self.arm.uniform:
            kept = {ip for each in nic_document.configurations(body) for ip in each.addresses}
            assert not (set(self.pods.values()) & before) - kept, "a live pod loses its address"
        answer = self.arm.ask(method, where, body, etag)
        assert (set(self.pods.values()) & before) <= self.on_nic() | frozenset(), (
            "a live pod lost its address"
        )
        return answer

    def wait(self, seconds: float) -> None:
        self.node.clock.advance(seconds)
        if seconds:
            for action in self.while_waiting:
                action()  # type: ignore[operator]

    def on_nic(self) -> frozenset[IPAddress]:
        found = nic_document.configurations(self.arm.nic)
        return frozenset(ip for each in found if not each.primary for ip in each.addresses)

    def wipe(self, *wiped: IPAddress) -> None:
        """Something else takes these from the NIC, all of ours without any, as a scale set's model does."""
        taken = wiped or tuple(self.on_nic())
        names = {
            each.name
            for each in nic_document.configurations(self.arm.nic)
            if not each.primary and not set(taken).isdisjoint(each.addresses)
        }
        lists = [self.arm.nic["properties"]]
        if self.arm.uniform:
            profile = self.arm.vm["properties"]["networkProfileConfiguration"]
            lists.append(profile["networkInterfaceConfigurations"][0]["properties"])
        for each in lists:
            each["ipConfigurations"] = [one for one in each["ipConfigurations"] if one["name"] not in names]
        self.arm.revision += 1

    @property
    def vanished(self) -> dict[str, IPAddress]:
        """What the agent says that live pods lack."""
        return {each.owner.pod: each.ip for each in self.provisioner.progress.vanished}

    def read_source(self) -> None:
        """What the source lists now: what the NIC had ``lag`` seconds ago."""
        now = self.clock()
        if not self.shown or self.shown[-1][1] != self.on_nic():
            self.shown.append((now, self.on_nic()))
        listed = next((ips for at, ips in reversed(self.shown) if at <= now - self.lag), self.shown[0][1])
        addresses = tuple(pool_address(ip, mac=MAC) for ip in sorted(listed, key=int))
        self.node.says = Listing("imds", (Nic(MAC, None, (IPv4Address("10.0.0.4"),), addresses),))

    def run(self, seconds: float) -> None:
        """Let the agent work for so long, a look every five seconds and a read every thirty."""
        end = self.clock() + seconds
        turns = 0
        while self.clock() < end:
            self.provisioner.step()
            self.node.clock.advance(5)
            turns += 1
            if turns % 6 == 0:
                self.refresh()

    def add_pod(self, number: int) -> bool:
        """Whether it found an address; otherwise it waits."""
        pod = attachment(f"pod-{number}")
        try:
            held = confirm(self.ipam, reserve(self.ipam, pod, owner(f"pod-{number}"), ANY))
        except IpamError:
            self.waiting_pods.add(f"default/pod-{number}")
            return False
        assert held.ip in self.on_nic(), "a pod is given what the NIC does not have"
        self.waiting_pods.discard(f"default/pod-{number}")
        self.pods[pod] = held.ip
        return True

    def delete_pod(self, pod: Attachment) -> None:
        release(self.ipam, pod)
        del self.pods[pod]

    @property
    def phase(self) -> str:
        return self.provisioner.progress.phase
