"""Whether the node's network is ready, checked now and then, and the conflist that announces it.

Owns when the conflist is put in place: last, once an address can really be given. It must not be in the way
of a call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cni_plugin import checks
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.readiness import READY, Readiness
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem
from cni_plugin.conflist import ConflistFile, NotInPlace
from cni_plugin.node import Node
from ipam.errors import IpamError

LOOK_SECONDS = 10.0
"""Seconds between two checks while the node is ready."""
EAGER_SECONDS, EAGER_FOR, PATIENT_SECONDS = 0.25, 60.0, 2.0
"""Seconds between two checks while it is not: a new node soon gets an address, a full one does not."""
STARTING_SECONDS = 3.0
"""Seconds after the start in which it is not logged that the node is not ready yet."""


class InstalledConflist:
    """The conflist that the agent installs, if configured, and if ``serves``: callers find this agent.

    ``note_netconf`` is called with the netconf of our plugin in it, whenever that changes.
    """

    def __init__(
        self,
        settings: Settings,
        note_netconf: Callable[[dict[str, Any]], None],
        note_replaced: Callable[[dict[str, Any], dict[str, Any]], None],
        serves: Callable[[], bool],
        journal: Journal,
    ) -> None:
        self._note_netconf = note_netconf
        self._note_replaced = note_replaced
        self._serves = serves
        self._journal = journal
        self._file: ConflistFile | None = None
        self._noted: bytes | None = None
        self.why_not = ""
        """Why the conflist is not where the runtime looks for it; empty: it is, or none is wanted."""
        self.use(settings)
        if settings.conflist is not None:
            self.why_not = f"the conflist {settings.conflist.destination} has not been checked yet"

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        wanted = settings.conflist
        self._file = ConflistFile(wanted.source, wanted.destination, wanted.bin_dir) if wanted else None
        if self._file is not None:
            with contextlib.suppress(NotInPlace):
                self._read(self._file)  # before the source is read for the first time: it names the source

    def install(self, *, may_write: bool) -> None:
        """Put it in place if that is allowed now; ``why_not`` has the outcome."""
        self.why_not = self._install(may_write=may_write) if self._serves() else ""

    def _install(self, *, may_write: bool) -> str:
        file = self._file
        if file is None:
            return ""
        try:
            content = self._read(file)
            if file.is_in_place(content):
                return ""
            file.require_plugins(content)
            if not may_write:
                return f"the conflist {file.destination} waits for an address"
            before = file.netconf_in_place()
            file.put_in_place(content)
            self._note_replaced(before, file.netconf)
        except NotInPlace as error:
            return str(error)
        self._journal.write("info", f"the conflist {file.destination} was written")
        return ""

    def _read(self, file: ConflistFile) -> bytes:
        content = file.read()
        if content != self._noted:
            self._noted = content
            self._note_netconf(file.netconf)
        return content

    def problems(self) -> list[Problem]:
        """Whether the runtime uses another configuration."""
        if self._file is None:
            return []
        own = self._file.destination
        return checks.preferred_conflist(own.name, str(own.parent), self._file.sorts_before())


class NetworkReady:
    """One thread that checks whether the node is ready, and installs the conflist when it is."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        readiness: Readiness,
        conflist: InstalledConflist,
        more_problems: Callable[[], Sequence[Problem]],
        journal: Journal,
    ) -> None:
        self._node = node
        self._settings = settings
        self._readiness = readiness
        self._conflist = conflist
        self._more_problems = more_problems
        self._journal = journal
        self._began = time.monotonic()
        self._pool_problems: list[Problem] = []
        self._logged = False
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="network-ready", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop. The conflist stays: the executable itself still handles calls."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(2.0)

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        self._settings = settings
        self._conflist.use(settings)
        self._wake.set()

    def warnings(self) -> list[Problem]:
        """What an operator should know though pods get addresses."""
        return [*self._own_warnings(), *self._more_problems()]

    def _own_warnings(self) -> list[Problem]:
        return [*self._conflist.problems(), *self._pool_problems]

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            defects: list[Problem] = []
            try:
                ready = self._look()
            except Exception as error:  # noqa: BLE001 - the thread must outlive any defect
                ready = False
                text = f"internal error: {type(error).__name__}: {error}"
                defects = [Problem("defect", text, type(error).__name__, level="error")]
            self._journal.report("network-ready defects", defects)
            pause = EAGER_SECONDS if time.monotonic() - self._began < EAGER_FOR else PATIENT_SECONDS
            self._wake.wait(LOOK_SECONDS if ready else pause)

    def _look(self) -> bool:
        if not self._readiness.stopping:
            self._conflist.install(may_write=self._readiness.no_address(fresh=True) is None)
        self._pool_problems = self._small_pool()
        why_not = self._readiness.not_ready()
        self._log(why_not)
        self._journal.report("warnings", self._own_warnings())
        return why_not is None

    def _log(self, why_not: Problem | None) -> None:
        if why_not is not None and time.monotonic() - self._began < STARTING_SECONDS:
            return
        if why_not is None and not self._logged:
            self._journal.write("info", READY)
        self._journal.report("readiness", [] if why_not is None else [why_not])
        self._logged = True

    def _small_pool(self) -> list[Problem]:
        expected = self._settings.expected_pods
        try:
            every = self._node.view.addresses() if expected else ()
        except IpamError:
            return []
        versions: Counter[int] = Counter(each.address.version for each in every)
        return checks.small_pool(
            {version: versions[version] for version in self._readiness.families}, expected
        )
