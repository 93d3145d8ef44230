"""Go programs that tests and benchmarks run: the reference plugins, criclient, Kubernetes.

Owns only where they are and that they are built; ``build.sh`` beside it knows how.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

REFERENCE_PLUGINS = (
    "bandwidth",
    "bridge",
    "dhcp",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "static",
    "tuning",
)
"""Programs of ``github.com/containernetworking/plugins``, as they stand in a node's /opt/cni/bin."""


class ToolsError(Exception):
    """The Go programs could not be built; the message says why."""


@cache
def tools() -> Path:
    """The folder with cnitool, the reference plugins and criclient; see `built`."""
    return built("bin")


@cache
def containerd() -> Path:
    """The folder with the newest containerd, its shim and ctr; see `built`."""
    return built("containerd")


@cache
def gvisor() -> Path:
    """The folder with gVisor's runsc; see `built`."""
    return built("gvisor")


@cache
def kubernetes() -> Path:
    """The folder with etcd, the programs of Kubernetes and what tests them; see `built`."""
    return built("kubernetes")


@cache
def kind() -> Path:
    """The folder with kind, kubeadm and the files of kind's node image; see `built`."""
    return built("kind")


@cache
def kwok() -> Path:
    """The folder with kwok; see `built`."""
    return built("kwok")


def built(programs: str) -> Path:
    """A set of programs of ``build.sh``, built when anything they are made of changed.

    Progress goes to stderr. Raises ToolsError.
    """
    command = [str(Path(__file__).with_name("build.sh")), programs]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ToolsError(f"integration/tools/build.sh {programs} ended with exit code {done.returncode}")
    return Path(done.stdout.strip())
