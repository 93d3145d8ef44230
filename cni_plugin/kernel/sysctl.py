"""The sysctls of the host that routing pods needs.

Owns reading and writing them. Only what is wrong is written, and nothing that is the operator's.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from cni_plugin.cni.errors import KernelRefused

PLACE = Path("/proc/sys/net")
PLACE_IN_POD = Path("/host/proc/sys/net")
"""A runtime mounts ``/proc/sys`` read-only in a container that is not privileged; the agent's manifest mounts
the host's once more. Both show the network namespace of whoever looks a file up (proc_sysctl.c)."""
FORWARDING = "ipv4/ip_forward"
_FOLLOWS = "ipv4/conf/all/accept_redirects"
"""The kernel changes it when forwarding is switched on or off, to 0 or to 1 (``inet_forward_change``)."""
BEFORE = "sysctls-before.json"
"""File of the state directory: what sysctls were before they were changed. Both go with a reboot."""


def prepare_host_end(ifname: str) -> None:
    """Make a new host veth ready for its pod, before the pod's end goes up (ip-sysctl.rst).

    ``accept_ra``: a pod must not be a router for its host. Where the host does not forward IPv6, the kernel
    takes a router advertisement from any link for the truth, and would make the pod the way out of the host.

    ``proxy_arp``: it answers when its pod asks for the gateway's MAC. The pod has a permanent neighbour and
    does not ask, unless a later plugin changed the pod's MAC: then the kernel has forgotten the neighbour.

    A host without IPv6 has no such file; where ``/proc/sys`` can't be written, nothing more can be done here.
    """
    for name, value in ((f"ipv6/conf/{ifname}/accept_ra", "0"), (f"ipv4/conf/{ifname}/proxy_arp", "1")):
        with suppress(OSError):
            _write(name, value)


def ensure_forwarding(run_dir: Path) -> bool:
    """Let the host route between its links (ip-sysctl.rst, ``ip_forward``). True when it had to be set.

    Args:
        run_dir: where what was before is remembered, for whoever takes everything away again.

    Raises:
        KernelRefused: it is off and can't be switched on from here.
    """
    if _read(FORWARDING) != "0":
        return False
    before = {name: _read(name) for name in (FORWARDING, _FOLLOWS)}
    with suppress(OSError), (run_dir / BEFORE).open("x") as file:  # the first who changes it knows
        file.write(json.dumps(before))
    try:
        _write(FORWARDING, "1")
    except OSError as error:
        raise KernelRefused(
            f"net.ipv4.ip_forward is 0 and can't be set: {error.strerror}",
            "Set net.ipv4.ip_forward=1 on the node (sysctl.d); without it no pod reaches anything.",
        ) from error
    return True


def before(run_dir: Path) -> dict[str, str]:
    """What sysctls were before they were changed for pods; empty: none was since the node was started."""
    try:
        found = json.loads((run_dir / BEFORE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and FORWARDING in found else {}


def restore(values: dict[str, str], place: Path) -> bool:
    """Put back what ``before`` says, below ``place``; False: it is so already. Raises OSError."""
    if (place / FORWARDING).read_text().strip() == values[FORWARDING]:
        return False
    # ip_forward first: the kernel changes the other with it.
    for name in sorted(values, key=lambda name: name != FORWARDING):
        (place / name).write_text(values[name])
    return True


def _read(name: str) -> str:
    """Raises OSError. Every ADD reads one; a file object would take three times as long."""
    fd = os.open(f"{PLACE}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


def _write(name: str, value: str) -> None:
    """Set one, where it can be set. Raises OSError."""
    try:
        _write_to(f"{PLACE}/{name}", value)
    except OSError as error:
        if error.errno != errno.EROFS or not PLACE_IN_POD.is_dir():
            raise
        _write_to(f"{PLACE_IN_POD}/{name}", value)


def _write_to(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
