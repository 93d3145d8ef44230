"""Who may do what in ARM: the actions of roles, and the refusals of those who have not got them.

Sources: Azure, resource provider operations (names of actions); wordings of refusals as users report them.
ARM also looks at what a written document refers to: each reference needs an action on the other resource.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from integration.fabric.armanswers import error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from integration.fabric.web import Response

NIC = "Microsoft.Network/networkInterfaces"
VNET = "Microsoft.Network/virtualNetworks"
SUBNET = f"{VNET}/subnets"
SCALE_SET = "Microsoft.Compute/virtualMachineScaleSets"
INSTANCE = f"{SCALE_SET}/virtualMachines"
INSTANCE_NIC = f"{INSTANCE}/networkInterfaces"
MACHINE = "Microsoft.Compute/virtualMachines"

READER = frozenset({"*/read"})
"""The built-in role Reader."""

NIC_WRITER = frozenset(
    {f"{NIC}/read", f"{NIC}/write", f"{VNET}/read", f"{SUBNET}/read", f"{SUBNET}/join/action"}
)
"""What it takes to add addresses to NICs that refer to nothing but their subnet."""

JOINS = {
    "subnet": f"{SUBNET}/join/action",
    "networkSecurityGroup": "Microsoft.Network/networkSecurityGroups/join/action",
    "publicIPAddress": "Microsoft.Network/publicIPAddresses/join/action",
    "applicationSecurityGroups": "Microsoft.Network/applicationSecurityGroups/joinIpConfiguration/action",
    "loadBalancerBackendAddressPools": "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
    "loadBalancerInboundNatRules": "Microsoft.Network/loadBalancers/inboundNatRules/join/action",
    "imageReference": "Microsoft.Compute/galleries/images/versions/read",
    "applicationGatewayBackendAddressPools": (
        "Microsoft.Network/applicationGateways/backendAddressPools/join/action"
    ),
}
"""The action that a reference needs, by the property of a NIC or of an IP configuration."""

WRITER = NIC_WRITER | frozenset(action for action in JOINS.values() if action.startswith("Microsoft.Network"))
"""The same for NICs with a security group, load balancer pools and so on, and no more."""

UNIFORM_WRITER = WRITER | frozenset(
    {
        f"{SCALE_SET}/read",
        f"{SCALE_SET}/networkInterfaces/read",
        f"{INSTANCE}/read",
        f"{INSTANCE}/write",
        f"{INSTANCE_NIC}/read",
        f"{INSTANCE_NIC}/ipConfigurations/read",
    }
)
"""The same for instances of Uniform scale sets."""

NAMED = {
    "reader": READER,
    "nic-writer": NIC_WRITER,
    "writer": WRITER,
    "uniform-writer": UNIFORM_WRITER,
    "none": frozenset[str](),
}
"""Roles by the names that a shell uses."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is, from the token."""

    client_id: str
    object_id: str


@dataclass(slots=True)
class Roles:
    """The actions of each identity; everybody is a Reader until a test says otherwise."""

    everybody: frozenset[str] = READER
    own: dict[str, frozenset[str]] = field(default_factory=dict)
    """By client id in lower case: the actions of identities that have other ones than everybody."""
    polls_need_read: bool = False
    """Whether polling an operation takes ``locations/operations/read``; ARM's practice is not documented."""

    def give(self, role: str | Iterable[str], client_id: str | None = None) -> None:
        """Let an identity, or everybody, have exactly a named role's actions, or these.

        Raises:
            KeyError: there is no role of that name.
        """
        actions = NAMED[role] if isinstance(role, str) else frozenset(role)
        if client_id is None:
            self.everybody = actions
            self.own.clear()
        else:
            self.own[client_id.casefold()] = actions

    def take(self, action: str) -> None:
        """Take one action from everybody, as when somebody edits the role while a program runs."""
        gone = action.casefold()
        self.everybody = frozenset(a for a in self.everybody if a.casefold() != gone)
        self.own = {who: frozenset(a for a in had if a.casefold() != gone) for who, had in self.own.items()}

    def refusal(self, caller: Caller, action: str, scope: str) -> Response | None:
        """The answer to somebody who may not do that to the resource."""
        if self._may(caller, action):
            return None
        return error(
            403,
            f"The client '{caller.client_id}' with object id '{caller.object_id}' does not have "
            f"authorization to perform action '{action}' over scope '{scope}' or the scope is invalid. If "
            "access was recently granted, please refresh your credentials.",
            "AuthorizationFailed",
        )

    def linked_refusal(
        self, caller: Caller, action: str, scope: str, references: Iterable[tuple[str, str]]
    ) -> Response | None:
        """The answer to somebody who may write a resource, but not join what its document refers to."""
        for needed, linked in self._missing(caller, references):
            return error(
                403,
                f"The client '{caller.client_id}' with object id '{caller.object_id}' has permission to "
                f"perform action '{action}' on scope '{scope}'; however, it does not have permission to "
                f"perform action '{needed}' on the linked scope(s) '{linked}' or the linked scope(s) are "
                "invalid.",
                "LinkedAuthorizationFailed",
            )
        return None

    def _missing(self, caller: Caller, references: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for name, linked in references:
            needed = JOINS.get(name)
            if needed is not None and not self._may(caller, needed):
                yield needed, linked

    def _may(self, caller: Caller, action: str) -> bool:
        actions = self.own.get(caller.client_id.casefold(), self.everybody)
        return any(fnmatchcase(action.casefold(), granted.casefold()) for granted in actions)
