"""Kubernetes without nodes: etcd, the API server, the scheduler, and kwok, which plays the kubelets.

Owns their processes in this network namespace, their arguments and their end. It must not know pods.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

from integration.bench.place import HOST_ADDRESS, cpu_seconds, memory_bytes
from integration.cluster.api import Api, ApiError
from integration.cluster.controlplane import ADMINISTRATORS, ControlPlane
from integration.cluster.program import Program
from integration.tools import kubernetes, kwok

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from integration.fabric import Machine

_ADMISSION = "ServiceAccount,TaintNodesByCondition,DefaultTolerationSeconds"
"""Switched off: they need controllers, which do not run here."""
_STAGES = ("node-initialize", "node-heartbeat-with-lease", "pod-delete")
"""What kwok does: nodes become ready and stay so, deleted pods go. Pods' addresses come from the agents."""
_PATIENCE = 120.0


class Here:
    """This very network namespace, as far as a `Program` needs a machine."""

    name = "bench"
    primary_ip = IPv4Address(HOST_ADDRESS)

    def __init__(self) -> None:
        self.environment = dict(os.environ)

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdout: Any = None,
        stderr: Any = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program."""
        return subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, text=True
        )

    def run(self, argv: Sequence[str], *, input: str | None = None) -> object:  # noqa: A002 - as subprocess
        """Run a program to its end. Raises subprocess.CalledProcessError."""
        return subprocess.run(list(argv), input=input, capture_output=True, text=True, check=True)


class Plane:
    """A context manager: up inside the block.

    Args:
        folder: for kubeconfigs and logs.
        with_kwok: nodes have heartbeats; without, they stay as they were made.
    """

    def __init__(self, folder: Path, *, with_kwok: bool = True) -> None:
        self.here = Here()
        self.logs = folder / "logs"
        # Of a machine only that is used which this place has as well.
        self._control = ControlPlane(cast("Machine", self.here), kubernetes(), self.logs, verbosity=1)
        api_server = self._control.api_server
        api_server.argv += [f"--disable-admission-plugins={_ADMISSION}", "--max-requests-inflight=1000"]
        # Every write of 50 pods a second would be compared with that list of clients otherwise.
        self._control.scheduler.argv += ["--kube-api-qps=500", "--kube-api-burst=1000"]
        self.kubeconfig = folder / "admin.json"
        self._kwok = (self._made_kwok(folder),) if with_kwok else ()
        self._undo = contextlib.ExitStack()

    def _made_kwok(self, folder: Path) -> Program:
        config = folder / "kwok.yaml"
        config.write_text("---\n".join((kwok() / f"{name}.yaml").read_text() for name in _STAGES))
        return self.program(
            "kwok",
            str(kwok() / "kwok"),
            f"--kubeconfig={self.kubeconfig}",
            f"--config={config}",
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=40",
            "--server-address=127.0.0.1:0",
        )

    @property
    def programs(self) -> tuple[Program, ...]:
        """All that run."""
        control = self._control
        return control.etcd, control.api_server, control.scheduler, *self._kwok

    def program(self, name: str, *argv: str) -> Program:
        """One more, that is not started yet; its log is beside the others'."""
        return Program(cast("Machine", self.here), name, argv, self.logs / f"{name}.log")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for each in self.programs:
                undo.callback(each.stop, kill=True)
            self._control.start()
            self.kubeconfig.write_text(self._control.kubeconfig("kubernetes-admin", ADMINISTRATORS))
            with Api(self.kubeconfig) as api:
                self._control.api_server.wait_until("ready", lambda: _is_ready(api), patience=_PATIENCE)
            self._control.scheduler.start()
            for each in self._kwok:
                each.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def usage(program: Program) -> tuple[float, int]:
    """Processor seconds that it has used, and the most memory that it had, in bytes."""
    return cpu_seconds(program.pid), memory_bytes(program.pid)[1]


def _is_ready(api: Api) -> bool:
    try:
        api.get("/api/v1/namespaces/kube-system")
    except ApiError:
        return False
    return True
