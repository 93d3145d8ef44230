"""The measured matrix: for every sender and target what the far end saw, and what ``azvnet explain`` says.

Owns the order of the packets and the comparison. It must not know how the result is shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.fabric.model import IMDS
from integration.fabric.ruleset import OUTBOUND
from integration.fabric.ruleset_v6 import OUTBOUND_V6
from integration.traffic.ends import LOST, REFUSED, Kind, Packet, ask
from integration.traffic.family import IPV6
from integration.traffic.scene import MODES, Scene, Sender, Target

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
FIRST_IDENTITY = 20_000
"""Source ports below those that the kernel gives by itself."""
EXPLAIN = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
from cni_plugin import cli
for argv in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        cli.run(["explain", "--output", "json", *argv])
    print(json.dumps(out.getvalue()))
"""
"""One interpreter for all questions to a node: starting one takes longer than the answer."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One packet, and what became of it."""

    sender: Sender
    target: Target
    proxy: str
    """The mode of kube-proxy; empty: no service is concerned."""
    kind: Kind
    answer: str
    """The source that the far end saw, ``REFUSED`` or ``LOST``."""
    wire: str
    """The source with which it left the sender's node; empty: it did not."""

    @property
    def seen(self) -> str:
        """The source that whoever is behind the node saw, or the far end on it; ``REFUSED``."""
        return self.wire or self.answer

    @property
    def public(self) -> bool:
        """Whether the far end saw the sender's public address."""
        return bool(self.answer) and self.answer == self.sender.public

    @property
    def question(self) -> list[str]:
        """For ``azvnet explain``."""
        family, target = self.sender.family, self.target
        to = target.address if self.kind is Kind.ICMP else family.with_port(target.address, target.port)
        udp = ["--udp"] if self.kind is Kind.UDP else []
        probe = ["--probe"] if self.target.translated else []
        return ["--from", self.sender.address, "--to", to, *udp, *probe]

    @property
    def over(self) -> str:
        """Its protocol, as people write it."""
        return self.kind.upper() + ("v6" if (self.kind, self.sender.family) == (Kind.ICMP, IPV6) else "")

    def __str__(self) -> str:
        mode = f" ({self.proxy})" if self.proxy else ""
        return f"{self.kind} from {self.sender.title} to {self.target.title}{mode}"


@dataclass(frozen=True, slots=True)
class Explained:
    """A cell, and what ``azvnet explain`` says to it."""

    cell: Cell
    document: dict[str, Any]

    @property
    def disagreement(self) -> str:
        """Where it says something else than was measured; empty: nowhere."""
        cell, said = self.cell, self.document
        certain = cell.answer == REFUSED or (cell.answer == LOST and cell.target.address == str(IMDS))
        verdict = "dropped" if certain else "delivered"
        source = cell.sender.address if certain else cell.seen
        found = [] if said["verdict"] == verdict else [f"verdict {said['verdict']}, not {verdict}"]
        found += [] if said["source"] == source else [f"source {said['source']}, not {source}"]
        if (
            cell.answer == LOST
            and not certain
            and not any("secondary address" in note for note in said["notes"])
        ):
            found.append("no note on what Azure does with it")
        if cell.public and not any("public address of its own" in note for note in said["notes"]):
            found.append("no note on the public address")
        return f"{cell}: {', '.join(found)}: {said['reason']}" if found else ""


def measure(scene: Scene, say: Callable[[str], object] = lambda _: None) -> list[Explained]:
    """Everything, sender by sender; services in one mode of kube-proxy after the other."""
    found: list[Explained] = []
    identities = iter(range(FIRST_IDENTITY, 30_000))
    for mode in ("", *MODES):
        if mode:
            scene.use_proxy(mode)
        say(f"kube-proxy in mode {mode}" if mode else "without services")
        cells = list(_cells(scene, mode, identities))
        for node in scene.fabric.nodes.values():
            asked = [cell for cell in cells if cell.sender.node is node]
            input_ = json.dumps([cell.question for cell in asked])
            done = node.run([sys.executable, "-c", EXPLAIN, str(ROOT)], input=input_, timeout=600)
            for cell, line in zip(asked, done.stdout.splitlines(), strict=True):
                found.append(Explained(cell, json.loads(json.loads(line))))
    return found


def _cells(scene: Scene, mode: str, identities: Iterator[int]) -> Iterator[Cell]:
    for sender in scene.senders:
        targets = scene.service_targets(sender) if mode else scene.targets(sender)
        for target in targets:
            for kind in target.kinds:
                yield _cell(scene, sender, target, kind, mode, next(identities))


def _cell(scene: Scene, sender: Sender, target: Target, kind: Kind, mode: str, identity: int) -> Cell:
    doubtful = target.address in {scene.family.of_machine(scene.fabric.vnet_hosts["internet"]), str(IMDS)}
    before = _not_answered(scene) if doubtful else 0
    packet = Packet(kind, target.address, target.port, identity, target.questions.get(kind, b""))
    list(scene.wire.take())
    try:
        answer = ask(sender.netns, packet, scene.witness, lambda: doubtful and _not_answered(scene) > before)
    except OSError as error:
        raise AssertionError(f"{kind} from {sender.title} to {target.title} {mode}: {error}") from error
    endpoints = [service.endpoint for service in scene.services] if target.translated else []
    wire = scene.wire.source_of(scene.ports_of(sender.node), kind, identity, endpoints)
    if wire and answer in {str(OUTBOUND), str(OUTBOUND_V6)}:
        answer = wire  # under which name the Internet sees the node is Azure's matter
    return Cell(sender, target, mode, kind, answer or wire, wire)


def _not_answered(scene: Scene) -> int:
    """Packets from a secondary address to the Internet or to IMDS."""
    counters = scene.fabric.drop_counters()
    dropped = counters.general
    return dropped["no_egress"] + dropped.get("no_egress_v6", 0) + counters.platform_total
