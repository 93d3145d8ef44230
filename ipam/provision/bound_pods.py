"""Pods that are bound to nodes: how many have no address yet, and how fast they come. Pure but for a lock.

The operator counts those of all nodes with it, an agent those of its own; next to nothing is kept of each. It
must not know how they are listed, nor what follows from their number.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ipam.provision.demand import WINDOW
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Json = dict[str, Any]

NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector of pods that have an address, or shall have one."""
_READ_HERE = {
    "metadata": ("uid", "deletionTimestamp"),
    "spec": ("nodeName", "hostNetwork"),
    "status": ("phase", "podIP"),
}


def cut_down(document: Json) -> Json:
    """What ``BoundPods`` reads of a pod, without the rest, which is a thousand times as much."""
    return {
        part: {name: there[name] for name in names if name in there}
        for part, names in _READ_HERE.items()
        if isinstance(there := document.get(part), dict)
    }


class PodSeen(Value):
    """One pod that is bound to a node, as far as it concerns anybody here."""

    uid: str
    node: str
    """Empty: it needs no address of its own, or not any more."""
    is_coming: bool
    """It has no address yet, and shall have one."""


class BoundPods:
    """``watching.Sink``: how many pods of each node have no address yet.

    ``moved`` is told the node of a pod that came, was given its address, or went. A pod that is being deleted
    has its address until its containers have ended, and what has ended has none.
    """

    def __init__(self, moved: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._moved = moved
        self._clock = clock
        self._lock = threading.Lock()
        self._pods: dict[str, PodSeen] = {}
        self._bound: dict[str, int] = {}
        self._coming: dict[str, int] = {}
        self._came: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def brief(self, document: Json) -> PodSeen:
        """See there."""
        metadata, spec, status = (
            document["metadata"],
            document.get("spec") or {},
            document.get("status") or {},
        )
        uid = str(metadata["uid"])
        if spec.get("hostNetwork") or status.get("phase") in {"Succeeded", "Failed"}:
            return PodSeen(uid, "", is_coming=False)
        has_one = bool(status.get("podIP")) or "deletionTimestamp" in metadata
        return PodSeen(uid, str(spec.get("nodeName") or ""), is_coming=not has_one)

    def reset(self, objects: Iterable[PodSeen]) -> None:
        """See there. When they came is not known."""
        with self._lock:
            touched = {each.node for each in self._pods.values()}
            self._pods.clear()
            self._bound.clear()
            self._coming.clear()
            for each in objects:
                self._add(each)
                touched.add(each.node)
        for node in touched - {""}:
            self._moved(node)

    def changed(self, each: PodSeen) -> None:
        """See there."""
        with self._lock:
            before = self._remove(each.uid)
            if before == each:
                self._add(each)
                return
            if before is None and each.is_coming:
                self._came.setdefault(each.node, deque()).append(self._clock())
            self._add(each)
        for node in {each.node, before.node if before else ""} - {""}:
            self._moved(node)

    def deleted(self, each: PodSeen) -> None:
        """See there."""
        with self._lock:
            before = self._remove(each.uid)
        if before is not None:
            self._moved(before.node)

    def coming(self, node: str, held: int) -> int:
        """Pods of the node that shall have an address and have none.

        ``held``: addresses that pods there hold. A pod has its address a moment before its status says so,
        and what is held is not asked for again.
        """
        with self._lock:
            return min(self._coming.get(node, 0), max(0, self._bound.get(node, 0) - held))

    def per_second(self, node: str) -> float:
        """Pods that were bound to the node in the last minute, for each second."""
        with self._lock:
            came = self._came.get(node)
            if came is None:
                return 0.0
            now = self._clock()
            while came and came[0] < now - WINDOW:
                came.popleft()
            if not came:
                del self._came[node]
            return len(came) / WINDOW

    def _add(self, each: PodSeen) -> None:
        if each.node:
            self._pods[each.uid] = each
            self._bound[each.node] = self._bound.get(each.node, 0) + 1
            self._coming[each.node] = self._coming.get(each.node, 0) + each.is_coming

    def _remove(self, uid: str) -> PodSeen | None:
        before = self._pods.pop(uid, None)
        if before is not None:
            self._bound[before.node] -= 1
            self._coming[before.node] -= before.is_coming
            if not self._bound[before.node]:
                del self._bound[before.node], self._coming[before.node]
        return before
