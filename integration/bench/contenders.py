"""What is compared: each contender's program, configuration and files.

Owns what differs between them; everything else is the same for all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.bench.place import HOST_ADDRESS, UPLINK_MAC
from integration.tools import tools

BUNDLE = Path(__file__).parents[2] / "dist" / "azvnet"
ADDRESSES_FILE = "/run/interfaces.json"
VERSION = "1.1.0"
REFERENCE, ALONE, AGENT, BARE = "ptp + host-local", "azvnet alone", "azvnet with agent", "bare interpreter"
POOL = 400


class NotBuilt(Exception):
    """A program that is to be measured is not there; the message says how to make it."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to attach a pod."""

    name: str
    program: str
    netconf: dict[str, Any]
    cni_path: str
    files: dict[str, str] = field(default_factory=dict)
    agent: tuple[str, ...] = ()
    """Command line of the agent that has to run beside it; empty for none."""

    @property
    def verbs(self) -> tuple[str, ...]:
        """What it understands."""
        return ("VERSION",) if self.name == BARE else ("VERSION", "ADD", "CHECK", "DEL")


def reference() -> Contender:
    """The Go reference: ``ptp`` with ``host-local``."""
    folder = tools()
    subnet = {"subnet": "10.241.0.0/16", "rangeStart": "10.241.0.10"}
    ipam = {"type": "host-local", "ranges": [[subnet]], "routes": [{"dst": "0.0.0.0/0"}]}
    netconf = {"cniVersion": VERSION, "name": "reference", "type": "ptp", "mtu": 1500, "ipam": ipam}
    return Contender(REFERENCE, str(folder / "ptp"), netconf, str(folder))


def alone(bundle: Path = BUNDLE, addresses: int = POOL, cooldown: float | None = None) -> Contender:
    """The frozen executable with no agent."""
    return _ours(ALONE, bundle / "azvnet-python", addresses, cooldown)


def with_agent(bundle: Path = BUNDLE, addresses: int = POOL, cooldown: float | None = None) -> Contender:
    """The launcher, and the agent behind it."""
    agent = (str(bundle / "azvnet-python"), "agent")
    return _ours(AGENT, bundle / "azvnet", addresses, cooldown, agent)


def bare() -> Contender:
    """An interpreter that starts and ends: the floor under everything written in Python."""
    return Contender(BARE, "/usr/bin/python3", {"cniVersion": VERSION}, "")


def _ours(
    name: str, path: Path, addresses: int, cooldown: float | None, agent: tuple[str, ...] = ()
) -> Contender:
    if not path.exists():
        raise NotBuilt(f"{path} does not exist; run: make build")
    ipam: dict[str, Any] = {"type": "azvnet-ipam", "environment": "file", "file": ADDRESSES_FILE}
    if cooldown is not None:
        ipam["cooldown"] = cooldown
    netconf = {"cniVersion": VERSION, "name": "azure", "type": "azvnet", "ipam": ipam}
    return Contender(
        name, str(path), netconf, str(path.parent), {ADDRESSES_FILE: _document(addresses)}, agent
    )


def _document(addresses: int) -> str:
    """What source ``file`` reads: the NIC with its own address and so many for pods."""
    pods = [{"Address": f"10.240.{number // 250 + 1}.{number % 250 + 1}"} for number in range(addresses)]
    subnet = {"Prefix": "10.240.0.0/16", "IPAddresses": [{"Address": HOST_ADDRESS, "IsPrimary": True}, *pods]}
    mac = UPLINK_MAC.replace(":", "").upper()
    return json.dumps({"Interfaces": [{"MacAddress": mac, "IsPrimary": True, "IPSubnets": [subnet]}]})
