"""A small API server with one AzvnetNode, an operator that writes the NIC, and a node that follows it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ipam import state_file
from ipam.model import IPAddress
from ipam.provision import exchange, nic_document, offers
from ipam.provision.conversation import Conversation
from ipam.provision.exchange import AzvnetNode, NicShown, NodeSpec
from ipam.provision.exchange import Machine as VirtualMachine
from ipam.provision.follower import Follower
from ipam.provision.nic_writer import NicTarget, NicWriter
from ipam.provision.pace import Bucket
from ipam.provision.plan import plan
from ipam.provision.progress import Progress
from ipam.provision.tally import Tally
from ipam.value import replace
from tests.statuses import with_status
from tests.unit.ipam.arm_service import NIC
from tests.unit.ipam.machine import MAC, KilledError, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from ipam.ipam import Ipam

NAME = "node-1"
RESOURCE = VirtualMachine("/subscriptions/s/vm", "vm-1", "AzurePublicCloud", "westeurope", MAC)
SEEN_SECONDS = 60.0
Document = dict[str, Any]


class ConflictError(Exception):
    """Somebody else has written meanwhile (409)."""


class AwayError(Exception):
    """The API server does not answer."""


class ApiServer:
    """One resource with a status subresource, optimistic concurrency and generations."""

    def __init__(self) -> None:
        self.document: Document | None = None
        self.away = False
        self.shown: list[Document] = []
        """Every state of the resource: what a watch that is late may still tell."""
        self.version = 0
        self._uids = 0

    def read(self) -> AzvnetNode | None:
        if self.away:
            raise AwayError
        return None if self.document is None else exchange.read(copy.deepcopy(self.document))

    def write_spec(self, document: Document) -> AzvnetNode:
        """POST without a version, PUT with one."""
        if self.away:
            raise AwayError
        version = document["metadata"].get("resourceVersion", "")
        if self.document is None:
            if version:
                raise ConflictError
            self._uids += 1
            self.document = {
                "metadata": {"name": NAME, "uid": f"uid-{self._uids}", "generation": 0},
                "spec": {},
                "status": {},
            }
        elif version != self.document["metadata"]["resourceVersion"]:
            raise ConflictError
        self.document["spec"] = copy.deepcopy(document["spec"])
        self.document["metadata"]["generation"] += 1
        return self._changed()

    def write_status(self, document: Document) -> AzvnetNode:
        if self.away:
            raise AwayError
        there = self.document
        if there is None or document["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise ConflictError
        there["status"] = copy.deepcopy(document["status"])
        return self._changed()

    def delete(self) -> None:
        self.document = None

    def _changed(self) -> AzvnetNode:
        assert self.document is not None
        self.version += 1
        self.document["metadata"]["resourceVersion"] = str(self.version)
        self.shown.append(copy.deepcopy(self.document))
        return exchange.read(copy.deepcopy(self.document))


class Operator:
    """One that keeps to the agreement, step by step; it may be killed at every request."""

    def __init__(self, api: ApiServer, machine: FollowedMachine) -> None:
        self._api, self._machine = api, machine
        self.kill_in: int | None = None
        """Requests until it is killed."""
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again; it remembers nothing."""
        machine = self._machine
        tally = Tally(lambda _: None, machine.clock)
        bucket = Bucket(1000, 1.0, machine.clock)
        arm = Conversation(self._ask, machine.wait, tally, bucket, bucket)
        self._writer = NicWriter(arm, NicTarget(NIC["id"], machine.arm.nic["name"]))
        self._renewal: str | None = None
        self._renewed_at: float | None = None
        self._surplus_since: float | None = None

    def work(self) -> None:
        """Look at the node and do what is to be done, until it is killed or has lost a race."""
        try:
            self._work()
        except (ConflictError, AwayError):
            return
        except KilledError:
            self.kill_in = None
            self.start()

    def _work(self) -> None:
        node = self._look()
        if node is None:
            return
        if node.status.releasing:
            node = self._remove(node)
        node = self._report(node, "idle", self._writer.read())
        if node.spec.seen != node.status.revision:
            return
        counts = node.spec.pool.counts(len(node.status.configurations))
        now = self._machine.clock()
        step = plan(node.spec.sizes, counts, 0 if self._surplus_since is None else now - self._surplus_since)
        if not step.surplus:
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        if step.grows:
            node = self._say(node, state="growing", surplus=0)
            added = self._writer.add(
                nic_document.new_names(step.add or step.blocks), blocks=bool(step.blocks)
            )
            self._report(self._again(), "idle", added)
        else:
            node = self._say(node, state="idle", surplus=step.remove)
            if node.spec.releasing and self._is_fresh():
                node = self._say(node, state="shrinking", releasing=node.spec.releasing, surplus=0)
                self._remove(node)

    def _remove(self, node: AzvnetNode) -> AzvnetNode:
        """What was begun, if the agent is still there."""
        # Otherwise it is given up, which is safe once nothing is in progress any more.
        names = set(node.status.releasing) & set(node.spec.releasing)
        nic = self._writer.remove(names) if names and self._is_fresh() else self._writer.read()
        return self._report(self._again(), "idle", nic, releasing=())

    def _look(self) -> AzvnetNode | None:
        node: AzvnetNode | None = self._call(self._api.read)
        if node is not None and node.spec.renew_time != self._renewal:
            # What was written before this one came may be of any age.
            if self._renewal is not None:
                self._renewed_at = self._machine.clock()
            self._renewal = node.spec.renew_time
        return node

    def _again(self) -> AzvnetNode:
        node = self._look()
        if node is None:
            raise ConflictError
        return node

    def _is_fresh(self) -> bool:
        return self._renewed_at is not None and self._machine.clock() - self._renewed_at <= SEEN_SECONDS

    def _report(self, node: AzvnetNode, state: str, nic: Document, **more: Any) -> AzvnetNode:
        there = nic_document.configurations(nic)
        changed = there != node.status.configurations or not node.status.revision
        return self._say(
            node,
            state=state,
            revision=node.status.revision + changed,
            configurations=there,
            nic=NicShown("id", "nic", mac=nic_document.mac_of(nic)),
            last_read_time=str(self._machine.clock()),
            **more,
        )

    def _say(self, node: AzvnetNode, **changes: Any) -> AzvnetNode:
        status = replace(node.status, observed_generation=node.generation, **changes)
        if status == node.status:
            return node
        document = with_status(NAME, status, node.resource_version)
        said: AzvnetNode = self._call(lambda: self._api.write_status(document))
        return said

    def _call(self, request: Callable[[], Any]) -> Any:
        self._count()
        return request()

    def _ask(self, *request: Any) -> Any:
        self._count()
        return self._machine.ask(*request)

    def _count(self) -> None:
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                raise KilledError


class Fuse:
    """Kills the agent before a change of store or file; None: never."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise KilledError


class Mortal:
    """A pool whose changes the agent may not live to see."""

    def __init__(self, ipam: Ipam, fuse: Fuse) -> None:
        self._ipam, self._fuse = ipam, fuse

    def __getattr__(self, name: str) -> Any:
        if name in {"mark_leaving", "mark_gone", "unmark_leaving"}:
            self._fuse.burn()
        return getattr(self._ipam, name)


class FollowedMachine(Machine):
    """A node in one of the modes ``operator``, ``node`` and ``off``."""

    def __init__(self, *arguments: Any, api: ApiServer, patch: pytest.MonkeyPatch, **more: Any) -> None:
        self.api = api
        self.mode = "operator"
        self.fuse = Fuse()
        self.late: list[Document] = []
        """Writes of the agent that have not arrived yet."""
        self.known: AzvnetNode | None = None
        replaced = state_file.replace_document

        def replace_document(*given: Any) -> None:
            self.fuse.burn()
            replaced(*given)

        patch.setattr(offers, "replace_document", replace_document)
        super().__init__(*arguments, **more)
        self.operator = Operator(api, self)

    def start(self) -> None:
        super().start()
        wanted = NodeSpec(machine=RESOURCE, sizes=self.sizes, dry_run=self.dry_run)
        pool: Any = Mortal(self.ipam, self.fuse)
        self.follower = Follower(pool, self, self.node.wall, wanted)
        self.known = None
        self.failing_since: float | None = None

    def wait(self, seconds: float) -> None:
        self.node.wall.advance(seconds)
        super().wait(seconds)

    @property
    def offered(self) -> tuple[str, ...]:
        node = None if self.api.document is None else exchange.read(self.api.document)
        return () if node is None else node.spec.releasing

    def follow(self, outcome: str = "done", seen: Document | None = None) -> None:
        """One look of the agent. ``outcome``: of a write; ``seen``: what a late watch tells it."""
        try:
            self.known = self.known or self.api.read()
            self._look(outcome, seen)
            self.failing_since = None
        except ConflictError:
            self.known = None
        except AwayError:
            if self.known is None:
                self.follower.step(None, self._trouble, may_write=False)
            self.known = None
            self.failing_since = self.clock() if self.failing_since is None else self.failing_since

    @property
    def _trouble(self) -> Progress | None:
        since = self.failing_since
        return None if since is None or self.clock() - since < 60 else Progress("no-api", "away", "Look.")

    def _look(self, outcome: str, seen: Document | None) -> None:
        told = self.known if seen is None else exchange.read(copy.deepcopy(seen))
        spec = self.follower.step(told, self._trouble)
        if spec is not None:
            self._write(spec, told, outcome)
        else:
            self.known = self.api.read()

    def _write(self, spec: NodeSpec, told: AzvnetNode | None, outcome: str) -> None:
        document = exchange.with_spec(NAME, spec, "" if told is None else told.resource_version)
        if outcome == "lost":
            raise AwayError
        if outcome == "late":
            self.late.append(document)
            raise AwayError
        self.known = self.api.write_spec(document)
        if outcome == "unknown":
            raise AwayError
        self.follower.wrote(self.known)

    def arrive(self) -> None:
        """A write that the agent has given up arrives after all."""
        try:
            self.api.write_spec(self.late.pop(0))
        except (ConflictError, AwayError):
            return

    def agent(self) -> None:
        """One look of the agent in its mode, with nothing going wrong."""
        if self.mode == "operator":
            self.follow()
        elif self.mode == "node":
            self.provisioner.step()

    def run(self, seconds: float) -> None:
        """Let agent and operator work for so long."""
        end = self.clock() + seconds
        turns = 0
        while self.clock() < end:
            self.agent()
            self.operator.work()
            self.agent()
            self.wait(5)
            turns += 1
            if turns % 6 == 0:
                self.refresh()

    @property
    def phase(self) -> str:
        followed = self.mode == "operator"
        return self.follower.progress.phase if followed else self.provisioner.progress.phase

    def free(self) -> set[IPAddress]:
        return {e.address.ip for e in self.ipam.addresses(0.0) if e.state.value == "free"}
