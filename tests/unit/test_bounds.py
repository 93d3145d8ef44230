"""What a configuration can make the log and the memory hold is bounded."""

from __future__ import annotations

import json

from cni_plugin import log
from cni_plugin.cni import netconf

CONF = {"cniVersion": "1.1.0", "name": "n", "type": "azvnet", "ipam": {"type": "azvnet-ipam"}}


def test_a_record_of_the_log_is_bounded() -> None:
    line = log.line("error", "info", error="x" * 1_000_000, warnings=["y" * 10_000] * 1000)
    assert len(line) < 80_000
    record = json.loads(line)
    assert record["error"].startswith("(1000000 characters)")
    assert record["warnings"][-1] == f"and {1000 - log.MOST_ITEMS} more"


def test_what_is_remembered_of_configurations_is_bounded_in_bytes() -> None:
    netconf._remembered.clear()
    conf = netconf.parse_netconf(CONF)
    for number in range(netconf.MOST_REMEMBERED):
        netconf.remember(json.dumps(CONF).encode() + b" " * (30_000 + number), CONF, conf)
        held = sum(map(len, netconf._remembered))
        assert held <= netconf.MOST_REMEMBERED_BYTES
    netconf.remember(b" " * netconf.MOST_REMEMBERED_BYTES, CONF, conf)
    assert netconf.remembered(b" " * netconf.MOST_REMEMBERED_BYTES) is None
    netconf._remembered.clear()
