"""``azvnet agent``: the resident process, from start to end.

Owns the parts, the order in which they start and stop, and the signals. What a part does is up to it: the
socket (``server``), the work that no call does (``maintenance``), the pages (``pages``),
whether the node is ready (``network_ready``).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import threading
from collections.abc import Mapping

from cni_plugin.agent import metrics, systemd
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.maintenance import Maintenance
from cni_plugin.agent.metrics import CallMetrics, Exposition, NodeCollector
from cni_plugin.agent.network_ready import InstalledConflist, NetworkReady
from cni_plugin.agent.networks import Networks, SourceReader
from cni_plugin.agent.pages import Pages
from cni_plugin.agent.provisioning import Provisioning
from cni_plugin.agent.readiness import Readiness
from cni_plugin.agent.server import Server
from cni_plugin.agent.settings import Settings, SettingsFile
from cni_plugin.agent.signals import Signals
from cni_plugin.checks import Problem
from cni_plugin.kernel.deferred_delete import Unregistering
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.node import Node
from ipam.settings_file import SettingsError
from ipam.value import compile_constructors

LOOK_SECONDS = 2.0
"""Seconds between two checks of the settings file and the sockets."""
M_ARENA_MAX = -8
STOP_SECONDS = 20.0
"""For calls under way; below the 25 s that callers wait, and the 30 s that Kubernetes grants a pod."""

RUN_DIR_MODE = 0o700
"""Of the state directory: a kubelet that creates it, for a pod's volume, makes it readable for all."""


def run(environ: Mapping[str, str], settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        SettingsError: ``metrics_address`` is not an address and a port.
        StoreFailed, OSError: the state directory can't be used.
    """
    _keep_memory_small()
    compile_constructors()
    signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    agent = Agent(environ, settings)
    agent.start()
    # What exists now lives as long as the process: the collector can skip it.
    gc.freeze()
    systemd.notify("READY=1")
    came: frozenset[int] = frozenset()
    while not came & {signal.SIGTERM, signal.SIGINT}:
        came = signals.wait(min(LOOK_SECONDS, systemd.watchdog_interval(environ) or LOOK_SECONDS))
        agent.look(reload=signal.SIGHUP in came)
    systemd.notify("STOPPING=1")
    return 0 if agent.stop() else 1


class Agent:
    """The parts of the agent."""

    def __init__(self, environ: Mapping[str, str], settings: Settings) -> None:
        self._file = SettingsFile(settings)
        self._journal = Journal(settings)
        self._reader = SourceReader(settings)
        self._node = _node(environ, self._reader)
        wake = threading.Event()
        networks = Networks(wake)
        registry = metrics.new_registry()
        self._server = Server(self._node, CallMetrics(registry).observe, networks.note)
        self._maintenance = Maintenance(
            self._node, settings, networks, self._reader, wake, self._server.in_place, self._journal
        )
        conflist = InstalledConflist(
            settings,
            networks.note,
            self._maintenance.replace_network,
            self._server.in_place,
            self._journal,
        )
        self._readiness = Readiness(
            self._node,
            self._maintenance,
            lambda: conflist.why_not,
            (self._maintenance.why_not_alive, self._server.why_not_alive),
        )
        self._provisioning = Provisioning(
            environ,
            self._node,
            settings,
            self._maintenance,
            self._maintenance.read_soon,
            self._server.in_place,
            self._journal,
        )
        self._network_ready = NetworkReady(
            self._node, settings, self._readiness, conflist, self._problems, self._journal
        )
        warnings = self._network_ready.warnings
        NodeCollector(
            registry,
            self._node,
            self._maintenance,
            lambda: self._readiness.last,
            warnings,
            lambda: self._provisioning.progress,
            self._provisioning.requests.counted,
        )
        self._pages = Pages(
            self._node,
            settings,
            Exposition(registry).encode,
            self._readiness,
            warnings,
            self._journal,
            lambda: self._provisioning.progress,
        )

    def _problems(self) -> list[Problem]:
        return [*self._maintenance.problems(), *self._provisioning.problems()]

    def start(self) -> None:
        """Start serving. Raises StoreFailed, OSError: the state directory can't be used."""
        self._node.ensure_run_dir()
        with contextlib.suppress(OSError):
            self._node.run_dir.chmod(RUN_DIR_MODE)
        self._maintenance.adopt()
        self._server.start()
        self._pages.listen()
        self._network_ready.start()
        self._maintenance.start()
        self._provisioning.start()

    def look(self, *, reload: bool) -> None:
        """Check the sockets and the settings file, and feed the watchdog; called every few seconds."""
        if self._server.restore():
            self._journal.write("warning", "agent.sock had been removed and was recreated")
        self._pages.listen()
        if reload or self._file.changed():
            systemd.notify("RELOADING=1")
            self._reload()
            systemd.notify("READY=1")
        if not self._readiness.why_not_alive():
            systemd.notify("WATCHDOG=1")

    def stop(self) -> bool:
        """Finish the calls in progress, and stop; whether they finished in time."""
        self._readiness.stopping = True
        self._provisioning.stop()
        finished = self._server.stop(STOP_SECONDS)
        self._maintenance.stop()
        self._network_ready.stop()
        self._pages.stop()
        if finished:
            self._node.ipam.close()  # otherwise the next process has to recover its log
        return finished

    def _reload(self) -> None:
        """Reload the settings file; an invalid one changes nothing."""
        try:
            settings = self._file.read()
        except SettingsError as error:
            self._journal.write("error", f"the settings are unchanged: {error}")
            return
        parts = (self._journal, self._reader, self._maintenance, self._network_ready, self._pages)
        for part in (*parts, self._provisioning):
            part.use(settings)
        self._journal.write("info", "the settings were reloaded")


def _node(environ: Mapping[str, str], reader: SourceReader) -> Node:
    """The node, with what only a resident process has."""
    known_host = None
    with contextlib.suppress(OSError):
        known_host = KnownHost()
    return Node(
        environ,
        reader=reader,
        background_reads=True,
        deleter=Unregistering(),
        known_host=known_host,
    )


def _keep_memory_small() -> None:
    """One heap for all threads. By default glibc gives each its own (mallopt(3), M_ARENA_MAX), although the
    GIL hardly lets more than one allocate at a time. Other C libraries have no such function.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
