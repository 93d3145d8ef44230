"""``provision.mode: node``: the agent writes its NIC itself.

It must not know how a NIC is changed, nor how it is found out what is scheduled to the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cni_plugin.agent.provision_thread import ProvisionThread
from cni_plugin.agent.scheduled import ScheduledPods
from ipam.ipam import boottime
from ipam.provision.azure import ThisMachine
from ipam.provision.provisioner import Provisioner
from ipam.provision.tally import Tally
from ipam.value import replace

if TYPE_CHECKING:
    from cni_plugin.agent.requests_made import RequestsMade
    from cni_plugin.agent.settings import Settings
    from cni_plugin.node import Node
    from ipam.provision.nic_writer import NicWriter
    from ipam.provision.progress import Demand, Progress


class NodeModeThread(ProvisionThread):
    """``progress.Surroundings``."""

    def __init__(
        self, environ: Mapping[str, str], node: Node, settings: Settings, requests: RequestsMade, *more: Any
    ) -> None:
        super().__init__(node, *more)
        wanted = settings.provision
        assert wanted is not None
        tally = Tally(node.ipam.count, boottime)
        self._scheduled = ScheduledPods(environ, wanted, self.wake.set, requests.api)
        self._machine = ThisMachine(
            settings.arm, self._wait, boottime, tally, lambda: self._scheduled.provider_id, requests.arm
        )
        self._provisioner = Provisioner(
            node.ipam, self, tally, wanted.sizes, wanted.subnet, dry_run=wanted.dry_run
        )

    @property
    def progress(self) -> Progress:
        """What is being done."""
        progress, unseen = self._provisioner.progress, self._scheduled.unseen
        return replace(progress, unseen=unseen, coming=progress.coming if unseen is None else None)

    def start(self) -> None:
        """Begin."""
        self._scheduled.start()
        super().start()

    def stop(self) -> None:
        """Stop."""
        super().stop()
        self._scheduled.stop()

    def demand(self, held: int) -> Demand | None:
        """What is scheduled to the node."""
        return self._scheduled.demand(held)

    def writer(self, subnet: str) -> NicWriter:
        """What changes the NIC that pods leave by."""
        self._scheduled.first_list(self._wait)  # it says also which machine the Node is
        return self._machine.writer(self.nic_mac(), subnet)

    def _step(self) -> None:
        self._scheduled.settle(self._wait)
        self._provisioner.step()
