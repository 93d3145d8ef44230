"""``azvnet agent``: the resident process, from its start to its end.

Owns the order in which its parts start and stop, and the signals. What a part does is its own business:
the socket (``server``), the work that no call does (``background``), what it tells (``telling``).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
from collections.abc import Mapping

from cni_plugin.agent import systemd
from cni_plugin.agent.maintenance import Background
from cni_plugin.agent.server import Server
from cni_plugin.agent.settings import Settings, SettingsError, SettingsFile
from cni_plugin.agent.signals import Signals
from cni_plugin.agent.telling import Telling
from cni_plugin.kernel.deferred_delete import Unregistering
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.node import Node
from ipam.value import compile_constructors

LOOK_SECONDS = 2.0
"""Between two looks at the settings file and the socket."""
M_ARENA_MAX = -8
STOP_SECONDS = 20.0
"""For calls under way; below the 25 s that callers wait, and the 30 s that Kubernetes grants a pod."""

RUN_DIR_MODE = 0o700
"""Of the state directory: a kubelet that has to make it, for a pod's volume, makes it readable for all."""


def run(environ: Mapping[str, str], settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StateUnavailable, OSError: the state directory can't be used.
    """
    _keep_memory_small()
    compile_constructors()
    signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    node = Node(environ)
    node.background_reads = True
    node.deleter = Unregistering()
    with contextlib.suppress(OSError):
        node.known_host = KnownHost()
    node.ensure_run_dir()
    with contextlib.suppress(OSError):
        node.run_dir.chmod(RUN_DIR_MODE)
    background = Background(node, settings)
    telling = Telling(node, settings, background)
    server = Server(node, observe=telling.observe, heard=background.heard)
    telling.readiness.signs_of_life.append(server.why_not_alive)
    telling.serves = background.serves = server.in_place
    background.adopt()
    server.start()
    telling.start()
    background.start()
    # What is alive now lives as long as the process: the collector need not look at it again and again.
    gc.freeze()
    file = SettingsFile(settings)
    systemd.notify("READY=1")
    came: frozenset[int] = frozenset()
    while not came & {signal.SIGTERM, signal.SIGINT}:
        came = signals.wait(min(LOOK_SECONDS, systemd.watchdog_interval(environ) or LOOK_SECONDS))
        if server.restore():
            telling.say("warning", "agent.sock had been removed and was made anew")
        if signal.SIGHUP in came or file.changed():
            systemd.notify("RELOADING=1")
            _reload(file, background, telling)
            systemd.notify("READY=1")
        if not telling.readiness.why_not_alive():
            systemd.notify("WATCHDOG=1")
    systemd.notify("STOPPING=1")
    telling.stopping()
    finished = server.stop(STOP_SECONDS)
    background.stop()
    telling.stop()
    if finished:
        node.ipam.close()  # else the next process would have to recover its log
    return 0 if finished else 1


def _keep_memory_small() -> None:
    """One heap for all threads. By default glibc gives each its own (mallopt(3), M_ARENA_MAX), although the
    interpreter's lock lets hardly more than one allocate at a time. Other C libraries have no such function.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _reload(file: SettingsFile, background: Background, telling: Telling) -> None:
    """Go on with the settings as the file has them now; a file that is not valid changes nothing."""
    try:
        new = file.read()
    except SettingsError as error:
        telling.say("error", f"the settings are kept as they were: {error}")
        return
    background.use(new)
    telling.use(new)
    telling.say("info", "the settings were read again")
