"""The certificate authority of the fabrics of this process, and the certificate of their endpoints.

The key never leaves the process; machines get the authority's certificate alone.
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass

from integration.fabric.clouds import CLOUDS


@dataclass(frozen=True, slots=True)
class Authority:
    """What servers and clients need."""

    ca_pem: str
    server: ssl.SSLContext


@functools.cache
def authority() -> Authority:
    """The authority, with one certificate for the endpoints of every cloud."""
    import trustme

    ca = trustme.CA(organization_name="Azure fabric emulator")
    names = [host for cloud in CLOUDS for host in (cloud.arm_host, cloud.login_host)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return Authority(ca.cert_pem.bytes().decode("ascii"), context)
