"""The virtual machine of this node, as its resource describes it to the cluster's operator.

It must not know what for.
"""

from __future__ import annotations

import time

from ipam.provision.exchange import Machine
from ipam.sources import AZURE
from ipam.sources.placement import own_placement

IMDS_SECONDS = 10.0


def this_machine(mac: str) -> Machine:
    """The machine according to IMDS. ``mac``: of the NIC by which pods' packets leave.

    Raises:
        SourceUnreadable: IMDS can't be read.
    """
    place = own_placement(AZURE.imds, time.monotonic() + IMDS_SECONDS)
    return Machine(place.resource_id, place.vm_id, place.environment, place.location, mac)
