"""An API server in this process, for several operators: versions, conflicts, lists, watches, a Lease."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

from ipam.operator.errors import ClusterError, Conflict, Expired, NotThere
from ipam.operator.leader import LeaseConflict, LeaseRecord, LeaseUnavailable
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipam.operator.settings import LeaseSettings

Json = dict[str, Any]
PAGE = 3


class ApiServer:
    """``cluster.ClusterApi``, as far as the operator uses it; each operator has one ``View`` of it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0
        """Watches from before this version are refused (410)."""
        self.objects: dict[str, dict[str, Json]] = {"AzvnetNodes": {}, "Nodes": {}, "Pods": {}}
        self.history: list[tuple[int, str, str, Json]] = []
        self.lease: LeaseRecord | None = None
        self.events: list[tuple[str, str, str]] = []
        self.status_writes = 0
        self.before_status: list[Callable[[], object]] = []
        """What happens just before the next write of a status arrives."""

    def put(self, kind: str, name: str, document: Json) -> Json:
        """Create or replace an object."""
        with self.changed:
            self.version += 1
            there = self.objects[kind].get(name)
            made = copy.deepcopy(document)
            uid = there["metadata"]["uid"] if there else f"uid-{name}-{self.version}"
            made["metadata"] = {
                "name": name,
                "uid": uid,
                **made.get("metadata", {}),
                "resourceVersion": str(self.version),
            }
            self.objects[kind][name] = made
            self._tell("MODIFIED" if there else "ADDED", kind, made)
            return copy.deepcopy(made)

    def remove(self, kind: str, name: str) -> None:
        with self.changed:
            gone = self.objects[kind].pop(name, None)
            if gone is not None:
                self.version += 1
                gone["metadata"]["resourceVersion"] = str(self.version)
                self._tell("DELETED", kind, gone)

    def write_spec(self, name: str, spec: Json) -> Json:
        """As an agent does: the generation rises."""
        with self.changed:
            there = self.objects["AzvnetNodes"].get(name) or {"metadata": {"generation": 0}}
            metadata = {**there["metadata"], "generation": there["metadata"]["generation"] + 1}
            return self.put("AzvnetNodes", name, {**there, "metadata": metadata, "spec": spec})

    def node(self, name: str) -> Json:
        with self.changed:
            return copy.deepcopy(self.objects["AzvnetNodes"][name])

    def has(self, name: str) -> bool:
        with self.changed:
            return name in self.objects["AzvnetNodes"]

    def _tell(self, what: str, kind: str, document: Json) -> None:
        self.history.append((self.version, what, kind, copy.deepcopy(document)))
        self.changed.notify_all()


class View:
    """The API server as one operator reaches it."""

    namespace = "azvnet"

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.is_away = False
        self.azvnet_nodes, self.nodes, self.pods = (
            Kind(self, each) for each in ("AzvnetNodes", "Nodes", "Pods")
        )

    def reach(self) -> None:
        if self.is_away:
            raise ClusterError("it is away")

    def read(self, name: str) -> Json:
        self.reach()
        if not self.server.has(name):
            raise NotThere(name)
        return self.server.node(name)

    def write_status(self, name: str, changed: Json, version: str) -> Json:
        self.reach()
        if self.server.before_status:
            self.server.before_status.pop(0)()
        with self.server.changed:
            there = self.server.objects["AzvnetNodes"].get(name)
            if there is None:
                raise NotThere(name)
            if there["metadata"]["resourceVersion"] != version:
                raise Conflict(name)
            status = {**there.get("status", {}), **changed}
            status = {key: value for key, value in status.items() if value is not None}
            self.server.status_writes += 1
            return self.server.put("AzvnetNodes", name, {**there, "status": status})

    def delete(self, name: str, uid: str, version: str) -> None:
        self.reach()
        with self.server.changed:
            there = self.server.objects["AzvnetNodes"].get(name)
            if there is None:
                return
            if (there["metadata"]["uid"], there["metadata"]["resourceVersion"]) != (uid, version):
                raise Conflict(name)
            self.server.remove("AzvnetNodes", name)

    def event(self, regarding: Json, reason: str, message: str) -> None:
        self.reach()
        self.server.events.append((regarding["name"], reason, message))

    def lease(self, wanted: LeaseSettings) -> Box:
        return Box(self)


class Kind:
    """``watching.Asking``."""

    def __init__(self, view: View, name: str) -> None:
        self._view, self.name = view, name

    def page(self, after: str) -> Json:
        self._view.reach()
        server = self._view.server
        with server.changed:
            names = sorted(server.objects[self.name])
            part = [each for each in names if each > after][:PAGE]
            more = bool(part) and part[-1] != names[-1]
            items = [copy.deepcopy(server.objects[self.name][each]) for each in part]
            metadata = {"resourceVersion": str(server.version), "continue": part[-1] if more else ""}
            return {"metadata": metadata, "items": items}

    def watch(self, version: str) -> Iterator[Json]:
        server, seen = self._view.server, int(version)
        while True:
            self._view.reach()
            if seen < server.oldest:
                raise Expired(self.name)
            with server.changed:
                new = [each for each in server.history if each[0] > seen]
                if not new:
                    server.changed.wait(0.05)
            for at, what, kind, document in new:
                seen = at
                if kind == self.name:
                    yield {"type": what, "object": copy.deepcopy(document)}


class Box:
    """``leader.Box``."""

    def __init__(self, view: View) -> None:
        self._view = view

    def read(self) -> LeaseRecord | None:
        if self._view.is_away:
            raise LeaseUnavailable("it is away")
        return self._view.server.lease

    def write(self, record: LeaseRecord, *, acquires: bool) -> LeaseRecord:
        if self._view.is_away:
            raise LeaseUnavailable("it is away")
        server = self._view.server
        with server.changed:
            if (server.lease.version if server.lease else "") != record.version:
                raise LeaseConflict
            server.lease = replace(record, version=str(int(record.version or "0") + 1))
            return server.lease
