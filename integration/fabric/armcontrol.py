"""The switches of ARM by words, as a shell gives them; tests use the objects of `Arm` themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from integration.fabric.armoperations import Outcome
from integration.fabric.armroles import NAMED
from integration.fabric.model import State

if TYPE_CHECKING:
    from integration.fabric.arm import Arm


class UnfitSwitch(ValueError):
    """There is no such switch, or it takes other words; the message lists what there is."""


def switch(arm: Arm, name: str, words: list[str]) -> Any:
    """Set one switch; returns what it has to tell.

    Raises:
        UnfitSwitch: the words make no sense.
    """
    if name not in SWITCHES:
        raise UnfitSwitch(f"ARM has no switch {name}; there are {', '.join(SWITCHES)}")
    try:
        return SWITCHES[name](arm, *words)
    except (TypeError, ValueError, KeyError) as error:
        raise UnfitSwitch(f"arm {name} {' '.join(words)}: {error}") from error


def _role(arm: Arm, name: str) -> None:
    if name not in NAMED:
        raise UnfitSwitch(f"there is no role {name}; there are {', '.join(NAMED)}")
    arm.roles.give(name)


def _speed(arm: Arm, factor: str) -> None:
    speed = float(factor)
    if not 0 < speed < float("inf"):
        raise UnfitSwitch("the speed is a number above 0")
    arm.operations.speed = speed


def _fail(arm: Arm, times: str = "1", state: str = "Failed") -> None:
    words = {"Failed": ("InternalServerError", "An error occurred.")}
    ends = State(state)
    arm.operations.outcomes.extend([Outcome(ends, *words.get(state, ("", "")))] * int(times))


def _throttle(arm: Arm, times: str = "1", retry_after: str = "1", by: str = "provider") -> None:
    arm.faults.throttle(int(times), int(retry_after), by_gateway=by == "gateway")


def _edit(arm: Arm, nic: str) -> None:
    arm.edit_nic(nic, _tag)


def _tag(document: dict[str, Any]) -> None:
    tags = document.setdefault("tags", {})
    tags["edits"] = str(int(tags.get("edits", "0")) + 1)


def _between(arm: Arm) -> None:
    arm.faults.other_writers.append(_tag)


def _clear(arm: Arm) -> None:
    arm.faults.clear()
    arm.operations.outcomes.clear()
    arm.operations.release()


SWITCHES: dict[str, Callable[..., Any]] = {
    "role": _role,
    "take": lambda arm, action: arm.roles.take(action),
    "speed": _speed,
    "hold": lambda arm: arm.operations.hold(),
    "release": lambda arm: arm.operations.release(),
    "finish": lambda arm: arm.operations.finish(),
    "fail": _fail,
    "throttle": _throttle,
    "full": lambda arm, subnet: arm.faults.full_subnets.add(subnet),
    "edit": _edit,
    "between": _between,
    "reconcile": lambda arm: arm.reconcile(),
    "log": lambda arm: arm.log.counts(),
    "clear": _clear,
}
"""What there is, with the words that each takes."""
