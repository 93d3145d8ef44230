"""The agent's part in growing and shrinking its NIC, depending on the mode in the settings.

Owns which pods wait, and what errors say about addresses on the way. The work is done by a thread
(``node_mode``, ``operator_mode``). Nothing here delays a call. Without the setting nothing of
``ipam.provision`` is loaded. It must not know how a NIC is changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cni_plugin.agent.journal import Journal
from cni_plugin.agent.provision_thread import ProvisionThread, problems_of
from cni_plugin.agent.requests_made import RequestsMade
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem
from cni_plugin.node import Node

if TYPE_CHECKING:
    from cni_plugin.agent.readiness import Work
    from ipam.provision.progress import Progress

WAITING_SECONDS = 60.0
"""Seconds for which a pod that found no address counts as waiting: the kubelet tries again sooner."""


class Provisioning:
    """``refresh`` has the sources read soon. ``serves``: whether callers find this agent."""

    def __init__(
        self,
        environ: Mapping[str, str],
        node: Node,
        settings: Settings,
        work: Work,
        refresh: Callable[[], None],
        serves: Callable[[], bool],
        journal: Journal,
    ) -> None:
        self._environ = environ
        self._node = node
        self._settings = settings
        self._work = work
        self._refresh = refresh
        self._serves = serves
        self._journal = journal
        self.requests = RequestsMade()
        self._waiting: dict[str, float] = {}
        self._lock = threading.Lock()
        self._running: ProvisionThread | None = None

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
            self._running = self._thread(by_cluster=settings.provision.by_cluster)
            self._running.start()

    def _thread(self, *, by_cluster: bool) -> ProvisionThread:
        settings = self._settings
        more = (self._work, self._refresh, self._serves, self.waiting, self._journal)
        place = (self._environ, self._node, settings, self.requests)
        if by_cluster:
            from cni_plugin.agent.operator_mode import OperatorModeThread

            return OperatorModeThread(*place, *more)
        from cni_plugin.agent.node_mode import NodeModeThread

        return NodeModeThread(*place, *more)

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
        now = running.latest
        if now.is_problem:
            return f"no more addresses can be added now ({now.phase}): {now.text}"
        return "addresses are on the way: more are being added to the NIC"

    def problems(self) -> list[Problem]:
        """What an operator should know, though pods may get addresses."""
        return problems_of(self.progress)

    def waiting(self) -> frozenset[str]:
        """Pods that found no address a moment ago."""
        since = time.monotonic() - WAITING_SECONDS
        with self._lock:
            self._waiting = {pod: at for pod, at in self._waiting.items() if at >= since}
            return frozenset(self._waiting)
