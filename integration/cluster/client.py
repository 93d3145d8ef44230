"""What a test does with a cluster through its API: kubectl, as administrator.

Must not know how the cluster is made.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from integration.cluster.program import ClusterError
from integration.tools import kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Client:
    """kubectl with one kubeconfig; ``program``: another one than that of `tools.kubernetes`."""

    def __init__(self, kubeconfig: Path, *, program: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        """An administrator's, which works on this machine as long as the cluster is up."""
        self._kubectl = program

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run uses
        check: bool = True,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator, on this machine.

        Raises:
            KubectlFailed: its exit code is not 0 and ``check``; str() shows what it said.
            subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        program = self._kubectl or str(kubernetes() / "kubectl")
        # What it remembers of the API would go into the home.
        cache = self.kubeconfig.parent / "kubectl"
        command = [program, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", *arguments]
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            raise KubectlFailed(done.returncode, command, done.stdout, done.stderr)
        return done

    def get(self, *arguments: str) -> dict[str, Any]:
        """What ``kubectl get`` finds, as an object. Raises KubectlFailed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output=json").stdout)
        return found

    def apply(self, manifest: str | Mapping[str, Any]) -> None:
        """Apply a manifest, as text (YAML or JSON) or as an object. Raises KubectlFailed."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("apply", "--filename=-", input=text)

    def wait_available(self, workload: str, *, namespace: str = "default", patience: float = 120.0) -> float:
        """Wait for a rollout of a workload; returns the seconds it took. Raises ClusterError."""
        started = time.monotonic()
        done = self.kubectl(
            "rollout",
            "status",
            workload,
            f"--namespace={namespace}",
            f"--timeout={patience:.0f}s",
            check=False,
            timeout=patience + 30,
        )
        if done.returncode:
            pods = self.kubectl("get", "pods", f"--namespace={namespace}", "--output=wide", check=False)
            events = self.kubectl(
                "get", "events", f"--namespace={namespace}", "--sort-by=.lastTimestamp", check=False
            )
            last = "\n".join(events.stdout.splitlines()[-15:])
            raise ClusterError(
                f"{workload} is not available after {patience:.0f} s: {done.stderr.strip()}\n"
                f"{pods.stdout}\n{last}"
            )
        return time.monotonic() - started


class KubectlFailed(subprocess.CalledProcessError):
    """kubectl ended with an exit code that was not expected; str() shows what it said."""

    def __str__(self) -> str:
        arguments = [each for each in self.cmd[1:] if not each.startswith(("--kubeconfig=", "--cache-dir="))]
        return f"kubectl {' '.join(arguments)}: {self.stderr.strip()}"
