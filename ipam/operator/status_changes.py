"""What has to be written into the status of a node's resource: changed fields, and its condition. Pure.

It must not know how it is written, nor why something changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipam.operator.record import STALE, Said
from ipam.provision import progress
from ipam.provision.exchange import PROVISIONED, STATUS, Condition
from ipam.provision.fields import camel
from ipam.value import replace

if TYPE_CHECKING:
    from ipam.provision.exchange import NodeStatus


def with_condition(status: NodeStatus, generation: int, now: str) -> NodeStatus:
    """The status with the condition that follows from its state."""
    verdict = verdict_of(status)
    before = next((each for each in status.conditions if each.type == PROVISIONED), None)
    since = before.last_transition_time if before is not None and before.status == verdict else now
    condition = Condition(
        status=verdict,
        reason=reason_of(status.state),
        message=" ".join(filter(None, (status.text, status.remedy))),
        last_transition_time=since,
        observed_generation=generation,
    )
    others = tuple(each for each in status.conditions if each.type != PROVISIONED)
    return replace(status, observed_generation=generation, conditions=(*others, condition))


def verdict_of(status: NodeStatus) -> str:
    """Whether the NIC can follow demand: ``True``, ``False`` or ``Unknown``."""
    if status.state in {"", progress.STARTING, STALE}:
        return "Unknown"
    return "False" if Said(status.state, "").is_problem else "True"


def reason_of(state: str) -> str:
    """A state in CamelCase, as a condition's reason has to be."""
    name = camel(state.replace("-", "_"))
    return (name[:1].upper() + name[1:]) or "Starting"


def changes(before: NodeStatus, after: NodeStatus) -> dict[str, Any]:
    """The fields that differ, as a merge patch (RFC 7396): what is gone is null."""
    old, new = STATUS.write(before), STATUS.write(after)
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    return changed | dict.fromkeys(old.keys() - new.keys())
