"""The node's half of growing and shrinking if the cluster's operator writes the NIC.

Owns what the agent writes into its resource and when, and how it reacts to what the operator writes
there. The operator decides; the agent only reports what is needed, what may be removed (``handshake``)
and what was lost. Without either, pods still get the addresses that are free. It must not know how a
resource is read or written, threads, CNI or how the settings are written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ipam.mac import normalize_mac
from ipam.provision.demand import Arrivals
from ipam.provision.exchange import MOST_VANISHED, NodeSpec, PoolReport
from ipam.provision.handshake import Handshake
from ipam.provision.nic_pool import NicPool
from ipam.provision.operator_progress import OperatorProgress
from ipam.provision.plan import leaving, plan
from ipam.provision.progress import DRY_RUN, QUIET, Progress
from ipam.provision.timestamps import rfc3339, seconds_of
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.ipam import Ipam
    from ipam.provision.exchange import AzvnetNode, NodeStatus
    from ipam.provision.pool_view import PoolView
    from ipam.provision.progress import NodeFacts

URGENT_SECONDS, USUAL_SECONDS = 1.0, 10.0
"""Between two writes: where pods or the operator wait for it, and where counts have changed."""
RENEW_SECONDS, OFFERING_SECONDS = 120.0, 30.0
"""After so long it is written again though nothing has changed: the operator leaves a node alone that was
silent for five minutes, and begins no removal where it was silent for one."""
CONTINUED_SECONDS = 600.0
"""An agent whose predecessor wrote within so many seconds uses the status that the operator wrote for it."""


class Follower:
    """One NIC of one node. Not for several threads, but ``progress`` may be read by any.

    Args:
        ipam: the pool.
        around: the node.
        wall_clock: seconds since the epoch, for the resource.
        wanted: the machine and what the settings say.
    """

    def __init__(
        self, ipam: Ipam, around: NodeFacts, wall_clock: Callable[[], float], wanted: NodeSpec
    ) -> None:
        self._around = around
        self._wall_clock = wall_clock
        self._wanted = wanted
        self._arrivals = Arrivals()
        self._handshake = Handshake(ipam, around.clock, around.tell)
        self._nic = NicPool(ipam, around, self._handshake.kept)
        self._operator_progress = OperatorProgress(around.clock)
        self._resumed = False
        self._node: AzvnetNode | None = None
        self._wrote_at: float | None = None
        self._machine_since: int | None = None
        """The generation of the resource that first named this machine; None: it does not yet."""
        self._read_before = ""
        """Time of the read in the first status that was seen, unless that status is used."""
        self._noted = (0, "")
        """Revision and time of the read that are used."""
        self.progress = Progress()

    def step(
        self, node: AzvnetNode | None, trouble: Progress | None = None, *, may_write: bool = True
    ) -> NodeSpec | None:
        """One step; returns what has to be written to the resource now. None: nothing.

        Args:
            node: the resource as it was read last, which may be out of date; None: there is none.
            trouble: why it can't be read or written, since a while.
            may_write: whether what is returned is written.

        Raises:
            IpamError, OSError: the store or the file of what is on offer can't be used. Nothing is published.
        """
        if not self._resumed:
            self._handshake.resume()
            self._resumed = True
        if node is not None and not (self._node and node.is_older_than(self._node)):
            self._follow(node)
        pool = self._nic.view()
        self._arrivals.note(pool.holders, self._around.clock())
        if self._wanted.dry_run or trouble is not None:
            # Nobody takes it who does not hear of this node; and each attempt to tell offers it again.
            self._handshake.withdraw()
        if not self._wanted.dry_run:
            self._handshake.hold()
            if self._nic.keep_marked(pool):
                self._around.refresh()
            if trouble is None:
                self._offer(pool)
            pool = self._nic.view()
        if self._nic.in_flight(pool):
            self._around.refresh()
        self._nic.note_listing(pool)
        spec = self._spec(pool)
        self.progress = self._nic.with_facts(trouble or self._telling(spec, pool), pool)
        if not may_write or not self._is_due(spec):
            return None
        self._handshake.publishing()
        return replace(spec, renew_time=rfc3339(self._wall_clock()))

    def wrote(self, node: AzvnetNode) -> None:
        """The resource as the API server has it after a write of what ``step`` returned. Raises OSError."""
        self._wrote_at = self._around.clock()
        self._follow(node)
        self._handshake.wrote(node)

    # Reading the operator's half

    def _follow(self, node: AzvnetNode) -> None:
        if self._node is None or self._node.uid != node.uid:
            self._meet(node)
        elif self._machine_since is None and node.spec.machine == self._wanted.machine:
            self._machine_since = node.generation
        self._node = node
        self._handshake.follow(node)
        self._operator_progress.note(node)
        read = (node.status.revision, node.status.last_read_time)
        if read != self._noted and self._is_about_this_nic(node.status):
            self._nic.note(node.status.configurations, node.status.nic.mac)
            if node.status.last_read_time != self._read_before:
                self._noted = read
                self._nic.note_gone(self._nic.view(), mark=not self._wanted.dry_run)

    def _meet(self, node: AzvnetNode) -> None:
        """A resource that is seen for the first time: it may be of another machine, or of another time."""
        before = node.spec
        same = before.machine == self._wanted.machine
        continued = same and self._seconds_since(before.renew_time) < CONTINUED_SECONDS
        self._machine_since = 0 if same else None
        self._read_before = "" if continued else node.status.last_read_time
        self._noted = (0, "")

    def _seconds_since(self, text: str) -> float:
        try:
            return abs(self._wall_clock() - seconds_of(text))
        except ValueError:
            return math.inf

    def _is_about_this_nic(self, status: NodeStatus) -> bool:
        if not status.revision or self._machine_since is None:
            return False
        if status.observed_generation < self._machine_since:
            return False
        mac = self._wanted.machine.mac
        try:
            return not (mac and status.nic.mac) or normalize_mac(status.nic.mac) == normalize_mac(mac)
        except ValueError:
            return False

    # Writing the agent's half

    def _offer(self, pool: PoolView) -> None:
        """Offer what the operator asks for, if no pod needs it; withdraw what it no longer asks for."""
        if self._node is None or not self._noted[0]:
            return
        status, handshake = self._node.status, self._handshake
        failed = frozenset(e.name for e in self._nic.configurations if e.state == "Failed")
        needed = self._waiting(pool) or not pool.free
        offered = handshake.limit(0 if needed else status.surplus, failed)
        if not needed and status.observed_generation >= handshake.withdrawn_in:
            most = min(status.surplus - offered, len(pool.free) - 1)
            handshake.offer(leaving(self._nic.removable(pool), most), self._around.cooldown())
        handshake.offer(self._nic.failed(pool), cooldown=0.0)

    def _spec(self, pool: PoolView) -> NodeSpec:
        now = self._around.clock()
        held = frozenset(each.ip for each in pool.reservations)
        releasing = len(self._handshake.addresses & self._nic.on_nic() & pool.known - held)
        return replace(
            self._wanted,
            pool=PoolReport(
                held=pool.held,
                free=len(pool.free),
                cooling=pool.cooling,
                unusable=max(0, pool.unusable - releasing),
                releasing=releasing,
                in_flight=len(self._nic.in_flight(pool)),
                waiting=self._waiting(pool),
                arrivals_per_minute=float(round(self._arrivals.per_second(now) * 60)),
            ),
            seen=self._noted[0],
            releasing=self._handshake.names,
            vanished=tuple(each.ip for each in self._nic.vanished(pool))[:MOST_VANISHED],
        )

    def _waiting(self, pool: PoolView) -> int:
        return len(self._around.waiting() - pool.pods)

    def _is_due(self, spec: NodeSpec) -> bool:
        if self._wrote_at is None:
            return True  # it is still alive, which has to be written
        since = self._around.clock() - self._wrote_at
        if self._node is None:
            return since >= URGENT_SECONDS
        said = self._node.spec
        if replace(spec, renew_time=said.renew_time) == said:
            return since >= (RENEW_SECONDS if self._handshake.is_settled else OFFERING_SECONDS)
        return since >= (URGENT_SECONDS if _is_urgent(spec, said) else USUAL_SECONDS)

    # Reporting

    def _telling(self, spec: NodeSpec, pool: PoolView) -> Progress:
        if self._node is None:
            return Progress(text="this node has not written its resource for the operator yet")
        limits = spec.pool.counts(max(1, len(self._nic.configurations)))
        told = self._operator_progress.progress(self._node.status, grows=plan(spec.sizes, limits).grows)
        listing = self._nic.listing(pool)
        return listing if listing is not None and told.phase in QUIET and told.phase != DRY_RUN else told


def _is_urgent(spec: NodeSpec, said: NodeSpec) -> bool:
    """Whether pods or the operator wait for what has changed."""
    counted = replace(spec, pool=said.pool, renew_time=said.renew_time)
    return counted != said or spec.pool.waiting > said.pool.waiting
