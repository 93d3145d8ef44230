"""The agent's own work, which no single call can do: keep the pool fresh, reconcile, reclaim.

Owns when that happens, in one thread. Nothing here delays a call: whatever it waits for, calls use what is
known.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cni_plugin import checks, host
from cni_plugin.addresses import allocate, own_nic, recovery
from cni_plugin.agent.journal import Journal
from cni_plugin.agent.networks import Networks, SourceReader
from cni_plugin.agent.outbound import Outbound
from cni_plugin.agent.reconcile import Reconciler
from cni_plugin.agent.settings import Settings
from cni_plugin.checks import Problem, without_numbers
from cni_plugin.cni import errors
from cni_plugin.node import Node
from ipam.errors import IpamError, SourceEmpty, SourceUnreadable
from ipam.model import AddressRequest, SourceConfig
from ipam.value import replace

READ_SECONDS = 20.0
"""Seconds for one read of the source; no call waits for it."""
THOROUGH_EVERY = 6
"""Every so many looks everything is compared, whether links and routes have changed or not."""
PASSIVE_SECONDS = 1.0
"""Seconds between two checks whether another agent still has the socket."""
SILENT_SECONDS = 120.0
"""Longer than anything here may take: a thread without progress for so long is stuck."""


class Maintenance:
    """The agent's own work. ``wake`` is set when something has changed that needs work at once.

    ``serves``: whether callers find this agent. One that another has taken over from only finishes its calls:
    two that follow different configurations would undo each other's work.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        networks: Networks,
        reader: SourceReader,
        wake: threading.Event,
        serves: Callable[[], bool],
        journal: Journal,
    ) -> None:
        self._node = node
        self._settings = settings
        self._networks = networks
        self._wake = wake
        self._serves = serves
        self._journal = journal
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="maintenance", daemon=True)
        self._beat = time.monotonic()
        self._source_problems: list[Problem] = []
        self._host_problems: tuple[Problem, ...] = ()
        self._in_the_way: list[str] = []
        self._has_read = False
        self._pool_problems: list[Problem] = []
        self.reconciler = Reconciler(node, journal.write)
        self._outbound = Outbound(node.run_dir, lambda: reader.listings)

    @property
    def repairs(self) -> Mapping[str, int]:
        """Repairs by kind."""
        return dict(self.reconciler.repairs)

    @property
    def cooldown(self) -> float:
        """Seconds for which a released address is not given out again."""
        return self._networks.cooldown

    @property
    def why_no_listing(self) -> str:
        """Why this process has not read the source successfully yet; empty when it has."""
        if self._has_read:
            return ""
        found = next((each.text for each in self._source_problems), "")
        return found or "the source of addresses has not been read yet"

    def problems(self) -> list[Problem]:
        """What an operator should know of this node, though pods get addresses."""
        return [*self._host_problems, *self._pool_problems]

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, without waiting for a read in progress."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(2.0)

    def why_not_alive(self) -> str:
        """Why this process should be killed; empty when the work continues."""
        if self._thread.is_alive() and time.monotonic() - self._beat < SILENT_SECONDS:
            return ""
        return "the agent's background work has stopped"

    def use(self, settings: Settings) -> None:
        """Apply new settings."""
        self._settings = settings
        self._wake.set()

    def read_soon(self) -> None:
        """Read the sources, as soon as each may be read."""
        self._wake.set()

    def adopt(self) -> None:
        """Write what is alive to a new store, before the first call, so that none has to."""
        try:
            if self._node.ipam.needs_adoption():
                recovery.adopt(self._node)
        except (IpamError, OSError) as error:
            self._journal.write("error", f"cannot record the live endpoints in the store: {error}")

    def _loop(self) -> None:
        next_read = next_look = 0.0
        looks = 0
        while not self._stopped.is_set():
            self._beat = now = time.monotonic()
            if not self._serves():
                self._stopped.wait(PASSIVE_SECONDS)
                continue
            woken = self._wake.is_set()
            self._wake.clear()
            if now >= next_read or woken:
                self._guarded("read", self._read)
                next_read = time.monotonic() + self._until_next_read()
            if now >= next_look:
                thorough = looks % THOROUGH_EVERY == 0
                self._guarded("look", functools.partial(self._look, thorough=thorough))
                looks += 1
                next_look = time.monotonic() + self._settings.reconcile_seconds
            self._wake.wait(max(0.05, min(next_read, next_look) - time.monotonic()))
        self.reconciler.close()
        self._node.close()

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Run one piece of work; an error is logged, and the work is retried next time."""
        found: list[Problem] = []
        try:
            work()
        except (IpamError, errors.CniError, OSError) as error:
            found = [_problem(name, error, str(error))]
        except Exception as error:  # noqa: BLE001 - the thread must outlive any defect
            found = [_problem(name, error, f"internal error: {type(error).__name__}: {error}")]
        self._journal.report(f"maintenance {name}", found)

    def _read(self) -> None:
        ipam, states = self._node.ipam, []
        for config in self._sources():
            try:
                states.append(ipam.refresh(config, deadline=READ_SECONDS))
            except (SourceUnreadable, SourceEmpty):
                states.append(ipam.source_state(config))
            else:
                self._has_read = True
                self._check()
        self._source_problems = checks.source_problems(states, agent_runs=False)
        self._journal.report("source", self._source_problems)

    def _until_next_read(self) -> float:
        """Seconds; shorter while no address is known, since pods, and at boot the node, wait for one."""
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
        asked_for = self._networks.sources()
        known = {each.key: each for each in (*self._node.ipam.sources_in_use(), *asked_for)}
        if not known or (not asked_for and self._settings.source != "auto"):
            return [self._default_source()]
        return [replace(each, query_interval=min(each.query_interval, interval)) for each in known.values()]

    def replace_network(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """A network has another configuration (netconf) from now on: the source of the former one is not
        read for it any more. No call says so, since each comes with what the runtime finds.
        """
        if (sources := self._networks.replace(before, now)) is not None:
            with contextlib.suppress(IpamError):  # then it is still read, as if another network used it
                self._node.ipam.replace_source(*sources)

    def _default_source(self) -> SourceConfig:
        return SourceConfig(self._settings.source, self._settings.file, self._settings.refresh_seconds)

    def address_request(self) -> AddressRequest:
        """What the next pod will probably need: the same as the last one.

        Raises:
            UplinkUnclear: there is no such link.
        """
        if (netconf := self._networks.netconf) is not None:
            request = allocate.address_request(netconf, self._node)
            return replace(request, excluded=allocate.host_addresses(self._node, request.families))
        used = self._node.ipam.sources_in_use() if self._settings.source == "auto" else ()
        config = used[0] if used else self._default_source()
        return allocate.request_without_netconf(config, self._node)

    def _look(self, *, thorough: bool) -> None:
        self._keep_host(thorough=thorough)
        self.reconciler.look(thorough=thorough, grace=self._settings.reclaim_seconds)
        if thorough:
            self._check()

    def _check(self) -> None:
        """Compare the store's addresses with source and host."""
        addresses = self._node.ipam.addresses(self._networks.cooldown)
        sources = self._node.ipam.overview(self._networks.cooldown).sources
        on_host = allocate.host_addresses(self._node, allocate.versions_of(addresses))
        self._pool_problems = checks.pool_addresses(addresses, on_host, sources)
        self._journal.report("maintenance", self.problems())

    def _keep_host(self, *, thorough: bool) -> None:
        """Ensure the host's state; a kind that fails does not stop the others."""
        problems: list[str] = []
        try:
            problems += self._outbound.decide(self._settings.outbound, thorough=thorough)
        except OSError as error:
            problems.append(f"cannot decide which packets to masquerade: {error}")
        problems += own_nic.review(self._node)
        for state in host.STATES:
            try:
                made = state.ensure(self._node)
            except (errors.CniError, OSError) as error:
                problems.append(str(error))
                continue
            if made:
                self.reconciler.repairs[state.KIND] += 1
                self._journal.write("warning", made)
        if thorough:
            self._in_the_way = host.check(self._node)
        problems += self._in_the_way
        self._host_problems = tuple(
            Problem(checks.HOST, each, without_numbers(each), level="error") for each in problems
        )
        self._journal.report("maintenance", self.problems())


def _problem(kind: str, error: BaseException, text: str) -> Problem:
    return Problem(kind, text, f"{type(error).__name__} {without_numbers(str(error))}", level="error")
