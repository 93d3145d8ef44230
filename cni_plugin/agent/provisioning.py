"""The agent's part in growing and shrinking its NIC: a thread that takes one step after the other.

Owns when that happens, which pods wait, and what is reported about it. Nothing here delays a call. Without
the setting nothing of ``ipam.provision`` is loaded. It must not know how a NIC is changed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cni_plugin import checks
from cni_plugin.addresses import allocate
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem
from cni_plugin.cni.errors import CniError
from cni_plugin.node import Node
from ipam.errors import IpamError
from ipam.ipam import boottime

if TYPE_CHECKING:
    from cni_plugin.agent.readiness import Work
    from ipam.model import IPAddress
    from ipam.provision.nic_writer import NicWriter
    from ipam.provision.progress import Progress

LOOK_SECONDS = 5.0
"""Seconds between two looks at the pool; a pod that finds no address causes one at once."""
WAITING_SECONDS = 60.0
"""Seconds for which a pod that found no address counts as waiting: the kubelet tries again sooner."""


class StoppedError(Exception):
    """The work ends, wherever it is; it is taken up again by reading the NIC."""


class Provisioning:
    """``refresh`` has the sources read soon. ``serves``: whether callers find this agent."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        work: Work,
        refresh: Callable[[], None],
        serves: Callable[[], bool],
        journal: Journal,
    ) -> None:
        self._node = node
        self._settings = settings
        self._work = work
        self._refresh = refresh
        self._serves = serves
        self._journal = journal
        self._waiting: dict[str, float] = {}
        self._lock = threading.Lock()
        self._running: ProvisioningThread | None = None

    @property
    def progress(self) -> Progress | None:
        """What is being done; None: it is switched off."""
        running = self._running
        return running.progress if running is not None else None

    def start(self) -> None:
        """Begin, if the settings say so."""
        settings = self._settings
        self._node.outlook = self.outlook if settings.provision else None
        if settings.provision is not None:
            self._running = ProvisioningThread(
                self._node,
                settings,
                self._work,
                self._refresh,
                self._serves,
                self.waiting,
                self._journal,
            )
            self._running.start()

    def stop(self) -> None:
        """Stop, without waiting for a request in progress."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()
        self._node.outlook = None
        self._journal.report("provision", [])

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        before, self._settings = self._settings, settings
        if (before.provision, before.arm) != (settings.provision, settings.arm):
            self.stop()
            self.start()

    def outlook(self, pod: str) -> str:
        """Note that a pod found no address; what is done about it, in words."""
        running, wanted = self._running, self._settings.provision
        if running is None or wanted is None:
            return ""
        with self._lock:
            self._waiting[pod] = time.monotonic()
        running.wake.set()
        if wanted.dry_run:
            return ""
        now = running.progress
        if now.is_problem:
            return f"more addresses can't be had now ({now.phase}): {now.text}"
        return "addresses are on the way: the NIC is given more"

    def problems(self) -> list[Problem]:
        """What an operator should know, though pods may get addresses."""
        return problems_of(self.progress)

    def waiting(self) -> frozenset[str]:
        """Pods that found no address a moment ago."""
        since = time.monotonic() - WAITING_SECONDS
        with self._lock:
            self._waiting = {pod: at for pod, at in self._waiting.items() if at >= since}
            return frozenset(self._waiting)


class ProvisioningThread:
    """One life of the thread, with the settings that it began with: ``progress.Surroundings``."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        work: Work,
        refresh: Callable[[], None],
        serves: Callable[[], bool],
        waiting: Callable[[], frozenset[str]],
        journal: Journal,
    ) -> None:
        from ipam.provision.azure import ThisMachine
        from ipam.provision.provisioner import Provisioner
        from ipam.provision.tally import Tally

        wanted = settings.provision
        assert wanted is not None
        self._node = node
        self._work = work
        self.refresh = refresh
        self._serves = serves
        self.waiting = waiting
        self._journal = journal
        tally = Tally(node.ipam.count, boottime)
        self._machine = ThisMachine(settings.arm, self._wait, boottime, tally)
        self._provisioner = Provisioner(
            node.ipam, self, tally, wanted.sizes, wanted.subnet, dry_run=wanted.dry_run
        )
        self.wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="provision", daemon=True)

    @property
    def progress(self) -> Progress:
        """What is being done."""
        return self._provisioner.progress

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._stopped.set()
        self.wake.set()
        self._thread.join(2.0)

    # What the provisioner needs of the node

    def clock(self) -> float:
        """Seconds since boot."""
        return boottime()

    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""
        return self._work.cooldown

    def carried(self) -> frozenset[IPAddress]:
        """Addresses that the host itself carries."""
        return allocate.host_addresses(self._node)

    def writer(self, subnet: str) -> NicWriter:
        """What changes the NIC that pods leave by."""
        mac = ""
        with contextlib.suppress(IpamError, CniError, OSError):  # then it is the primary NIC
            mac = self._work.address_request().nic_mac
        return self._machine.writer(mac, subnet)

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
                self._step()
            self.wake.wait(LOOK_SECONDS)
        self._node.close()

    def _step(self) -> None:
        defects: list[Problem] = []
        try:
            self._provisioner.step()
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
    vanished = checks.vanished(progress.vanished)
    if not progress.is_problem:
        return vanished
    words = f"{progress.text.rstrip('.')}. {progress.remedy}".rstrip()
    text = f"the NIC's addresses can't follow demand ({progress.phase}): {words}"
    over = "the NIC's addresses follow demand again"
    return [*vanished, Problem(checks.PROVISION, text, progress.phase, over=over)]
