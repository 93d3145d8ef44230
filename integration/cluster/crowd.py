"""So many pods on one node at once, and when each of them was scheduled and Ready.

Owns creating and deleting them and the moments, as a watch of the API server sees them: the conditions
of a pod are written with whole seconds only. Must not know what the moments are compared with.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration.cluster.program import ClusterError
from integration.containerd import PAUSE_IMAGE

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from integration.cluster.api import Api, Object

_LABEL = "azvnet.test/crowd"
_CONDITIONS = {"PodScheduled": "scheduled", "Ready": "ready"}
"""A pod's conditions, and what their moments are called here."""
_SHOWN = 10


@dataclass(slots=True)
class Member:
    """One pod; ``moments`` are those of ``time.monotonic`` at which it was first seen so."""

    name: str
    address: str = ""
    moments: dict[str, float] = field(default_factory=dict)
    """``scheduled``, ``ready``, ``gone``."""

    def seconds(self, begin: str, end: str) -> float:
        """From one moment to another."""
        return self.moments[end] - self.moments[begin]


class Crowd:
    """Pods of one container that does nothing; a context manager that deletes them in the end.

    Args:
        api: of the cluster.
        node: where the scheduler puts them.
        number: how many.
        namespace: of the pods.
    """

    def __init__(self, api: Api, node: str, number: int, *, namespace: str = "default") -> None:
        self.node = node
        self.members = {f"{node}-{index}": Member(f"{node}-{index}") for index in range(number)}
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._selector = f"{_LABEL}={node}"
        self._changed = threading.Condition()
        self._watch = api.watch(self._path, self._told, labelSelector=self._selector)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not all("gone" in each.moments for each in self.members.values()):
                self._api.delete(self._path, labelSelector=self._selector)
        finally:
            self._watch.__exit__(kind, error, trace)

    def come(self, *, patience: float = 180.0) -> float:
        """Create all, and wait until all are Ready; returns the seconds it took.

        Raises:
            ClusterError: some are not in time; the message says how far they came.
        """
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(self._api.create, self._path, self._pod(n)) for n in self.members]:
                done.result()
        self._await("ready", patience)
        return time.monotonic() - started

    def go(self, *, patience: float = 180.0) -> float:
        """Delete all, and wait until the kubelet has taken all away; returns the seconds it took.

        Raises:
            ClusterError: some are still there.
        """
        started = time.monotonic()
        self._api.delete(self._path, labelSelector=self._selector)
        self._await("gone", patience)
        return time.monotonic() - started

    def _pod(self, name: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {_LABEL: self.node}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self.node},
                "terminationGracePeriodSeconds": 5,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "containers": [{"name": "main", "image": PAUSE_IMAGE}],
            },
        }

    def _told(self, at: float, change: str, pod: Object) -> None:
        member = self.members.get(pod["metadata"]["name"])
        if member is None:
            return
        reached = [c["type"] for c in pod["status"].get("conditions", ()) if c["status"] == "True"]
        with self._changed:
            member.address = pod["status"].get("podIP", member.address)
            for name in (_CONDITIONS[each] for each in reached if each in _CONDITIONS):
                member.moments.setdefault(name, at)
            if change == "DELETED":
                member.moments["gone"] = at
            self._changed.notify_all()

    def _await(self, moment: str, patience: float) -> None:
        with self._changed:
            if self._changed.wait_for(lambda: not self._without(moment), patience):
                return
            late = self._without(moment)
        reached = [f"{each.name}: {', '.join(each.moments) or 'nothing'}" for each in late[:_SHOWN]]
        said = "\n".join([*reached, *self._warnings()])
        raise ClusterError(
            f"{len(late)} of {len(self.members)} pods not {moment} in {patience:.0f} s\n{said}"
        )

    def _without(self, moment: str) -> list[Member]:
        return [each for each in self.members.values() if moment not in each.moments]

    def _warnings(self) -> list[str]:
        events: list[Object] = []
        with contextlib.suppress(Exception):  # the failure itself is worth more than its story
            path = self._path.removesuffix("pods") + "events"
            events = self._api.get(path, fieldSelector="type=Warning")["items"]
        return [f"{e['involvedObject']['name']}: {e['reason']}: {e['message']}" for e in events[-_SHOWN:]]
