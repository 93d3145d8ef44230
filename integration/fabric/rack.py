"""The machines of a fabric: switched on side by side, booted, cabled, rebooted, with or without a VF.

Must not know what is served to them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration.fabric import clouds, records
from integration.fabric.certificates import authority
from integration.fabric.machine import Machine, MachineError
from integration.waiting import found_within

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from integration.fabric.hostnetwork import HostNetwork
    from integration.fabric.model import Estate

ROUTER_PATIENCE = 10.0
"""Seconds until every machine has its default route of IPv6; it takes milliseconds."""
SYSCTLS: dict[str, str | int] = {
    # A fresh virtual machine forwards nothing; a new namespace would inherit this machine's settings.
    "net/ipv4/ip_forward": 0,
    # Off, as on Debian, so that no test passes by accident; Ubuntu's images have 2, nodes of AKS 1.
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/proxy_arp": 0,
    "net/ipv4/conf/default/proxy_arp": 0,
}
"""Sysctls of a machine's network namespace, set before its links are."""


@dataclass(frozen=True, slots=True)
class Build:
    """What all machines of a fabric have in common."""

    mtu: int = 1500
    accelerated: bool = False
    own_tmp: bool = False
    sysctls: Mapping[str, str | int] = field(default_factory=dict)


class Rack:
    """The machines of one fabric, by name."""

    def __init__(
        self, name: str, estate: Callable[[], Estate], build: Build, reboot: Callable[[str], None]
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.build = build
        self._name = name
        self._estate = estate
        self._reboot = reboot

    def power_on(self, folder: Path, undo: contextlib.ExitStack) -> None:
        """Switch all machines on; each one's switching off is put on ``undo``. Does not wait."""
        for vm in self._estate().vms:
            name = vm.computer_name
            machine = Machine(
                lambda name=name: self._estate().vm(name),  # type: ignore[misc]
                name,
                folder / "machines" / name,
                own_tmp=self.build.own_tmp,
                cgroup=f"{self._name}-{name}",
                reboot=self._reboot,
            )
            self.machines[name] = machine
            machine.power_on()
            undo.callback(machine.power_off)

    def boot(
        self, machines: list[Machine], network: HostNetwork, deliver: Callable[[], None], *, detached: bool
    ) -> None:
        """Boot machines side by side and connect them; ``deliver`` lets the network know of them.

        Raises:
            MachineError, ToolError: one did not come up.
        """
        ca = authority().ca_pem
        for machine in machines:
            machine.ask_boot(self._files(machine), trust=ca)
        for machine in machines:
            machine.await_boot()
        holders = tuple(records.Process.of(pid) for m in self.machines.values() for pid in m.process_ids)
        records.write(records.Record(self._name, records.Process.of(os.getpid()), detached, holders))
        network.plug_in([(m.vm, m.holder_pid, self._links(m)) for m in machines])
        deliver()
        for machine in machines:
            machine.configure_links(
                mtu=self.build.mtu,
                sysctls={**SYSCTLS, **self.build.sysctls},
                accelerated=self._is_accelerated(machine),
            )
        network.await_carrier()

        def learned() -> bool:
            waiting = [each for each in machines if not each.has_routers()]
            for each in waiting:
                network.announce_routers(each.vm)
            return not waiting

        if not found_within(ROUTER_PATIENCE, learned, pause=0.01):
            raise MachineError("a machine has not learned its router of IPv6")

    def add_vf(self, node: str, link: str, nic: int, network: HostNetwork) -> None:
        """Let a link appear that has the NIC's MAC and is enslaved to its link.

        Raises:
            ValueError: the machine has no link that another can be enslaved to.
            ToolError: it is there already.
        """
        machine = self.machines[node]
        if not self._is_accelerated(machine):
            raise ValueError("there are VFs only on nodes of a fabric with accelerated networking")
        network.plug_in_vf(machine.nics[nic].mac, machine.holder_pid, link)
        machine.run_batch([f"link set {link} master eth{nic}", f"link set {link} up"])

    def rename_vf(self, node: str, link: str, nic: int) -> None:
        """Give the VF of a NIC another name. Raises ValueError when there is none."""
        machine = self.machines[node]
        names = machine.run(["ls", f"/sys/class/net/eth{nic}/brif"]).stdout.split()
        present = next((name for name in names if name != f"synth{nic}"), None)
        if present is None:
            raise ValueError(f"{node} has no VF now")
        machine.run_batch(
            [f"link set {present} down", f"link set {present} name {link}", f"link set {link} up"]
        )

    def _links(self, machine: Machine) -> tuple[str, ...]:
        kind = "synth" if self._is_accelerated(machine) else "eth"
        return tuple(f"{kind}{index}" for index in range(len(machine.nics)))

    def _is_accelerated(self, machine: Machine) -> bool:
        return self.build.accelerated and is_node(machine.name)

    def _files(self, machine: Machine) -> dict[str, str]:
        estate = self._estate()
        known = [("127.0.0.1", "localhost"), ("127.0.1.1", machine.name)]
        known += [
            (str(vm.primary_nic.primary_ip), vm.computer_name)
            for vm in estate.vms
            if vm.computer_name != machine.name
        ]
        known += [(address, name) for name, address in clouds.endpoints(estate.environment).items()]
        return {"/etc/hosts": "".join(f"{address} {name}\n" for address, name in known)}


def is_node(name: str) -> bool:
    """Whether a machine of that name is a node."""
    return name.startswith("node")
