"""Watches over what operators do at Azure: nothing foreign changes, and nobody loses an address."""

from __future__ import annotations

import json
import threading
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from integration.fabric.armdocuments import nic_document
from integration.fabric.nicdiff import foreign_changes
from ipam.provision.nic_document import named_by_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric.model import Estate

ANY_ADDRESS = frozenset(IPv4Network("10.10.0.0/20"))
"""What the agent of a node keeps back that is gone: every address of the subnet."""


class Witness:
    """Every change that a request or the end of an operation makes is looked at: ``change`` of an ``Arm``."""

    def __init__(
        self, newest: Callable[[], Estate], change: Callable[[Callable[[Estate], Estate]], object]
    ) -> None:
        self._newest, self._change = newest, change
        self._lock = threading.Lock()
        self.broken: list[str] = []
        """What was done that must not be done."""
        self.holders: Callable[[str], tuple[frozenset[Any], frozenset[Any]]] = lambda _: (
            frozenset(),
            frozenset(),
        )
        """Addresses that pods of a node hold, and those that its agent keeps back."""
        self.looks = True

    def change(self, change: Callable[[Estate], Estate]) -> object:
        with self._lock:
            before = self._newest()
            done = self._change(change)
            after = self._newest()
            if self.looks:
                for vm in after.vms:
                    self._look(before, after, vm.computer_name)
            return done

    def _look(self, before: Estate, after: Estate, node: str) -> None:
        if before.vm(node) is after.vm(node):
            return
        old, new = (nic_document(e, e.vm(node), e.vm(node).nics[0]) for e in (before, after))
        plain = json.loads(json.dumps([old, new]))
        for each in plain:
            for entry in each["properties"]["ipConfigurations"]:
                entry.pop("etag", None)
                entry["properties"].pop("provisioningState", None)
        self.broken += [f"{node}: {each}" for each in foreign_changes(plain[0], plain[1], named_by_us)]
        gone = _addresses(old) - _addresses(new)
        held, kept = self.holders(node)
        if gone & held:
            self.broken.append(f"{node}: pods hold {sorted(map(str, gone & held))}")
        if gone - kept:
            self.broken.append(f"{node}: {sorted(map(str, gone - kept))} could have been given out")


def _addresses(nic: dict[str, Any]) -> frozenset[IPv4Address]:
    texts = [each["properties"].get("privateIPAddress") for each in nic["properties"]["ipConfigurations"]]
    return frozenset(ip for text in texts if text for ip in IPv4Network(text, strict=False))
