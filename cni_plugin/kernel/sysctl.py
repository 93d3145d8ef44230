"""The sysctls of the host that routing pods needs.

Owns reading and writing them. Only what is wrong is written, and nothing that is the operator's.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cni_plugin.errors import KernelRefused

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


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
            Path(f"/proc/sys/net/{name}").write_text(value)


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
