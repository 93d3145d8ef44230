"""The sysctls of the host that routing pods needs.

Owns reading and writing them. Only what is wrong is written, and nothing that is the operator's.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cni_plugin.errors import KernelRefused

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def answer_for_gateway(ifname: str) -> None:
    """Have a host veth answer when its pod asks for the gateway's MAC (ip-sysctl.rst, ``proxy_arp``).

    The pod has a permanent neighbour and does not ask, unless a later plugin changed the pod's MAC: then the
    kernel has forgotten the neighbour. Where it can't be set, only that case is lost.
    """
    with suppress(OSError):
        Path(f"/proc/sys/net/ipv4/conf/{ifname}/proxy_arp").write_text("1")


def ensure_forwarding() -> bool:
    """Let the host route between its links (ip-sysctl.rst, ``ip_forward``). True when it had to be set.

    Raises:
        KernelRefused: it is off and can't be switched on from here.
    """
    if IP_FORWARD.read_text().strip() != "0":
        return False
    try:
        IP_FORWARD.write_text("1")
    except OSError as error:
        raise KernelRefused(
            f"net.ipv4.ip_forward is 0 and can't be set: {error.strerror}",
            "Set net.ipv4.ip_forward=1 on the node (sysctl.d); without it no pod reaches anything.",
        ) from error
    return True
