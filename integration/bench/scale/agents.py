"""All simulated nodes in one process: ``python -m integration.bench.scale.agents CONFIG``.

Owns what the API server and the metadata service are asked, and what a kubelet does: it has a pod's sandbox
made when the scheduler has bound the pod, again some seconds after that failed, and writes the pod's status.
A line of JSON a second on stdout says how far it is; when stdin ends, each pod's moments are written.
"""

from __future__ import annotations

import heapq
import http.client
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.scale.agent import LOOK_SECONDS, SimulatedNode, read
from integration.bench.scale.onpaper import RETRY_JITTER, RETRY_SECONDS
from integration.cluster.api import Api, ApiError
from ipam.provision import exchange
from ipam.provision.exchange import Machine
from ipam.provision.plan import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.cluster.api import Object
    from ipam.provision.exchange import AzvnetNode, NodeSpec

RESOURCES = f"/apis/{exchange.GROUP}/{exchange.VERSION}/{exchange.PLURAL}"
_METADATA = ("169.254.169.254", 80)
_NETWORK = "/metadata/instance/network?api-version=2021-02-01"
_WORKERS = 12


class Schedule:
    """Things to do at moments, by a few threads."""

    def __init__(self, workers: int, failed: Callable[[BaseException], None]) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._changed = threading.Condition()
        self._workers = ThreadPoolExecutor(workers)
        self._failed = failed
        threading.Thread(target=self._run, name="schedule", daemon=True).start()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something then."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._number), do))
            self._changed.notify()

    def now(self, do: Callable[[], None]) -> None:
        """Do something as soon as a thread is free."""
        self._workers.submit(self._safely, do)

    def _safely(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - a thread that ends would be missed by nobody
            self._failed(error)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, _, do = heapq.heappop(self._heap)
            self.now(do)


class Moments:
    """When each pod was bound and had its address, and how often it was refused one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bound: dict[str, tuple[float, str]] = {}
        self.addressed: dict[str, float] = {}
        self.refused: dict[str, int] = {}

    def document(self) -> list[list[Any]]:
        """A row for each pod: node, bound, addressed or None, refusals."""
        with self.lock:
            return [
                [node, at, self.addressed.get(pod), self.refused.get(pod, 0)]
                for pod, (at, node) in self.bound.items()
            ]


class Agents:
    """The nodes and their pods."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.api = Api(Path(config["kubeconfig"]))
        self.moments = Moments()
        self.errors: dict[str, int] = {}
        self._sources = {each["name"]: each["address"] for each in config["machines"]}
        self._schedule = Schedule(_WORKERS, self._note)
        self._queued: set[str] = set()
        self._lock = threading.Lock()
        self._chance = random.Random(1)
        folder = Path(config["folder"])
        self.nodes = {
            each["name"]: SimulatedNode(
                each["name"],
                Machine(**each["machine"]),
                Sizes(**config["sizes"]),
                _made(folder / each["name"]),
                self,
                self._wake,
            )
            for each in config["machines"]
        }

    def run(self) -> None:
        """Until stdin ends."""
        for node in self.nodes.values():
            self._schedule.after(self._chance.random() * LOOK_SECONDS, lambda node=node: self._look(node))  # type: ignore[misc]
        threading.Thread(target=self._report, name="report", daemon=True).start()
        # Of each pod one event is wanted, that it was bound.
        waiting = {"fieldSelector": "spec.nodeName!=,status.phase=Pending"}
        with self.api.watch(RESOURCES, self._resource), self.api.watch("/api/v1/pods", self._pod, **waiting):
            sys.stdin.read()

    # What happens

    def _resource(self, _: float, kind: str, document: Object) -> None:
        if kind != "DELETED":
            seen = read(document)
            self.nodes[seen.name].see(seen)

    def _pod(self, at: float, kind: str, document: Object) -> None:
        node = document["spec"].get("nodeName")
        pod = document["metadata"]["name"]
        if kind == "DELETED":
            return
        with self.moments.lock:
            if pod in self.moments.bound:
                return
            self.moments.bound[pod] = (at, node)
        namespace = document["metadata"]["namespace"]
        self._schedule.now(lambda: self._sandbox(node, namespace, pod))

    def _sandbox(self, node: str, namespace: str, pod: str) -> None:
        given = self.nodes[node].add(namespace, pod)
        if given is None:
            with self.moments.lock:
                self.moments.refused[pod] = self.moments.refused.get(pod, 0) + 1
            again = RETRY_SECONDS + RETRY_JITTER * self._chance.random()
            self._schedule.after(again, lambda: self._sandbox(node, namespace, pod))
            return
        with self.moments.lock:
            self.moments.addressed[pod] = time.monotonic()
        self.api.call("PATCH", f"/api/v1/namespaces/{namespace}/pods/{pod}/status", _running(str(given)))

    def _wake(self, node: SimulatedNode) -> None:
        with self._lock:
            if node.name in self._queued:
                return
            self._queued.add(node.name)
        self._schedule.now(lambda: self._woken(node))

    def _woken(self, node: SimulatedNode) -> None:
        with self._lock:
            self._queued.discard(node.name)
        node.look()

    def _look(self, node: SimulatedNode) -> None:
        self._schedule.after(LOOK_SECONDS, lambda: self._look(node))
        node.look()

    # What is asked

    def metadata(self, node: str) -> bytes:
        """See `agent.Asks`."""
        connection = http.client.HTTPConnection(
            *_METADATA, timeout=10, source_address=(self._sources[node], 0)
        )
        try:
            connection.request("GET", _NETWORK, headers={"Metadata": "true"})
            answer = connection.getresponse()
            document = answer.read()
            if answer.status != http.client.OK:
                raise OSError(f"the metadata service answered {answer.status}")
            return document
        finally:
            connection.close()

    def write(self, name: str, spec: NodeSpec, known: AzvnetNode | None) -> AzvnetNode | None:
        """See `agent.Asks`."""
        try:
            return self._written(name, spec, known)
        except ApiError as error:
            if error.status:  # 0: the API server had closed a connection that was not used for a while
                raise
            return self._written(name, spec, known)

    def _written(self, name: str, spec: NodeSpec, known: AzvnetNode | None) -> AzvnetNode | None:
        try:
            if known is None:
                return read(self.api.create(RESOURCES, exchange.with_spec(name, spec)))
            body = exchange.with_spec(name, spec, known.resource_version)
            return read(self.api.call("PUT", f"{RESOURCES}/{name}", body))
        except ApiError as error:
            if error.status != http.client.CONFLICT:
                raise
            return None

    def _note(self, error: BaseException) -> None:
        with self._lock:
            text = f"{type(error).__name__}: {error}"[:300]
            self.errors[text] = self.errors.get(text, 0) + 1

    def _report(self) -> None:
        while True:
            statuses = [n.node.status for n in list(self.nodes.values()) if n.node is not None]
            with self.moments.lock:
                line = {
                    "bound": len(self.moments.bound),
                    "addressed": len(self.moments.addressed),
                    "refused": len(self.moments.refused.keys() - self.moments.addressed.keys()),
                    "known": sum(status.revision > 0 for status in statuses),
                    "writing": sum(status.operation is not None for status in statuses),
                    "addresses": sum(status.addresses for status in statuses),
                    "errors": self.errors,
                }
            print(json.dumps(line), flush=True)
            time.sleep(1.0)


def _running(address: str) -> Object:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": now} for each in conditions
            ],
        }
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    """Play the nodes of a configuration; afterwards write what became of the pods."""
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    agents = Agents(config)
    agents.run()
    Path(config["moments"]).write_text(json.dumps(agents.moments.document()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
