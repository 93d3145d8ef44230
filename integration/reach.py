"""Who reaches whom, tried with real packets: ICMP echo, and HTTP answered with the target's name.

Owns small servers in network namespaces and the probes. Must not know how the namespaces got their
addresses. Programs are busybox's, which every node has.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from integration.fabric import Machine

PORT = 8080

_SERVE = """
mkdir -p "$1" && printf %s "$2" >"$1/index.html" && exec busybox httpd -f -p 0.0.0.0:"$3" -h "$1"
"""
_PROBE = """
port=$1; shift
for address in "$@"; do
  time=$(busybox ping -c 1 -W 1 "$address" 2>/dev/null | sed -n 's/.*time=\\([0-9.]*\\) ms.*/\\1/p')
  name=$(timeout 2 busybox wget -q -O - "http://$address:$port/" 2>/dev/null)
  echo "$address|$time|$name"
done
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A network namespace that has an address: of a pod, or of a machine itself."""

    name: str
    machine: Machine
    address: IPv4Address | IPv6Address
    netns: str = ""
    """Path in the machine; empty: the machine's own."""

    def inside(self, argv: Sequence[str]) -> list[str]:
        """``argv`` so that a program started in the machine runs in this namespace."""
        return ["nsenter", f"--net={self.netns}", "--", *argv] if self.netns else list(argv)

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end. Raises CalledProcessError when ``check``."""
        return self.machine.run(self.inside(argv), check=check)


@dataclass(frozen=True, slots=True)
class Probe:
    """One source's try to reach one target."""

    source: str
    target: str
    ping_ms: float | None
    """Round trip in milliseconds; None: no reply."""
    answered: str
    """What the web server there said; its name, when everything is right."""

    @property
    def ok(self) -> bool:
        """Whether both tries worked and the right one answered."""
        return self.ping_ms is not None and self.answered == self.target


@contextlib.contextmanager
def serving(endpoints: Sequence[Endpoint], port: int = PORT) -> Iterator[None]:
    """Web servers on all endpoints that answer with the endpoint's name; ended on leaving."""
    with contextlib.ExitStack() as servers:
        for endpoint in endpoints:
            folder = f"/run/reach/{endpoint.name}"
            argv = ["sh", "-c", _SERVE, "serve", folder, endpoint.name, str(port)]
            process = endpoint.machine.popen(endpoint.inside(argv), stderr=subprocess.DEVNULL)
            servers.callback(process.wait)
            servers.callback(process.kill)
        wait = f"until grep -q ' 00000000:{port:04X} 00000000:0000 0A' /proc/net/tcp; do sleep 0.02; done"
        for endpoint in endpoints:
            endpoint.run(["timeout", "10", "sh", "-c", wait])
        yield


def probe(source: Endpoint, targets: Sequence[Endpoint], port: int = PORT) -> list[Probe]:
    """Ping and ask every target, one after the other."""
    addresses = [str(target.address) for target in targets]
    said = source.run(["sh", "-c", _PROBE, "probe", str(port), *addresses]).stdout.splitlines()
    found = []
    for target, line in zip(targets, said, strict=True):
        _, time, answered = line.split("|", 2)
        number = re.fullmatch(r"[0-9.]+", time)
        found.append(Probe(source.name, target.name, float(time) if number else None, answered))
    return found


def matrix(sources: Sequence[Endpoint], targets: Sequence[Endpoint], port: int = PORT) -> list[list[Probe]]:
    """Every source to every target, the sources side by side; `serving` has to be on."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda source: probe(source, targets, port), sources))
