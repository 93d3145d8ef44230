"""What no single call can do: keep the pool fresh, reconcile, reclaim.

Owns when that happens, in one thread. Nothing here is in the way of a call: whatever it waits for, calls go
on with what is known.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cni_plugin import host
from cni_plugin.addresses import allocate, recovery
from cni_plugin.agent.reconcile import Reconciler, Say
from cni_plugin.agent.settings import Settings
from cni_plugin.cni import errors, netconf
from cni_plugin.cni.netconf import NetConf
from cni_plugin.node import Node
from ipam import sources
from ipam.errors import IpamError, SourceEmpty, SourceUnreadable
from ipam.model import DEFAULT_COOLDOWN_SECONDS, AddressRequest, SourceConfig
from ipam.value import replace

READ_SECONDS = 20.0
"""How long one read of the source may take; nobody waits for it."""
THOROUGH_EVERY = 6
"""Every so many looks everything is compared, whether links and routes have changed or not."""
PASSIVE_SECONDS = 1.0
"""Between two looks whether another agent has taken over still."""
FORGOTTEN_AFTER = 86400.0
"""Seconds after which a source that no call came with any more is not read any more."""
SILENT_SECONDS = 120.0
"""Longer than anything here may take: a thread that was not heard of for so long is stuck."""


class Background:
    """The agent's own work.

    Args:
        node: the node.
        settings: the operator's.
    """

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self._netconf: NetConf | None = None
        self._asked_for: dict[str, tuple[SourceConfig, float]] = {}
        self._heard_last: object = None
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="background", daemon=True)
        self._beat = time.monotonic()
        self._source_errors: dict[str, str] = {}
        self._host_problems: tuple[str, ...] = ()
        self._in_the_way: list[str] = []
        self._has_read = False
        self.say: Say = _silent
        self.serves: Callable[[], bool] = lambda: True
        """Whether callers find this agent. One that another has taken over from only finishes its calls:
        two that follow different configurations would undo each other's work.
        """
        self.reconciler = Reconciler(node, self._say)
        self._use_arm(settings)

    @property
    def repairs(self) -> Mapping[str, int]:
        """How often each kind of thing was put back."""
        return dict(self.reconciler.repairs)

    @property
    def cooldown(self) -> float:
        """Seconds an address rests, as the calls' netconf says."""
        return self._netconf.our_ipam().cooldown if self._netconf else DEFAULT_COOLDOWN_SECONDS

    @property
    def why_no_listing(self) -> str:
        """Why this process has not read the source with success yet; empty when it has."""
        if self._has_read:
            return ""
        return next(iter(self._source_errors.values()), "") or "the source of addresses was not read yet"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know of this node."""
        return self._host_problems

    def netconf(self) -> NetConf | None:
        """The last configuration a call came with that uses our IPAM."""
        return self._netconf

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a read that is under way is not waited for."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(2.0)

    def why_not_alive(self) -> str:
        """Why this process should be killed; empty when the work goes on."""
        if self._thread.is_alive() and time.monotonic() - self._beat < SILENT_SECONDS:
            return ""
        return "the agent's background work has stopped"

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        self._use_arm(settings)
        self._wake.set()

    def _use_arm(self, settings: Settings) -> None:
        """From here on this process may read the source ``arm``; only the agent imports what that needs."""
        self._node.ipam.reader = functools.partial(sources.read, arm=settings.arm)

    def heard(self, document: dict[str, Any]) -> None:
        """A call came with this configuration: it says where addresses come from."""
        told = (document.get("ipam"), document.get("master"))
        if (
            told == self._heard_last
            or not isinstance(told[0], dict)
            or told[0].get("type") != netconf.OUR_IPAM
        ):
            return
        try:
            conf = netconf.parse_netconf({**document, "prevResult": None}, lenient=True)
            conf.our_ipam()
        except errors.CniError:
            return
        self._heard_last, self._netconf = told, conf
        config = allocate.source_config(conf)
        self._asked_for = {**self._asked_for, config.key: (config, time.monotonic())}
        self._wake.set()

    def adopt(self) -> None:
        """Tell a new store what is alive; before the first call, so that none has to."""
        try:
            if self._node.ipam.needs_adoption():
                recovery.adopt(self._node)
        except (IpamError, OSError) as error:
            self._say("error", f"what is alive can't be written to the store: {error}")

    def _say(self, level: str, text: str, **fields: Any) -> None:
        self.say(level, text, **fields)

    def _loop(self) -> None:
        next_read = next_look = 0.0
        looks = 0
        while not self._stopped.is_set():
            self._beat = now = time.monotonic()
            if not self.serves():
                self._stopped.wait(PASSIVE_SECONDS)
                continue
            woken = self._wake.is_set()
            self._wake.clear()
            if now >= next_read or woken:
                self._guarded(self._read)
                next_read = time.monotonic() + self._until_next_read()
            if now >= next_look:
                thorough = looks % THOROUGH_EVERY == 0
                self._guarded(lambda thorough=thorough: self._look(thorough=thorough))
                looks += 1
                next_look = time.monotonic() + self._settings.reconcile_seconds
            self._wake.wait(max(0.05, min(next_read, next_look) - time.monotonic()))
        self.reconciler.close()
        self._node.close()

    def _guarded(self, work: Any) -> None:
        """One piece of work; whatever is wrong with it is said, and tried again next time."""
        try:
            work()
        except (IpamError, errors.CniError, OSError) as error:
            self._say("error", str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive any defect
            self._say("error", f"internal error: {type(error).__name__}: {error}")

    def _read(self) -> None:
        for config in self._sources():
            self._read_one(config)

    def _read_one(self, config: SourceConfig) -> None:
        before = self._source_errors.get(config.key, "")
        try:
            self._node.ipam.refresh(config, deadline=READ_SECONDS)
        except (SourceUnreadable, SourceEmpty) as error:
            if str(error) != before:  # once for each kind of trouble, not every half minute
                self._say("error", str(error), remedy=error.remedy)
            self._source_errors[config.key] = str(error)
        else:
            if before:
                self._say("info", "the source of addresses is readable again")
            self._source_errors.pop(config.key, None)
            self._has_read = True

    def _until_next_read(self) -> float:
        """Sooner than usual while nothing is known: pods wait for it, and at boot the node itself."""
        usual = self._settings.refresh_seconds
        try:
            states = [self._node.ipam.source_state(config) for config in self._sources()]
        except IpamError:
            return usual
        return min([usual, *(state.retry_in for state in states if state.success_age is None)])

    def _sources(self) -> list[SourceConfig]:
        """Every source that some network of the node uses: those that calls came with, and those that were
        asked before this agent was started. Where there is none, what the settings say.
        """
        interval = self._settings.refresh_seconds
        known = {each.key: each for each in self._node.ipam.sources_in_use()}
        known |= {
            config.key: config
            for config, at in self._asked_for.values()
            if time.monotonic() - at < FORGOTTEN_AFTER
        }
        if not known or (not self._asked_for and self._settings.source != "auto"):
            return [self._default_source()]
        return [replace(each, query_interval=min(each.query_interval, interval)) for each in known.values()]

    def _default_source(self) -> SourceConfig:
        return SourceConfig(self._settings.source, self._settings.file, self._settings.refresh_seconds)

    def address_request(self) -> AddressRequest:
        """What the next pod will need, as far as it is known: what the last one asked for.

        Raises:
            UplinkUnclear: there is no such link.
        """
        if self._netconf is not None:
            request = allocate.address_request(self._netconf, self._node)
            return replace(request, excluded=allocate.host_addresses(self._node))
        used = self._node.ipam.sources_in_use() if self._settings.source == "auto" else ()
        config = used[0] if used else self._default_source()
        return allocate.request_without_netconf(config, self._node)

    def _look(self, *, thorough: bool) -> None:
        self._keep_host(thorough=thorough)
        self.reconciler.look(thorough=thorough, grace=self._settings.reclaim_seconds)

    def _keep_host(self, *, thorough: bool) -> None:
        """What can't be made is no reason to leave everything else alone."""
        problems: list[str] = []
        for state in host.STATES:
            try:
                made = state.ensure(self._node.run_dir)
            except (errors.CniError, OSError) as error:
                problems.append(str(error))
                continue
            if made:
                self.reconciler.repairs[state.KIND] += 1
                self._say("warning", made)
        if thorough:
            self._in_the_way = host.check(self._node.host)
        problems += self._in_the_way
        for each in problems:
            if each not in self._host_problems:
                self._say("error", each)
        self._host_problems = tuple(problems)


def _silent(level: str, text: str, **fields: Any) -> None:
    """Until somebody listens."""
