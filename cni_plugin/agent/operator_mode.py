"""``provision.mode: operator``: the agent reports to the cluster's operator, and follows its decisions.

Owns the two threads that read and write the node's resource, and the pauses after failures. What is
reported and how the agent reacts is up to ``ipam.provision.follower``. It must not know that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cni_plugin.agent import cluster_access
from cni_plugin.agent.provision_thread import ProvisionThread, StoppedError
from ipam.errors import SourceUnreadable
from ipam.provision import exchange, pace
from ipam.provision.api_client import Outdated, Trouble
from ipam.provision.apiserver import ApiServer
from ipam.provision.fields import FieldError
from ipam.provision.follower import Follower
from ipam.provision.machine import this_machine
from ipam.provision.progress import API_REFUSED, NO_API, Progress
from ipam.provision.refusals import Kind
from ipam.value import replace

if TYPE_CHECKING:
    from cni_plugin.agent.requests_made import RequestsMade
    from cni_plugin.agent.settings import Settings
    from cni_plugin.node import Node
    from ipam.provision.exchange import AzvnetNode, Machine, NodeSpec

LONGEST_PAUSE = 60.0
BETWEEN_WATCHES = 1.0
MACHINE_SECONDS = 60.0
"""Between two looks which NIC pods leave by, and what machine this is where IMDS did not say."""


class OperatorModeThread(ProvisionThread):
    """One life of the mode."""

    def __init__(
        self, environ: Mapping[str, str], node: Node, settings: Settings, requests: RequestsMade, *more: Any
    ) -> None:
        super().__init__(node, *more)
        wanted = settings.provision
        assert wanted is not None
        self._wanted = wanted
        self._access = cluster_access.access(environ, wanted)
        self._name = cluster_access.node_name(environ, wanted)
        self._count = requests.api
        self._resource = Resource()
        self._writing = Attempts()
        self._reading = Attempts()
        self._follower: Follower | None = None
        self._machine: Machine | None = None
        self._machine_at = 0.0
        self._progress = Progress()
        self._watcher = threading.Thread(target=self._watch, name="provision watch", daemon=True)
        self._api = ApiServer(self._access, self._name, self._count)

    @property
    def progress(self) -> Progress:
        """What is being done."""
        return self._progress

    @property
    def latest(self) -> Progress:
        """The same, with what failed a moment ago."""
        trouble = self._writing.trouble or self._reading.trouble
        return self._progress if trouble is None or self._progress.is_problem else _told(trouble)

    def start(self) -> None:
        """Begin."""
        super().start()
        self._watcher.start()

    def stop(self) -> None:
        """Stop. A watch ends with the next that it is told."""
        super().stop()
        self._api.close()

    def _step(self) -> None:
        follower = self._following()
        if follower is None:
            return
        known = self._resource.known
        may_write = known is not None and self._writing.is_due
        spec = follower.step(self._resource.node, self._lasting_trouble(), may_write=may_write)
        self._progress = follower.progress
        if spec is not None:
            self._write(follower, spec)

    def _lasting_trouble(self) -> Progress | None:
        for each in (self._writing, self._reading):
            if each.trouble is not None and (each.lasts or each.trouble.phase != NO_API):
                return _told(each.trouble)
        return None

    def _following(self) -> Follower | None:
        """What follows the resource; replaced when pods' packets leave by another NIC."""
        now = time.monotonic()
        if self._follower is not None and now - self._machine_at < MACHINE_SECONDS:
            return self._follower
        mac = self.nic_mac()
        self._machine_at = now
        if self._machine is None:
            try:
                self._machine = this_machine(mac)
            except SourceUnreadable as error:
                self._progress = Progress(Kind.UNREACHABLE.value, str(error), error.remedy)
                return None
        elif not mac or mac == self._machine.mac:
            return self._follower
        self._machine = replace(self._machine, mac=mac)
        wanted = self._wanted
        spec = exchange.NodeSpec(
            machine=self._machine, sizes=wanted.sizes, subnet=wanted.subnet, dry_run=wanted.dry_run
        )
        self._follower = Follower(self._node.ipam, self, time.time, spec)
        return self._follower

    def _write(self, follower: Follower, spec: NodeSpec) -> None:
        before = self._resource.node
        version = "" if before is None else before.resource_version
        try:
            said = _read(self._api.write(exchange.with_spec(self._name, spec, version)))
        except Outdated:
            self._read_again()
        except Trouble as trouble:
            self._writing.failed(trouble)
        else:
            self._writing.succeeded()
            self._resource.take(said)
            follower.wrote(said)

    def _read_again(self) -> None:
        """Somebody else has written: the newest has to be known before the next attempt."""
        try:
            document, _ = self._api.read()
            self._resource.replace(None if document is None else _read(document))
        except Trouble as trouble:
            self._writing.failed(trouble)
        else:
            self.wake.set()

    # What the operator writes, as soon as it does

    def _watch(self) -> None:
        api = ApiServer(self._access, self._name, self._count)
        while not self._stopped.is_set():
            try:
                if self._serves():
                    self._follow_resource(api)
                self._wait(BETWEEN_WATCHES)
            except Outdated:
                continue
            except Trouble as trouble:
                self._reading.failed(trouble)
                self._stopped.wait(self._reading.pause)
            except StoppedError:
                break
        api.close()

    def _follow_resource(self, api: ApiServer) -> None:
        document, version = api.read()
        self._take(document)
        while self._serves():
            for told, at in api.watch(version):
                self._take(told)
                version = at or version
                if self._stopped.is_set():
                    raise StoppedError
            self._wait(BETWEEN_WATCHES)

    def _take(self, document: dict[str, Any] | None) -> None:
        node = None if document is None else _read(document)
        self._reading.succeeded()
        if self._resource.take(node):
            self.wake.set()


class Resource:
    """The node's resource as it was read or written last. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._node: AzvnetNode | None = None
        self.known: bool | None = None
        """Whether there is one; None: it was not read yet."""

    @property
    def node(self) -> AzvnetNode | None:
        """None: there is none, or it was not read yet."""
        return self._node

    def take(self, node: AzvnetNode | None) -> bool:
        """What was told, unless something newer is known; whether it says anything new."""
        with self._lock:
            before = self._node
            if before is not None and node is not None and node.is_older_than(before):
                return False
            self._node, known = node, self.known
            self.known = node is not None
            return node != before or known is None

    def replace(self, node: AzvnetNode | None) -> None:
        """What was read just now."""
        with self._lock:
            self._node, self.known = node, node is not None


class Attempts:
    """Requests that fail: since when, why, and when the next one is due. Written by one thread."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.pause = 0.0
        """Seconds."""
        self._failures = 0
        self._since = self._at = 0.0

    @property
    def lasts(self) -> bool:
        """Whether they fail for so long that it is a problem."""
        return self.trouble is not None and time.monotonic() - self._since >= cluster_access.LASTING_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether the pause is over."""
        return self.trouble is None or time.monotonic() - self._at >= self.pause

    def succeeded(self) -> None:
        """The last request was answered."""
        self.trouble, self._failures = None, 0

    def failed(self, trouble: Trouble) -> None:
        """It was not."""
        self._at = time.monotonic()
        if self.trouble is None:
            self._since = self._at
        self._failures += 1
        chance = pace.chance()
        usual = pace.pause(self._failures, 0.0, chance)
        self.pause = max(min(LONGEST_PAUSE, usual), trouble.retry_after * (1 + chance / 4))
        self.trouble = trouble


def _read(document: dict[str, Any]) -> AzvnetNode:
    try:
        return exchange.read(document)
    except FieldError as error:
        raise Trouble(
            API_REFUSED,
            f"the node's resource can't be read: {error}",
            "The operator does not have the agent's version: upgrade the chart.",
        ) from error


def _told(trouble: Trouble) -> Progress:
    return Progress(trouble.phase, str(trouble), trouble.remedy)
