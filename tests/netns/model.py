"""What a node has to look like after any interleaving of calls, kills and losses: the model, and the facts.

The invariant: every address is free, or held by exactly one live pod that carries it. A pod whose call was
killed, or that was touched while the store was lost, may keep its address reserved without need until its
next DEL or two looks; never may two pods carry one address, and never is a carried address free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni_plugin.datapath.names import names_of, read_alias
from cni_plugin.kernel import encode, netns
from cni_plugin.kernel.decode import Link
from cni_plugin.kernel.netlink import Netlink
from ipam.ipam import Ipam
from ipam.model import Attachment
from tests.netns.calls import Outcome
from tests.netns.node import RUN_DIR, Node
from tests.netns.sandbox import Pod
from tests.netns.ways import connections
from tests.waiting import eventually

NETNS_GONE, EXHAUSTED, EXISTS, TRY_AGAIN = 8, 100, 104, 11


@dataclass(frozen=True, slots=True)
class Facts:
    """What store, host and pods say, read at a moment when no call is running."""

    adopted: bool
    known: tuple[str, ...]
    """Every address of the pool."""
    states: int
    """The four states of the pool, added up."""
    held: dict[str, str]
    """Container id to address."""
    carried: dict[str, list[str]]
    """Container id to the addresses on its eth0, for pods that have one."""
    finished: frozenset[str]
    """Container ids of which the host has a veth that an ADD brought to its end."""
    unfinished: frozenset[str]
    """Names of host veths of ours without an alias."""
    routes: dict[str, str]
    """Address to the host veth's name."""


def read(node: Node, pods: Iterable[Pod]) -> Facts:
    """The facts of a node; one child reads them all.

    An agent goes on with a call whose launcher was killed, and adopts and lists by itself at any time: a
    look that it has changed something during is no fact.
    """
    eventually(lambda: not connections(node.sandbox), "the agent is done with every call")
    paths = {pod.container_id: pod.netns for pod in pods}
    found = node.sandbox.ask(lambda: _read(paths))
    while (again := node.sandbox.ask(lambda: _read(paths))) != found:
        found = again
    return found


def _read(paths: dict[str, str]) -> Facts:
    with Netlink() as host:
        links = [link for link in host.links(encode.dump_links()) if link.name.startswith("azv")]
        names = {link.index: link.name for link in links}
        dump = host.routes(encode.dump_routes(encode.AF_INET))
    routes = {str(r.dst.network_address): names.get(r.index, "?") for r in dump if r.protocol == 155}
    assert len(routes) == sum(r.protocol == 155 for r in dump), "two host routes for one address"
    pool = Ipam(Path(RUN_DIR))
    held = {each.attachment.container_id: str(each.ip) for each in pool.reservations()}
    counts = pool.overview().counts
    facts = Facts(
        adopted=not pool.needs_adoption(),
        known=tuple(str(each.address.ip) for each in pool.addresses()),
        states=counts.total,
        held=held,
        carried={name: found for name, path in paths.items() if (found := _carried(path)) is not None},
        finished=frozenset(named for link in links if (named := _container(link))),
        unfinished=frozenset(link.name for link in links if not link.alias),
        routes=routes,
    )
    pool.close()
    return facts


def _container(link: Link) -> str:
    named = read_alias(link.alias)
    return named[0].container_id if named else ""


def _carried(path: str) -> list[str] | None:
    if not Path(path).exists():
        return None
    with netns.opened(None, path) as fd, netns.call_in(fd, Netlink) as pod:
        link = pod.one_link(encode.get_link(name="eth0"))
        if link is None:
            return None
        dump = pod.addresses(encode.dump_addresses(encode.AF_INET))
        return [str(each.ip) for each in dump if each.index == link.index]


def _address(result: dict[str, Any]) -> str:
    return str(result["ips"][0]["address"]).split("/")[0]


@dataclass
class Model:
    """What is expected of each pod."""

    addresses: frozenset[str]
    attached: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Container id to the result of its ADD; pods that are beyond doubt as they were made."""
    doubtful: set[str] = field(default_factory=set)
    """Container ids of pods that may be in between: killed, or touched while the store was lost."""
    read_since_loss: bool = False

    def lose_store(self) -> None:
        """The store was taken away."""
        self.read_since_loss = False

    def judge(self, verb: str, pod: Pod, outcome: Outcome, *, alone: bool) -> None:
        """Whether a call that was not killed answered what it may; ``alone``: no other of the pod ran."""
        name = pod.container_id
        sure = alone and name not in self.doubtful
        if verb == "ADD" and outcome.ok:
            self.read_since_loss = True
            assert not (sure and name in self.attached), f"{name} was attached already"
        elif verb == "ADD":
            allowed = {EXHAUSTED, TRY_AGAIN, NETNS_GONE, EXISTS}
            assert outcome.code in allowed, outcome
            if sure:
                assert (outcome.code == EXISTS) == (name in self.attached), outcome
        elif verb == "CHECK":
            if sure:
                assert outcome.ok == (name in self.attached), outcome
        else:
            outcome.done()

    def settle(self, facts: Facts, done: dict[str, list[tuple[str, Outcome]]], disturbed: set[str]) -> None:
        """Take in what a round of calls did; ``disturbed`` pods can't be told from their outcomes."""
        for name, calls in done.items():
            verbs = [verb for verb, outcome in calls if outcome.ok and verb in ("ADD", "DEL")]
            if name in disturbed:
                self.doubtful.add(name)
                self.attached.pop(name, None)
            elif verbs == ["DEL"] and len(calls) == 1:
                self.doubtful.discard(name)
                self.attached.pop(name, None)
                self._is_nothing_left(name, facts)
            elif name not in self.doubtful and verbs:
                self._take_over(name, calls, facts)

    def _take_over(self, name: str, calls: list[tuple[str, Outcome]], facts: Facts) -> None:
        """Calls of one pod that crossed: either of the two ends of it is right, nothing in between."""
        made = [outcome.result for verb, outcome in calls if verb == "ADD" and outcome.ok]
        deleted = sum(verb == "DEL" and outcome.ok for verb, outcome in calls)
        before = self.attached.pop(name, None)
        results = [*made, *([before] if before else [])]
        assert len(results) <= deleted + 1, f"{name} was added where it was attached already"
        if name in facts.held:
            assert name in facts.finished, f"{name} is half made"
            assert made or not deleted, f"{name} is attached after its DEL"
            # More than one where a DEL freed the address and the ADD after it was given the same one.
            right = [each for each in results if _address(each) == facts.held[name]]
            assert right, f"{name} holds {facts.held[name]}, which no call was answered with"
            assert right.count(right[0]) == len(right), f"{name} was answered differently: {right}"
            self.attached[name] = right[0]
        else:
            self._is_nothing_left(name, facts)

    @staticmethod
    def _is_nothing_left(name: str, facts: Facts) -> None:
        assert name not in facts.finished, f"{name} has a veth after its DEL"
        assert not facts.carried.get(name), f"{name} carries an address after its DEL"
        assert names_of(Attachment(name, "eth0"), "default", name).host_ifname not in facts.unfinished
        assert not facts.adopted or name not in facts.held, f"{name} holds an address after its DEL"

    def check(self, facts: Facts) -> None:
        """The invariant."""
        carriers = [(address, name) for name, found in facts.carried.items() for address in found]
        assert len({address for address, _ in carriers}) == len(carriers), f"carried twice: {carriers}"
        assert len(set(facts.held.values())) == len(facts.held), f"held twice: {facts.held}"
        assert set(facts.held.values()) <= self.addresses
        assert facts.states == len(facts.known) == len(set(facts.known)), "the four states add up"
        if self.read_since_loss:
            assert set(facts.known) == self.addresses
        for address, name in carriers:
            if facts.adopted and name in facts.finished:
                assert facts.held.get(name) == address, f"{name} carries {address}, the store differs"
            veth = names_of(Attachment(name, "eth0"), "default", name).host_ifname
            if name in facts.finished or veth in facts.unfinished:
                assert facts.routes.get(address) == veth, f"{address} of {name} is routed elsewhere"
        for name in self.attached:
            assert facts.carried.get(name), f"{name} lost its address"
            assert name in facts.finished
            assert not facts.adopted or facts.held.get(name) in facts.carried[name]
        if facts.adopted:
            stray = set(facts.held) - set(self.attached) - self.doubtful
            assert not stray, f"held for nobody: {stray}"
