"""Which Docker a kind cluster runs on, and the environment in which docker, kind, kubectl and helm use it.

Owns the variables. Nothing is written into anybody's home: no ~/.kube, no ~/.docker. Must not know the
cluster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from integration.cluster.program import without_proxies
from integration.kind import daemon, programs
from integration.kind.places import CACHE, KUBECONFIG, NAME, KindError
from integration.tools import kind, kubernetes, tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.kind.keeper import Kept

CHOICES = ("auto", "own", "system")
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Docker:
    """A Docker daemon that answers."""

    own: bool
    """Whether it is ours, in namespaces of its own, where no registry is reached."""
    variables: Mapping[str, str]
    """What a shell has to export to use it."""

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of a program that uses it."""
        inherited = without_proxies(os.environ) if self.own else dict(os.environ)
        return {**inherited, **self.variables}

    def run(
        self, *command: str, check: bool = True, stdin: IO[bytes] | None = None, timeout: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run docker, kind, kubectl, helm … to its end, with text and captured output.

        Raises:
            KindError: it ended with an exit code other than 0 and ``check``, or not in time.
        """
        environment = self.environment
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            raise KindError(f"{command[0]} is not on PATH")
        try:
            done = subprocess.run(
                [program, *command[1:]],
                stdin=stdin or subprocess.DEVNULL,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise KindError(f"{' '.join(command)}: not done after {timeout:.0f} s") from error
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise KindError(f"{' '.join(command)}: {said}")
        return done


def own(kept: Kept) -> Docker:
    """Ours. Raises KindError, ToolsError."""
    folders = [f"{programs.docker()}/usr/bin", str(kind()), str(kubernetes()), str(tools())]
    variables = {"DOCKER_HOST": daemon.host(kept.pid), "DOCKER_CONFIG": str(CACHE / "docker-config")}
    return Docker(True, {**_variables(folders), **variables})


def system() -> Docker:
    """This machine's, as the docker command finds it. kubectl and helm are this machine's where they are.

    Raises:
        KindError: it does not answer.
        ToolsError: kind or kubectl could not be built.
    """
    if not system_answers():
        raise KindError("no Docker daemon answers here (docker version); with our own: DOCKER=own make kind")
    there = all(shutil.which(name) for name in ("kubectl", "helm"))
    return Docker(False, _variables([str(kind()), *([] if there else [str(kubernetes())])]))


def system_answers() -> bool:
    """Whether this machine has a Docker daemon that we may use."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = ["docker", "version", "--format={{.Server.Version}}"]
        done = subprocess.run(asked, capture_output=True, check=False, timeout=_ANSWER_SECONDS)
        return done.returncode == 0
    return False


def _variables(folders: list[str]) -> dict[str, str]:
    helm = {f"HELM_{name}_HOME": str(CACHE / "helm" / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    return {
        "PATH": ":".join([*folders, os.environ["PATH"]]),
        "KUBECONFIG": str(KUBECONFIG),
        "KUBECACHEDIR": str(CACHE / "kubectl"),
        "KIND_CLUSTER_NAME": NAME,
        **helm,
    }
