"""Faults that a test or an operator switches on: which there are, where they hold, what they distort.

Must not know sockets or documents: the surfaces ask what is wrong now and behave accordingly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from integration.fabric.model import Estate, IpConfiguration, Nic, Surface, Vm


class Garbage(StrEnum):
    """What comes instead of the document, with its status."""

    HTML = "html"
    """A page of some proxy."""
    TRUNCATED = "truncated"
    """The first half of the right document, with its length stated rightly."""
    CUT = "cut"
    """The first half, then the connection breaks."""
    BINARY = "binary"


class Empty(StrEnum):
    """What is missing in a document that is well-formed otherwise."""

    INTERFACES = "interfaces"
    ADDRESSES = "addresses"
    """The NICs are there, without a single IP configuration."""
    SECONDARIES = "secondaries"
    """Only the primary addresses are there."""


class UnfitFault(ValueError):
    """This fault makes no sense for this surface; the message says what does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a surface; several fields may be set at once."""

    node: str | None = None
    """Only for this machine; None: for all."""
    times: int | None = None
    """Only for so many requests from now on; None: until cleared."""
    delay: float = 0.0
    """Seconds before the answer."""
    hang: bool = False
    """Take the request and never answer; of the fabric: the machine is cut off."""
    refused: bool = False
    """Connections are reset."""
    status: int | None = None
    """Answer with this HTTP status."""
    retry_after: int | None = None
    """Seconds in a Retry-After header that goes with ``status``."""
    garbage: Garbage | None = None
    empty: Empty | None = None
    partial: int | None = None
    """Only so many IP configurations of every NIC are listed."""
    stale: bool = False
    """Nothing that changes from now on is shown."""
    trickle: float = 0.0
    """Seconds between two bytes of the body."""
    loss: int = 0
    """Percent of the packets that get lost on each machine's way in and out; of the fabric only."""

    @classmethod
    def of(cls, **what: Any) -> Fault:
        """A fault from names and plain values, as tests and the command line write them.

        Raises:
            UnfitFault: there is no such fault, or no such kind of it; the message lists those there are.
        """
        known = {each.name for each in fields(cls)}
        if unknown := set(what) - known:
            raise UnfitFault(f"no fault is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        kinds: dict[str, type[Garbage | Empty]] = {"garbage": Garbage, "empty": Empty}
        for name, kind in kinds.items():
            if what.get(name) is not None:
                try:
                    what[name] = kind(what[name])
                except ValueError:
                    names = ", ".join(each.value for each in kind)
                    raise UnfitFault(f"{name} is one of {names}, not {what[name]}") from None
        return cls(**what)

    def described(self) -> str:
        """The fields that are set, for people."""
        shown = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value != each.default:
                shown.append(f"{each.name}={value}")
        return " ".join(shown) or "nothing"


_HTTP_ONLY = ("delay", "refused", "status", "retry_after", "garbage", "trickle", "times")


def check(surface: Surface, fault: Fault) -> None:
    """Raise UnfitFault for a combination that would silently do nothing."""
    if fault.stale and fault.node:
        raise UnfitFault("a stale view holds for a whole surface: leave the node out")
    if fault.stale and surface is Surface.IDENTITY:
        raise UnfitFault("the identity endpoint shows no addresses, so it can't be stale")
    if surface is Surface.FABRIC:
        wrong = [name for name in _HTTP_ONLY if getattr(fault, name) != _default(name)]
        if wrong:
            raise UnfitFault(
                f"the fabric carries packets and has no {', '.join(wrong)}; it can hang, loss, stale, "
                "empty, partial; for late changes set its lag"
            )
    elif surface is Surface.DNS:
        allowed = ("node", "times", "delay", "hang")
        if any(getattr(fault, e.name) != e.default for e in fields(Fault) if e.name not in allowed):
            raise UnfitFault("DNS can hang or be delayed, nothing else")
    elif fault.loss:
        raise UnfitFault(f"loss is for the fabric, not for {surface.value}")
    if fault.refused and fault.times is not None and surface is not Surface.IDENTITY:
        raise UnfitFault("connections are refused before a request can be counted: leave times out")
    if not 0 <= fault.loss <= 100:
        raise UnfitFault(f"loss is a percentage, not {fault.loss}")
    if fault.delay < 0 or fault.trickle < 0 or (fault.partial or 0) < 0:
        raise UnfitFault("delay, trickle and partial are not negative")
    if fault.status is not None and not 200 <= fault.status <= 599:
        raise UnfitFault(f"{fault.status} is no HTTP status")


@dataclass(slots=True)
class _Switched:
    fault: Fault
    left: int | None = None
    lifted: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Now:
    """What is wrong for one request; ``lifted`` is set when the fault is cleared or replaced."""

    fault: Fault = field(default_factory=Fault)
    lifted: threading.Event = field(default_factory=threading.Event)


class FaultBoard:
    """The switches. Safe for threads; ``changed`` is called after every change, outside the lock."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._switched: dict[tuple[Surface, str | None], _Switched] = {}
        self._lock = threading.Lock()
        self._changed = changed

    def set(self, surface: Surface, fault: Fault) -> None:
        """Switch a fault on; it replaces the one for the same surface and machine. Raises UnfitFault."""
        check(surface, fault)
        with self._lock:
            self._drop(surface, fault.node)
            self._switched[surface, fault.node] = _Switched(fault, fault.times)
        self._changed()

    def clear(self, surface: Surface | None = None) -> None:
        """Switch everything off, or everything of one surface."""
        with self._lock:
            for key in [key for key in self._switched if surface is None or key[0] is surface]:
                self._drop(*key)
        self._changed()

    def for_request(self, surface: Surface, machine: str) -> Now:
        """What is wrong for a request of that machine; counts it against ``times``."""
        with self._lock:
            for key in ((surface, machine), (surface, None)):
                switched = self._switched.get(key)
                if switched is None:
                    continue
                now = Now(switched.fault, switched.lifted)
                if switched.left is not None:
                    switched.left -= 1
                    if switched.left <= 0:
                        del self._switched[key]
                return now
        return Now()

    def active(self) -> list[tuple[Surface, Fault]]:
        """Everything that is switched on now."""
        with self._lock:
            return [
                (surface, replace(switched.fault, times=switched.left))
                for (surface, _), switched in self._switched.items()
            ]

    def of(self, surface: Surface) -> list[Fault]:
        """What is switched on for one surface."""
        return [fault for other, fault in self.active() if other is surface]

    def _drop(self, surface: Surface, node: str | None) -> None:
        switched = self._switched.pop((surface, node), None)
        if switched is not None:
            switched.lifted.set()


def distort(estate: Estate, fault: Fault) -> Estate:
    """The estate as a faulty surface shows it: NICs or configurations missing."""
    if fault.empty is None and fault.partial is None:
        return estate
    return replace(
        estate,
        vms=tuple(
            _distort_vm(vm, fault) if fault.node in (None, vm.computer_name) else vm for vm in estate.vms
        ),
    )


def _distort_vm(vm: Vm, fault: Fault) -> Vm:
    if fault.empty is Empty.INTERFACES:
        return replace(vm, nics=())
    return replace(vm, nics=tuple(_distort_nic(nic, fault) for nic in vm.nics))


def _distort_nic(nic: Nic, fault: Fault) -> Nic:
    on_host = None if nic.on_host is None else _distort_entries(nic.on_host, fault)
    left = {Empty.ADDRESSES: 0, Empty.SECONDARIES: 1}.get(fault.empty) if fault.empty else fault.partial
    return replace(
        nic,
        configurations=_distort_entries(nic.configurations, fault),
        on_host=on_host,
        configurations_v6=nic.configurations_v6[:left],
        on_host_v6=None if nic.on_host_v6 is None else nic.on_host_v6[:left],
    )


def _distort_entries(entries: tuple[IpConfiguration, ...], fault: Fault) -> tuple[IpConfiguration, ...]:
    if fault.empty is Empty.ADDRESSES:
        entries = ()
    elif fault.empty is Empty.SECONDARIES:
        entries = tuple(entry for entry in entries if entry.primary)
    if fault.partial is not None:
        entries = entries[: fault.partial]
    return entries


def _default(name: str) -> object:
    return next(each.default for each in fields(Fault) if each.name == name)
