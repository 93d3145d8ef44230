"""The resource AzvnetNode, through which a node's agent and the cluster's operator cooperate. Pure.

Each half has one writer: the agent of the node with that name writes ``spec``, the operator writes
``status``. Both are read strictly (``fields``). The CustomResourceDefinition with the same fields and
bounds is packaging/helm/azvnet/files/azvnetnodes.azvnet.io.yaml; a unit test compares the two. It must
not know how a resource is read or written, nor what follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.azure_limits import BLOCK, NIC_CONFIGURATIONS
from ipam.provision.fields import AddressField, Block, FieldError, Flag, Items, JsonObject, Real, Text, Whole
from ipam.provision.nic_document import Configuration
from ipam.provision.plan import Counts, Sizes
from ipam.value import Value

if TYPE_CHECKING:
    from ipam.model import IPAddress

GROUP, VERSION, PLURAL, KIND = "azvnet.io", "v1alpha1", "azvnetnodes", "AzvnetNode"
API_VERSION = f"{GROUP}/{VERSION}"
PROTOCOL = 1
"""Of an agent or operator that was made with this module. It becomes another number only where unknown fields
can't be passed over."""

MOST_ADDRESSES = NIC_CONFIGURATIONS * BLOCK
MOST_CONFIGURATIONS = 2 * NIC_CONFIGURATIONS
"""Of both families."""
MOST_VANISHED = 256
"""Names are listed up to this number; more would not help anybody."""
_LARGEST = 2**31 - 1
_GENERATIONS = 2**53 - 1
"""The API server keeps a bound as a floating point number, and one that has no exact one becomes negative."""

GROWING, SHRINKING = "growing", "shrinking"
PROVISIONED = "Provisioned"
"""The type of the only condition."""


class Machine(Value):
    """The virtual machine of a node, from its IMDS, and the NIC by which its pods' packets leave."""

    resource_id: str = ""
    vm_id: str = ""
    """Unique in all of Azure; a different one means that the machine was recreated under the same name."""
    environment: str = ""
    """The cloud: ``AzurePublicCloud``, ``AzureChinaCloud``, ..."""
    location: str = ""
    mac: str = ""
    """Lower case with colons; empty: the primary NIC."""


class PoolReport(Value):
    """The pool of the NIC, counted with the status of revision ``NodeSpec.seen``; see ``plan.Counts``. The
    states are disjoint.
    """

    held: int = 0
    free: int = 0
    cooling: int = 0
    unusable: int = 0
    releasing: int = 0
    """Marked, because they are in ``NodeSpec.releasing`` or were a moment ago: free as soon as the agent has
    withdrawn them."""
    in_flight: int = 0
    waiting: int = 0
    arrivals_per_minute: float = 0.0

    def counts(self, configurations: int, *, removing: bool = False) -> Counts:
        """The same for the planner.

        What is releasing counts as free, so that a surplus stays one while the agent marks it, and pods that
        come are served from it; unless the operator is ``removing`` it.
        """
        return Counts(
            held=self.held,
            free=self.free + (0 if removing else self.releasing),
            cooling=self.cooling,
            unusable=self.unusable + (self.releasing if removing else 0),
            in_flight=self.in_flight,
            waiting=self.waiting,
            arrivals=self.arrivals_per_minute / 60,
            configurations=configurations,
        )


class NodeSpec(Value):
    """Written by the agent."""

    protocol: int = PROTOCOL
    machine: Machine = Machine()
    sizes: Sizes = Sizes()
    subnet: str = ""
    """Name or id of the subnet that the NIC has to be in; empty: any."""
    dry_run: bool = False
    """Only report what would be done."""
    pool: PoolReport = PoolReport()
    seen: int = 0
    """``NodeStatus.revision`` with which the pool was counted; 0: none yet."""
    releasing: tuple[str, ...] = ()
    """IP configurations of which every address is marked in the node's store: no pod can be given one. They
    may be removed, also those that nobody asked for: one whose operation failed is offered by itself."""
    vanished: tuple[IPAddress, ...] = ()
    """What live pods hold and the NIC did not have in ``seen``; ``MOST_VANISHED`` of them at most."""
    renew_time: str = ""
    """RFC 3339. Another one with every write; the operator measures by its own clock when it came."""


class NicShown(Value):
    """The NIC that the operator writes."""

    id: str = ""
    name: str = ""
    instance: str = ""
    """Id of the instance of a Uniform scale set; empty: it is of none."""
    mac: str = ""
    subnet: str = ""
    """Its id."""


class Operation(Value):
    """A write to the NIC that has not ended."""

    kind: str = GROWING
    """``GROWING`` or ``SHRINKING``."""
    addresses: int = 0
    since: str = ""
    """RFC 3339."""


class Condition(Value):
    """See "Typical status properties" in Kubernetes' API conventions."""

    type: str = PROVISIONED
    status: str = "Unknown"
    """``True``, ``False`` or ``Unknown``."""
    reason: str = ""
    """``NodeStatus.state`` in CamelCase."""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class NodeStatus(Value):
    """Written by the operator."""

    revision: int = 0
    """Incremented whenever the configurations have changed; 0: the NIC has not been read yet."""
    nic: NicShown = NicShown()
    configurations: tuple[Configuration, ...] = ()
    addresses: int = 0
    """For pods: IPv4, not the primary one."""
    state: str = ""
    """See ``progress.PHASES``; empty: the operator has not written anything yet."""
    text: str = ""
    remedy: str = ""
    surplus: int = 0
    """So many addresses the agent is asked to mark and to name in ``NodeSpec.releasing``, those that are
    there already included; 0 from when they begin to go until it was planned again."""
    releasing: tuple[str, ...] = ()
    """Being taken from the NIC: the agent keeps them marked. A PUT takes only those that are still in
    ``NodeSpec.releasing``, of a spec renewed a moment ago: an agent that was cut off has withdrawn them."""
    operation: Operation | None = None
    observed_generation: int = 0
    """``metadata.generation`` of the spec that all of this follows from."""
    last_read_time: str = ""
    """RFC 3339: when the NIC was read."""
    conditions: tuple[Condition, ...] = ()


class AzvnetNode(Value):
    """The whole resource, without what nobody here uses."""

    name: str
    """That of the Kubernetes node."""
    uid: str = ""
    resource_version: str = ""
    """Sent back with a write, which fails if something else has written in the meantime."""
    generation: int = 0
    """The API server adds one with every change of ``spec``."""
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def is_older_than(self, known: AzvnetNode) -> bool:
        """Whether ``known`` is a later state of the same resource: what is watched may come late."""
        said, known_said = self.status, known.status
        return self.uid == known.uid and (
            self.generation < known.generation
            or said.revision < known_said.revision
            or said.observed_generation < known_said.observed_generation
        )


_ID = Text(1024)
_WORD = Text(64)
_TIME = Text(64)
_COUNT = Whole(_LARGEST)
_NAME = Text(80)
_NAMES = Items(_NAME, NIC_CONFIGURATIONS)

SPEC = JsonObject(
    NodeSpec,
    protocol=_COUNT,
    machine=JsonObject(
        Machine, resource_id=_ID, vm_id=_WORD, environment=_WORD, location=_WORD, mac=Text(17)
    ),
    sizes=JsonObject(
        Sizes,
        {"shrink_after": "shrinkAfterSeconds"},
        minimum=Whole(MOST_ADDRESSES),
        batch=Whole(MOST_ADDRESSES),
        low=Whole(MOST_ADDRESSES),
        high=Whole(MOST_ADDRESSES),
        maximum=Whole(MOST_ADDRESSES),
        shrink_after=Real(1e9),
        prefixes=Flag(),
    ),
    subnet=_ID,
    dry_run=Flag(),
    pool=JsonObject(
        PoolReport,
        held=_COUNT,
        free=_COUNT,
        cooling=_COUNT,
        unusable=_COUNT,
        releasing=_COUNT,
        in_flight=_COUNT,
        waiting=_COUNT,
        arrivals_per_minute=Real(1e6),
    ),
    seen=_COUNT,
    releasing=_NAMES,
    vanished=Items(AddressField(), MOST_VANISHED),
    renew_time=_TIME,
)
"""``spec`` as JSON."""

STATUS = JsonObject(
    NodeStatus,
    revision=_COUNT,
    nic=JsonObject(NicShown, id=_ID, name=_NAME, instance=_ID, mac=Text(17), subnet=_ID),
    configurations=Items(
        JsonObject(
            Configuration,
            {"block": "address", "is_ours": "ours"},
            {"block": None, "primary": False, "state": "", "is_ours": False},
            name=_NAME,
            block=Block(),
            primary=Flag(),
            state=_WORD,
            is_ours=Flag(),
        ),
        MOST_CONFIGURATIONS,
    ),
    addresses=_COUNT,
    state=_WORD,
    text=Text(1024, cut=True),
    remedy=Text(1024, cut=True),
    surplus=_COUNT,
    releasing=_NAMES,
    operation=JsonObject(Operation, kind=_WORD, addresses=_COUNT, since=_TIME),
    observed_generation=Whole(_GENERATIONS),
    last_read_time=_TIME,
    conditions=Items(
        JsonObject(
            Condition,
            type=Text(316),
            status=_WORD,
            reason=Text(1024),
            message=Text(1024, cut=True),
            last_transition_time=_TIME,
            observed_generation=Whole(_GENERATIONS),
        ),
        8,
    ),
)
"""``status`` as JSON."""


def read(document: object) -> AzvnetNode:
    """A resource as the API server shows it.

    Raises:
        FieldError: something in it has the wrong type or is out of bounds; says what.
    """
    if not isinstance(document, dict):
        raise FieldError("it is not a JSON object")
    found = _METADATA.read(document.get("metadata"), "metadata")
    return AzvnetNode(
        found.name,
        found.uid,
        found.resource_version,
        found.generation,
        SPEC.read(_or_empty(document.get("spec")), "spec"),
        STATUS.read(_or_empty(document.get("status")), "status"),
    )


def with_spec(name: str, spec: NodeSpec, resource_version: str = "") -> dict[str, Any]:
    """The document with which an agent makes its resource, or replaces its half of it."""
    metadata = {"name": name}
    if resource_version:
        metadata["resourceVersion"] = resource_version
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": SPEC.write(spec)}


def _or_empty(half: object) -> object:
    return {} if half is None else half


class _Metadata(Value):
    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0


_METADATA = JsonObject(
    _Metadata, name=Text(253), uid=Text(128), resource_version=Text(128), generation=Whole(_GENERATIONS)
)
