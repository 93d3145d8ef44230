"""The fabric: estate, host network, machines and platform services, put together and taken down.

This is what tests and the command line use; everything else in this package is a part of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

from integration.fabric import armcontrol, changes, clouds, publicips, records, topology
from integration.fabric.arm import Arm
from integration.fabric.certificates import authority
from integration.fabric.control import ControlServer
from integration.fabric.delivery import Delivery
from integration.fabric.faults import Fault, UnfitFault
from integration.fabric.goalstate import GoalState
from integration.fabric.hostnetwork import DropCounters, HostNetwork
from integration.fabric.identity import Identity
from integration.fabric.imds import Imds
from integration.fabric.model import Estate, Placement, State, Surface
from integration.fabric.rack import Build, Rack, is_node
from integration.fabric.routers import LIFETIME
from integration.fabric.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from types import TracebackType
    from typing import Self

    from integration.fabric.machine import Machine


class Fabric:
    """An emulated Azure environment; a context manager that is up inside the block.

    Args:
        nodes: how many nodes, ``node1`` and so on.
        addresses: secondary addresses of every node NIC.
        nics: NICs per node; each further one is in another subnet than the first, unless ``one_subnet``.
        one_subnet: all of them are in one.
        blocks: /28 blocks of every node's primary NIC.
        vnet_hosts: ordinary machines in the same virtual network, ``vm1`` and so on.
        peered_hosts: machines in a peered virtual network, ``peer1`` and so on.
        stranger_hosts: machines in a virtual network that is not peered, ``stranger1`` and so on.
        on_premises_hosts: machines behind the virtual network's VPN gateway, ``onpremises1`` and so on.
        internet: add a machine ``internet`` outside of Azure.
        ipv6: secondary IPv6 addresses of every node NIC; 0: there is no IPv6 anywhere.
        placement: whether the nodes are stand-alone, or instances of a Flexible or Uniform scale set.
        environment: ``azEnvironment`` in IMDS.
        mtu: of every link.
        accelerated: nodes have ``eth0`` and so on as bridges in front, so that VFs can be enslaved to them.
        own_tmp: nodes have a /tmp of their own.
        shuffle_nics: IMDS lists the NICs in another order every time.
        imds_limit: requests per second and machine that IMDS takes; None: any number.
        wireserver_ipv6: its document has IPv6 addresses; it is not known whether Azure's has.
        sysctls: of the nodes, over `rack.SYSCTLS`.
        name: of the fabric, unique on this machine; random when left out.
    """

    def __init__(
        self,
        nodes: int = 2,
        addresses: int = 16,
        *,
        nics: int = 1,
        one_subnet: bool = False,
        blocks: int = 0,
        vnet_hosts: int = 1,
        peered_hosts: int = 0,
        stranger_hosts: int = 0,
        on_premises_hosts: int = 0,
        internet: bool = False,
        ipv6: int = 0,
        placement: Placement | str = Placement.STANDALONE,
        environment: str = "AzurePublicCloud",
        mtu: int = 1500,
        accelerated: bool = False,
        own_tmp: bool = False,
        shuffle_nics: bool = False,
        imds_limit: int | None = 5,
        wireserver_ipv6: bool = False,
        sysctls: Mapping[str, str | int] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or f"f{secrets.token_hex(4)}"
        self.mtu = mtu
        plan = topology.Topology(
            nodes=nodes,
            addresses=addresses,
            nics=nics,
            one_subnet=one_subnet,
            blocks=blocks,
            vnet_hosts=vnet_hosts,
            peered_hosts=peered_hosts,
            stranger_hosts=stranger_hosts,
            on_premises_hosts=on_premises_hosts,
            internet=internet,
            ipv6=ipv6,
            placement=Placement(placement),
            environment=environment,
        )
        self.goal = GoalState(topology.build(plan, self.name))
        self._delivery = Delivery(self.name, self.goal, lambda: self.machines)
        self.board = self._delivery.board
        self.imds = Imds(requests_per_second=imds_limit, shuffle=shuffle_nics)
        self._wireserver_ipv6 = wireserver_ipv6
        self.identity = Identity()
        """Which identities the machines have, and how long tokens live."""
        self.arm = Arm(self.identity.issuer, lambda: self.estate, self.change)
        """ARM: roles, operations, faults of writes, limits, page size, the log of requests."""
        self._rack = Rack(
            self.name, lambda: self.estate, Build(mtu, accelerated, own_tmp, sysctls or {}), self.reboot
        )
        self._undo = contextlib.ExitStack()
        self.stop: Callable[[], None] | None = None
        """What the control socket calls to take the fabric down; None: it may not."""
        self.commands: dict[str, Callable[..., Any]] = {}
        """More requests that the control socket answers, or answers otherwise; see `control.COMMANDS`."""

    @property
    def estate(self) -> Estate:
        """Everything in the emulated cloud, as ARM wants it now."""
        return self.goal.newest

    @property
    def machines(self) -> dict[str, Machine]:
        """All machines by name; none before the fabric was up for the first time."""
        return self._rack.machines

    @property
    def nodes(self) -> dict[str, Machine]:
        """The nodes by name."""
        return {name: m for name, m in self.machines.items() if is_node(name)}

    @property
    def vnet_hosts(self) -> dict[str, Machine]:
        """The machines that are no nodes, by name."""
        return {name: m for name, m in self.machines.items() if not is_node(name)}

    @property
    def network(self) -> HostNetwork:
        """The host network. Raises RuntimeError when the fabric is down."""
        if self._delivery.network is None:
            raise RuntimeError(f"fabric {self.name} is not up")
        return self._delivery.network

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Bring everything up; on failure nothing is left.

        Raises:
            records.FabricExists: the name is taken.
            PermissionError: the process may not make namespaces.
        """
        if os.geteuid() != 0:
            raise PermissionError("the fabric makes namespaces and mounts: run it as root")
        with contextlib.ExitStack() as undo:
            folder = records.claim(self.name)
            undo.callback(records.remove, self.name)
            network = HostNetwork(mtu=self.mtu, services=(clouds.ARM_ADDRESS, clouds.LOGIN_ADDRESS))
            undo.callback(network.close)
            self._delivery.network = network
            self._rack.power_on(folder, undo)
            self._boot(list(self.machines.values()))
            services = Services(
                self.goal,
                self.board,
                self.imds,
                self.identity,
                self.arm,
                authority().server,
                wireserver_ipv6=self._wireserver_ipv6,
            )
            undo.callback(self.arm.close)
            undo.callback(services.close)
            services.start(network.netns)
            undo.callback(self._delivery.watch())
            control = ControlServer(self, folder, self.stop)
            undo.callback(control.close)
            self._undo = undo.pop_all()

    def down(self) -> None:
        """Take everything down. Does nothing when it is down."""
        self._undo.close()
        self._delivery.network = None

    def reboot(self, name: str) -> None:
        """Reboot a machine: every process ends, /run and the network are new, so is the boot id."""
        with self._delivery.lock:
            self.halt(name)
            self.boot(name)

    def halt(self, name: str) -> None:
        """Pull the plug of a machine: every process in it ends; its disk and its addresses stay."""
        machine = self.machines[name]
        with self._delivery.lock:
            self.network.unplug(machine.vm)
            machine.halt()

    def boot(self, name: str) -> None:
        """Start a halted machine again."""
        with self._delivery.lock:
            self._boot([self.machines[name]])

    def add_vf(self, node: str, link: str = "enP1s1", *, nic: int = 0) -> None:
        """Let the VF of a NIC appear: a link with the same MAC, enslaved to ``eth0``, or that of the NIC.

        Raises:
            ValueError: the fabric was not made with ``accelerated``.
            namespaces.ToolError: it is there already.
        """
        self._rack.add_vf(node, link, nic, self.network)

    def remove_vf(self, node: str, *, nic: int = 0) -> None:
        """Let the VF of a NIC disappear, as when its host is serviced. Raises ToolError if none is."""
        self.network.unplug_vf(self.machines[node].nics[nic].mac)

    def rename_vf(self, node: str, link: str, *, nic: int = 0) -> None:
        """Give the VF of a NIC another name, as udev does some time after it appeared."""
        self._rack.rename_vf(node, link, nic)

    def fault(self, surface: Surface | str, **what: Any) -> None:
        """Switch a fault on, such as ``fault("imds", delay=2)``; see `faults.Fault` for the names.

        Raises:
            faults.UnfitFault: there is no such fault, or it makes no sense for that surface.
        """
        fault = Fault.of(**what)
        if fault.node is not None and fault.node not in self.machines:
            raise UnfitFault(f"there is no machine {fault.node}; there are {', '.join(self.machines)}")
        self.board.set(Surface(surface), fault)

    def clear_faults(self, surface: Surface | str | None = None) -> None:
        """Switch all faults off, or those of one surface; those of writes are ARM's."""
        if surface in {None, Surface.ARM}:
            armcontrol.switch(self.arm, "clear", [])
        self.board.clear(None if surface is None else Surface(surface))

    def lag(self, surface: Surface | str, seconds: float) -> None:
        """From now on changes reach the surface so much later (``float("inf")``: never)."""
        self.goal.set_lag(Surface(surface), seconds)

    def add_addresses(
        self, node: str, addresses: int | Iterable[IPv4Address], *, state: State | str = State.SUCCEEDED
    ) -> tuple[IPv4Address, ...]:
        """Give a node's primary NIC so many more secondary addresses, or certain ones; returns them.

        Raises:
            changes.RefusedChange: as ARM would.
        """
        wanted = addresses if isinstance(addresses, int) else tuple(addresses)
        before = set(self.machines[node].pod_addresses)
        self.change(lambda estate: changes.add_addresses(estate, node, wanted, state=State(state)))
        return tuple(address for address in self.machines[node].pod_addresses if address not in before)

    def remove_addresses(self, node: str, addresses: int | Iterable[IPv4Address]) -> None:
        """Take the last so many, or certain, secondary addresses from a node's primary NIC.

        Raises:
            changes.RefusedChange: it has no such addresses.
        """
        wanted = addresses if isinstance(addresses, int) else tuple(addresses)
        self.change(lambda estate: changes.remove_addresses(estate, node, wanted))

    def set_state(self, node: str, addresses: Iterable[IPv4Address], state: State | str) -> None:
        """Set ``provisioningState`` of secondary addresses of a node's primary NIC."""
        wanted = tuple(addresses)
        self.change(lambda estate: changes.set_state(estate, node, wanted, State(state)))

    def give_public(
        self, node: str, address: IPv4Address | IPv6Address, *, basic: bool = False
    ) -> IPv4Address | IPv6Address:
        """Give the configuration with that address a public IP of its own; returns it.

        Raises:
            changes.RefusedChange: there is no such configuration, or it has one.
        """
        self.change(lambda estate: publicips.with_public(estate, node, address, basic=basic))
        estate = self.estate
        return publicips.translated(estate, [estate.vm(node)])[address].address

    def take_public(self, node: str, address: IPv4Address | IPv6Address) -> None:
        """Take it away again. Raises changes.RefusedChange: there is none."""
        self.change(lambda estate: publicips.without_public(estate, node, address))

    def change(self, how: Callable[[Estate], Estate]) -> None:
        """Change the estate by a function from estate to estate; what it raises changes nothing."""
        self.goal.change(how)
        self._delivery.deliver()

    def move_router(self, node: str, address: IPv6Address, *, nic: int = 0, lifetime: int = LIFETIME) -> None:
        """Have another router of IPv6 on a NIC of a node: it announces itself as a default route for so many
        seconds, and the former one is none any more. With the same address: another lifetime, 0 ends it.
        """
        self.network.move_router(self.machines[node].nics[nic].mac, address, lifetime)

    def drop_counters(self) -> DropCounters:
        """What the fabric has dropped so far."""
        return self.network.drop_counters()

    def _boot(self, machines: list[Machine]) -> None:
        self._rack.boot(machines, self.network, self._delivery.deliver, detached=self.stop is not None)
