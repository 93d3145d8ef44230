"""A storm of pods: on every node some come and go without a pause, made by the kubelet like any other.

Owns the callers and that every pod becomes Ready. Must not know what else happens meanwhile.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from integration.cluster.api import ApiError
from integration.containerd import PAUSE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType
    from typing import Self

    from integration.cluster.api import Api, Object

PATIENCE = 60.0
"""Seconds for a pod to become Ready, or to go; a kubelet tries again for longer, and says so in an event."""


def idle_pod(name: str, node: str, **labels: str) -> Object:
    """A pod on a node that does nothing, and ends at once when it is told to."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [{"name": "main", "image": PAUSE_IMAGE}],
        },
    }


class Storm:
    """A context manager: it blows inside the block, and its pods are gone afterwards."""

    def __init__(self, api: Api, namespace: str, nodes: Collection[str], *, callers: int = 2) -> None:
        self.failures: list[str] = []
        """What went wrong, for people."""
        self.made: Counter[str] = Counter(dict.fromkeys(nodes, 0))
        """How many pods of each node became Ready."""
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._seen: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._blow, args=(node, f"storm-{node}-{number}"))
            for node in nodes
            for number in range(callers)
        ]
        self._watch = api.watch(self._path, self._told, labelSelector="app=storm")

    def __enter__(self) -> Self:
        self._watch.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        try:
            self._api.delete(self._path, labelSelector="app=storm")
            with self._changed:
                if not self._changed.wait_for(lambda: not self._there(), PATIENCE):
                    self.failures.append(f"pods that don't go: {', '.join(self._there())}")
        finally:
            self._watch.__exit__(kind, error, trace)

    def await_more(self, pods: int = 2) -> None:
        """Wait until on every node so many more have become Ready, or something failed."""
        with self._changed:
            wanted = {node: self.made[node] + pods for node in self.made}
            self._changed.wait_for(
                lambda: bool(self.failures) or all(self.made[n] >= w for n, w in wanted.items()), PATIENCE
            )

    def _blow(self, node: str, prefix: str) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            name = f"{prefix}-{number}"
            try:
                self._api.create(self._path, idle_pod(name, node, app="storm"))
                self._await_ready(name, node)
                self._api.delete(f"{self._path}/{name}")
            except ApiError as error:
                self.failures.append(f"{name}: {error}")
                self._over.wait(0.5)

    def _await_ready(self, name: str, node: str) -> None:
        with self._changed:
            ready = self._changed.wait_for(lambda: self._seen.get(name) == "Ready", PATIENCE)
            self.made[node] += ready
            if not ready:
                seen = self._seen.get(name, "never seen")
                self.failures.append(f"{name} not Ready in {PATIENCE:.0f} s: {seen}")
            self._changed.notify_all()

    def _told(self, _at: float, change: str, pod: Object) -> None:
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
        )
        with self._changed:
            if change == "DELETED":
                state = "gone"
            elif ready:
                state = "Ready"
            else:
                state = str(pod["status"].get("phase"))
            self._seen[pod["metadata"]["name"]] = state
            self._changed.notify_all()

    def _there(self) -> list[str]:
        return [name for name, state in self._seen.items() if state != "gone"]
