"""A thread that works on the NIC's addresses step by step, and what it needs from the node.

Owns when a step is taken, and how its errors are handled. It must not know what a step is.
"""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cni_plugin import checks
from cni_plugin.addresses import allocate
from cni_plugin.agent.journal import Journal
from cni_plugin.checks import Problem
from cni_plugin.cni.errors import CniError
from cni_plugin.node import Node
from ipam.errors import IpamError
from ipam.ipam import boottime

if TYPE_CHECKING:
    from cni_plugin.agent.readiness import Work
    from ipam.model import IPAddress
    from ipam.provision.progress import Progress

LOOK_SECONDS = 5.0
"""Seconds between two looks at the pool; a pod that finds no address causes one at once."""


class StoppedError(Exception):
    """The work ends, wherever it is; it is taken up again by reading what there is."""


class ProvisionThread(abc.ABC):
    """One life of the thread, with the settings that it began with: ``progress.NodeFacts``."""

    def __init__(
        self,
        node: Node,
        work: Work,
        refresh: Callable[[], None],
        serves: Callable[[], bool],
        waiting: Callable[[], frozenset[str]],
        journal: Journal,
    ) -> None:
        self._node = node
        self._work = work
        self.refresh = refresh
        self._serves = serves
        self.waiting = waiting
        self._journal = journal
        self.wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="provision", daemon=True)

    @property
    @abc.abstractmethod
    def progress(self) -> Progress:
        """What is being done."""

    @property
    def latest(self) -> Progress:
        """The same for a pod that waits now: also what is not known to last."""
        return self.progress

    @abc.abstractmethod
    def _step(self) -> None:
        """One look, and what follows from it. Raises StoppedError, IpamError, OSError."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._stopped.set()
        self.wake.set()
        self._thread.join(2.0)

    # What a step needs of the node

    def clock(self) -> float:
        """Seconds since boot."""
        return boottime()

    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""
        return self._work.cooldown

    def carried(self) -> frozenset[IPAddress]:
        """Addresses that the host itself carries."""
        return allocate.host_addresses(self._node)

    def nic_mac(self) -> str:
        """The NIC that pods leave by; empty: it is not known, and the primary one is meant."""
        with contextlib.suppress(IpamError, CniError, OSError):
            return self._work.address_request().nic_mac
        return ""

    def tell(self, level: str, text: str) -> None:
        """Write to the log."""
        self._journal.write(level, text)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise StoppedError

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self.wake.clear()
            if self._serves():
                self._guarded_step()
            self.wake.wait(LOOK_SECONDS)
        self._node.close()

    def _guarded_step(self) -> None:
        defects: list[Problem] = []
        try:
            self._step()
        except StoppedError:
            return
        except (IpamError, OSError) as error:
            defects = [Problem("store", str(error), type(error).__name__, level="error")]
        except Exception as error:  # noqa: BLE001 - the thread must outlive any defect
            text = f"internal error: {type(error).__name__}: {error}"
            defects = [Problem("defect", text, type(error).__name__, level="error")]
        self._journal.report("provision", [*problems_of(self.progress), *defects])


def problems_of(progress: Progress | None) -> list[Problem]:
    """What an operator should know, though pods may get addresses."""
    if progress is None:
        return []
    others = [*checks.vanished(progress.vanished), *_unseen(progress)]
    if not progress.is_problem:
        return others
    words = f"{progress.text.rstrip('.')}. {progress.remedy}".rstrip()
    text = f"the NIC's addresses can't follow demand ({progress.phase}): {words}"
    over = "the NIC's addresses follow demand again"
    return [*others, Problem(checks.PROVISION, text, progress.phase, over=over)]


def _unseen(progress: Progress) -> list[Problem]:
    """That growth begins later than it could."""
    unseen = progress.unseen
    if unseen is None or not unseen.remedy:
        return []
    text = f"{checks.UNSEEN} ({unseen.phase}): {unseen.text.rstrip('.')}. {unseen.remedy}"
    over = "it is known again which pods are scheduled to this node"
    return [Problem(checks.DEMAND, text, unseen.phase, over=over)]
