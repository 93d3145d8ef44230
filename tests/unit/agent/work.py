"""A node for tests of the agent: a pool in a folder, and background work that only answers."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cni_plugin.agent import metrics
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.metrics import Exposition, NodeCollector
from cni_plugin.agent.network_ready import InstalledConflist, NetworkReady
from cni_plugin.agent.pages import Pages
from cni_plugin.agent.readiness import Readiness
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem
from cni_plugin.node import Node
from ipam.model import AddressRequest, Attachment, Owner, SourceConfig
from tests.waiting import eventually

MAC = "00:0d:3a:00:00:01"


def new_settings(**values: Any) -> Settings:
    """Settings as a file with these values would have them."""
    return Settings.of(json.loads(json.dumps(values, default=str)))


@dataclass
class Work:
    """What the pages and metrics need of the agent's own work, as plain values."""

    repairs: Counter[str] = field(default_factory=Counter)
    cooldown: float = 30.0
    stuck: str = ""
    why_no_listing: str = ""
    warnings: tuple[str, ...] = ()
    netconfs: list[dict[str, Any]] = field(default_factory=list)
    source: SourceConfig = field(default_factory=SourceConfig)

    def why_not_alive(self) -> str:
        return self.stuck

    def address_request(self) -> AddressRequest:
        return AddressRequest(self.source.key, (4,))

    def problems(self) -> list[Problem]:
        return [Problem("test", text, text) for text in self.warnings]


class Front:
    """What others see of the agent: pages, metrics, readiness and conflist, without its server."""

    def __init__(self, place: Place, work: Work, settings: Settings) -> None:
        self.serves = True
        self.stuck = ""
        self._settings = settings
        self._looks = 0
        self.journal = Journal(settings)
        self.registry = metrics.new_registry()
        conflist = InstalledConflist(
            settings, work.netconfs.append, lambda _, __: None, self._asked, self.journal
        )
        signs_of_life = (work.why_not_alive, lambda: self.stuck)
        self.readiness = Readiness(place.node, work, lambda: conflist.why_not, signs_of_life)
        self.network_ready = NetworkReady(
            place.node, settings, self.readiness, conflist, work.problems, self.journal
        )
        NodeCollector(
            self.registry,
            place.node,
            work,
            lambda: self.readiness.last,
            self.network_ready.warnings,
        )
        self.pages = Pages(
            place.node,
            settings,
            Exposition(self.registry).encode,
            self.readiness,
            self.network_ready.warnings,
            self.journal,
        )

    def start(self) -> None:
        self.pages.listen()
        self.network_ready.start()

    def stop(self) -> None:
        self.network_ready.stop()
        self.pages.stop()

    def use(self, settings: Settings) -> None:
        self._settings = settings
        self.journal.use(settings)
        self.network_ready.use(settings)
        self.pages.use(settings)

    def look(self) -> None:
        """Have it look whether the node is ready, and wait until that is over: the next look has begun."""
        before = self._looks

        def twice() -> bool:
            self.network_ready.use(self._settings)  # it looks at once
            return self._looks >= before + 2

        eventually(twice, "two looks")

    def _asked(self) -> bool:
        """Whether it serves: every look begins with this."""
        self._looks += 1
        return self.serves


class Place:
    """A state directory and a source of addresses."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.interfaces = folder / "interfaces.json"
        self.source = SourceConfig(environment="file", file=str(self.interfaces))
        boot_id = folder / "boot_id"
        boot_id.write_text("boot-1\n")
        self.node = Node({"AZVNET_RUN_DIR": str(self.run_dir), "AZVNET_BOOT_ID_FILE": str(boot_id)})
        self.node.ensure_run_dir()
        self.node.ipam.adopt(())

    def list_addresses(self, count: int) -> None:
        """Have the source list this many addresses, and read it."""
        own = [{"Address": "10.10.0.4", "IsPrimary": True}]
        listed = [
            {"Address": str(IPv4Address("10.10.0.5") + number), "IsPrimary": False} for number in range(count)
        ]
        interface = {
            "MacAddress": MAC.replace(":", "").upper(),
            "IsPrimary": True,
            "IPSubnets": [{"Prefix": "10.10.0.0/16", "IPAddresses": own + listed}],
        }
        self.interfaces.write_text(json.dumps({"Interfaces": [interface]}))
        self.read_source()

    def read_source(self) -> None:
        self.node.ipam.refresh(self.source, deadline=5.0, force=True)

    def hold(self, name: str) -> Attachment:
        """Have a pod hold an address."""
        attachment = Attachment(name, "eth0")
        owner = Owner("azvnet", pod_namespace="default", pod_name=name)
        request = AddressRequest(self.source.key, (4,))
        self.node.ipam.confirm(*self.node.ipam.reserve(attachment, owner, request))
        return attachment


@dataclass(frozen=True)
class Answer:
    """What a page said."""

    status: int
    headers: dict[str, str]
    body: str


def get(where: Path | tuple[str, int], page: str = "/", *, method: str = "GET", accept: str = "") -> Answer:
    """Ask for a page; whole, as one that speaks HTTP/1.1 does."""
    family = socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(10.0)
        sock.connect(str(where) if isinstance(where, Path) else where)
        asked = f"{method} {page} HTTP/1.1\r\nHost: node\r\n" + (f"Accept: {accept}\r\n" if accept else "")
        sock.sendall(asked.encode() + b"\r\n")
        return read_answer(sock)


def read_answer(sock: socket.socket) -> Answer:
    """Everything until the other side closes."""
    reply = b""
    while received := sock.recv(1 << 16):
        reply += received
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, body.decode())
