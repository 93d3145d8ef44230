"""One run: everything is started, pods come, and what happened is measured.

Owns the order of things and the samples. What the figures mean is `figures`; it must not know how they look.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.bench.place import cpu_seconds, memory_bytes
from integration.bench.scale.azure import Azure
from integration.bench.scale.plane import Plane
from integration.bench.scale.scenario import arrivals
from integration.cluster.api import Api, ApiError
from integration.cluster.program import ClusterError
from integration.fabric.documents import vm_id
from ipam.provision import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.bench.scale.scenario import Scenario
    from integration.cluster.program import Program

ROOT = Path(__file__).parents[3]
CRD = ROOT / "packaging/helm/azvnet/files/azvnetnodes.azvnet.io.yaml"
SAMPLE_SECONDS = 2.0
_CREATORS = 4
_PATIENCE = 900.0
"""Seconds after the last pod came, until the last one has an address."""
_SETTLE_SECONDS = 300.0


@dataclass(slots=True)
class Sample:
    """One look at everything."""

    at: float
    """Seconds since the first pod."""
    said: dict[str, Any]
    """By the agents, see `agents`."""
    processor: dict[str, float]
    """Processor seconds of each program so far."""
    memory: dict[str, int]
    """Most memory of each program so far, bytes."""


@dataclass(slots=True)
class Recorded:
    """What was seen in one run. Moments are seconds since the first pod."""

    scenario: Scenario
    requests: list[tuple[float, str, int]] = field(default_factory=list)
    """To Azure: moment, kind, status."""
    pods: list[tuple[str, float, float | None, int]] = field(default_factory=list)
    """Node, moment at which it was bound, at which it had its address, how often it was refused one."""
    samples: list[Sample] = field(default_factory=list)


class Agents:
    """The process that plays the nodes."""

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        self.said: dict[str, Any] = {}
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "integration.bench.scale.agents", str(config)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        threading.Thread(target=self._listen, name="agents", daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said = json.loads(line)

    def check(self) -> None:
        """Raises ClusterError: it has ended, or something went wrong in it."""
        if self.process.poll() is not None:
            raise ClusterError(f"the agents have ended\n{self._log.read_text()[-2000:]}")

    def end(self) -> None:
        """Let it write what it knows, and wait until it has."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def run(scenario: Scenario, operator: list[str], folder: Path, say: Callable[[str], None]) -> Recorded:
    """One run, in a network namespace of its own. ``operator``: the command line before ``--config``.

    Raises:
        ClusterError: a program ended, or not all pods had an address in time.
    """
    with contextlib.ExitStack() as undo:
        say(f"Azure with {scenario.nodes} machines, {scenario.start} addresses each")
        azure = undo.enter_context(Azure(scenario, folder))
        say("etcd, API server, scheduler" + (", kwok" if scenario.heartbeats else ""))
        plane = undo.enter_context(Plane(folder, with_kwok=scenario.heartbeats))
        api = undo.enter_context(Api(plane.kubeconfig))
        _apply(CRD, api)
        _create_nodes(api, azure, say)
        agents = Agents(_configuration(scenario, azure, plane, folder), folder / "logs/agents.log")
        undo.callback(agents.process.kill)
        worker = _operator(scenario, azure, plane, operator, folder)
        undo.callback(worker.stop)
        worker.start()
        programs = {each.name: each for each in (*plane.programs, worker)}
        watch = _Watching(agents, programs, say)
        watch.until("the operator has read every NIC", _is_settled(scenario), _SETTLE_SECONDS)
        azure.arm.log.clear()
        recorded = Recorded(scenario)
        _let_come(scenario, api, watch)
        watch.report()
        zero = watch.zero
        agents.end()
        recorded.requests = [(e.at - zero, e.kind, e.status) for e in azure.arm.log.entries()]
        rows = json.loads((folder / "moments.json").read_text(encoding="utf-8"))
        recorded.pods = [(n, b - zero, None if a is None else a - zero, r) for n, b, a, r in rows]
        recorded.samples = watch.samples
        return recorded


def _let_come(scenario: Scenario, api: Api, watch: _Watching) -> None:
    """Let the pods come, at their rate, and wait until each has an address."""
    watch.begin()
    creating = threading.Thread(target=_create_pods, args=(scenario, api, watch), name="pods", daemon=True)
    creating.start()
    wanted = f"{scenario.pods} pods have an address"
    patience = scenario.seconds / scenario.speed + _PATIENCE
    watch.until(wanted, lambda said: said.get("addressed", 0) >= scenario.pods, patience)
    creating.join()


class _Watching:
    """Looks at everything every now and then."""

    def __init__(self, agents: Agents, programs: dict[str, Program], say: Callable[[str], None]) -> None:
        self._agents, self._programs, self._say = agents, programs, say
        self.zero = time.monotonic()
        self.samples: list[Sample] = []
        self.failed: list[BaseException] = []
        """Of other threads."""
        self._told_at = 0.0

    def begin(self) -> None:
        """Time begins now."""
        self.zero = time.monotonic()
        self.samples.clear()

    def until(self, what: str, condition: Callable[[dict[str, Any]], bool], patience: float) -> None:
        """Look until that is so. Raises ClusterError."""
        end = time.monotonic() + patience
        while not condition(self._agents.said):
            self._look()
            if time.monotonic() > end:
                logs = "\n".join(f"{name}:\n{each.log_tail(8)}" for name, each in self._programs.items())
                raise ClusterError(f"not within {patience:.0f} s: {what}; {self._agents.said}\n{logs}")
            time.sleep(SAMPLE_SECONDS)
        self._look()

    def _look(self) -> None:
        self._agents.check()
        if self.failed:
            raise self.failed[0]
        pids = {name: each.pid for name, each in self._programs.items()}
        pids["agents"] = self._agents.process.pid
        at, said = time.monotonic() - self.zero, self._agents.said
        self.samples.append(
            Sample(
                at,
                {name: value for name, value in said.items() if name != "errors"},
                {name: cpu_seconds(pid) for name, pid in pids.items()},
                {name: memory_bytes(pid)[1] for name, pid in pids.items()},
            )
        )
        if at - self._told_at >= 20 or at < self._told_at:
            self._told_at = at
            self.report()

    def report(self) -> None:
        """Tell people how far it is."""
        said = self._agents.said
        if said:
            self._say(
                f"{said['bound']} pods bound, {said['addressed']} with an address, {said['refused']} wait; "
                f"{said['known']} NICs known, {said['writing']} written now"
                + (f"; errors: {said['errors']}" if said["errors"] else "")
            )


def _is_settled(scenario: Scenario) -> Callable[[dict[str, Any]], bool]:
    return lambda said: said.get("known", 0) >= scenario.nodes and not said.get("writing")


def _apply(manifest: Path, api: Api) -> None:
    import yaml

    document = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
    path = f"/apis/{exchange.GROUP}/{exchange.VERSION}/{exchange.PLURAL}"
    end = time.monotonic() + 60
    while True:
        try:
            api.get(path)
        except ApiError:  # it is not served yet
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


def _create_nodes(api: Api, azure: Azure, say: Callable[[str], None]) -> None:
    say("the nodes")
    estate = azure.estate

    def create(number: int) -> None:
        vm = estate.vms[number]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": vm.computer_name},
            "spec": {"providerID": f"azure://{vm_id(estate, vm)}"},
            "status": {
                kind: {"cpu": "64", "memory": "256Gi", "pods": "250"} for kind in ("allocatable", "capacity")
            },
        }
        api.create("/api/v1/nodes", node)

    with ThreadPoolExecutor(_CREATORS) as pool:
        list(pool.map(create, range(len(estate.vms))))


def _create_pods(scenario: Scenario, api: Api, watch: _Watching) -> None:
    zero = watch.zero

    def create(number: int) -> None:
        api.create("/api/v1/namespaces/default/pods", _pod(f"pod-{number}"))

    def each() -> Iterator[int]:
        for number, arrival in enumerate(arrivals(scenario)):
            time.sleep(max(0.0, zero + arrival.at / scenario.speed - time.monotonic()))
            yield number

    try:
        with ThreadPoolExecutor(_CREATORS) as pool:
            made = [pool.submit(create, number) for number in each()]
        for one in made:
            one.result()
    except BaseException as error:  # noqa: BLE001 - the thread that looks has to see it
        watch.failed.append(error)


def _pod(name: str) -> dict[str, Any]:
    requests = {"cpu": "10m", "memory": "16Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [
                {"name": "main", "image": "none.invalid/none", "resources": {"requests": requests}}
            ],
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
        },
    }


def _configuration(scenario: Scenario, azure: Azure, plane: Plane, folder: Path) -> Path:
    """What the agents need to know."""
    estate = azure.estate
    sizes = scenario.sizes
    machines = [
        {
            "name": vm.computer_name,
            "address": str(vm.primary_nic.primary_ip),
            "machine": {
                "resource_id": vm_id(estate, vm),
                "vm_id": vm.vm_id,
                "environment": estate.environment,
                "location": estate.location,
                "mac": vm.primary_nic.mac,
            },
        }
        for vm in estate.vms
    ]
    config = {
        "kubeconfig": str(plane.kubeconfig),
        "machines": machines,
        "sizes": {name: getattr(sizes, name) for name in type(sizes).__match_args__},
        "folder": str(folder / "nodes"),
        "moments": str(folder / "moments.json"),
    }
    path = folder / "agents.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _operator(scenario: Scenario, azure: Azure, plane: Plane, command: list[str], folder: Path) -> Program:
    # The operator's own clock is not sped up.
    share = min(1.0, scenario.share * scenario.part * scenario.speed)
    settings = {
        "arm": {"credential": "workload-identity", "ca_file": str(azure.access.ca_file)},
        "budget": {"share": share, "first_poll_seconds": 50.0 / scenario.speed},
        # A machine that does all of this at once answers late.
        "lease": {"seconds": 60},
        "kubeconfig": str(plane.kubeconfig),
        "log_level": "warning",
    }
    path = folder / "operator.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    program = plane.program("operator", *command, "--config", str(path))
    plane.here.environment |= azure.access.variables
    return program
