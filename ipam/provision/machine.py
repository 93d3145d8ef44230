"""The virtual machine that this is, as the operator of the cluster has to know it.

It must not know what for.
"""

from __future__ import annotations

import time

from ipam.provision.exchange import Machine
from ipam.sources import AZURE, imds
from ipam.sources.placement import placement

IMDS_SECONDS = 10.0


def this_machine(mac: str) -> Machine:
    """What IMDS says. ``mac``: of the NIC by which pods leave. Raises SourceUnreadable."""
    place = placement(imds.document(AZURE.imds, "compute", time.monotonic() + IMDS_SECONDS))
    return Machine(place.resource_id, place.vm_id, place.environment, place.location, mac)
