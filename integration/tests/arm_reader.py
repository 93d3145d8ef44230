"""A process in a node that reads the source ``arm`` whenever it is told to, as the agent does.

    python -m integration.tests.arm_reader

Each line on stdin is a JSON document: ``deadline`` and the fields of ``ArmConfig``. Each answer is one line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ipam import sources
from ipam.errors import SourceUnreadable
from ipam.model import SourceConfig


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        answer = read(asked.pop("deadline"), sources.ArmConfig(**asked))
        print(json.dumps(answer), flush=True)


def read(deadline: float, config: sources.ArmConfig) -> dict[str, Any]:
    try:
        listing = sources.read(SourceConfig("arm"), deadline, arm=config)
    except SourceUnreadable as error:
        return {"error": str(error), "remedy": error.remedy, "retry_after": error.retry_after}
    return {
        "source": listing.source,
        "macs": [nic.mac for nic in listing.nics],
        "primary": [nic.primary for nic in listing.nics],
        "own": [str(ip) for nic in listing.nics for ip in nic.own_addresses],
        "pods": [str(address.address) for nic in listing.nics for address in nic.addresses],
        "gateways": sorted({str(a.gateway) for nic in listing.nics for a in nic.addresses}),
        "configurations": {str(ip): name for nic in listing.nics for ip, name in nic.configurations},
        "warnings": list(listing.warnings),
        "digest": listing.digest,
    }


if __name__ == "__main__":
    main()
