"""``provision.mode: node``: the agent writes its NIC itself.

It must not know how a NIC is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugin.agent.provision_thread import ProvisionThread
from ipam.ipam import boottime
from ipam.provision.azure import ThisMachine
from ipam.provision.provisioner import Provisioner
from ipam.provision.tally import Tally

if TYPE_CHECKING:
    from cni_plugin.agent.settings import Settings
    from cni_plugin.node import Node
    from ipam.provision.nic_writer import NicWriter
    from ipam.provision.progress import Progress


class NodeModeThread(ProvisionThread):
    """``progress.Surroundings``."""

    def __init__(self, node: Node, settings: Settings, *more: Any) -> None:
        super().__init__(node, *more)
        wanted = settings.provision
        assert wanted is not None
        tally = Tally(node.ipam.count, boottime)
        self._machine = ThisMachine(settings.arm, self._wait, boottime, tally)
        self._provisioner = Provisioner(
            node.ipam, self, tally, wanted.sizes, wanted.subnet, dry_run=wanted.dry_run
        )

    @property
    def progress(self) -> Progress:
        """What is being done."""
        return self._provisioner.progress

    def writer(self, subnet: str) -> NicWriter:
        """What changes the NIC that pods leave by."""
        return self._machine.writer(self.nic_mac(), subnet)

    def _step(self) -> None:
        self._provisioner.step()
