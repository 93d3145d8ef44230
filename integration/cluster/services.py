"""The addresses of services in a cluster: of IPv4, or of both families.

Owns the ranges and what of them is taken by name. Must not know who uses them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceNetwork:
    """Ranges and fixed addresses, one of each family, the primary family first."""

    ranges: tuple[str, ...]
    """``--service-cluster-ip-range`` of the API server."""
    api_server: tuple[str, ...]
    """The first address of each range; the first of them is that of ``kubernetes.default``."""
    dns: tuple[str, ...]
    """The cluster addresses of CoreDNS."""


IPV4_ONLY = ServiceNetwork(("10.96.0.0/16",), ("10.96.0.1",), ("10.96.0.10",))
DUAL_STACK = ServiceNetwork(
    (*IPV4_ONLY.ranges, "fd00:10:96::/112"),
    (*IPV4_ONLY.api_server, "fd00:10:96::1"),
    (*IPV4_ONLY.dns, "fd00:10:96::a"),
)
"""The API server takes ranges of up to 20 bits (kube-apiserver, ``--service-cluster-ip-range``)."""
