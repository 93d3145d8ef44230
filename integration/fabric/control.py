"""The control socket of a running fabric: what a shell asks, the same that tests call.

One connection, one JSON object each way, ended by a newline: ``{"do": NAME, ...}`` and
``{"ok": RESULT}`` or ``{"error": TEXT}``. The socket lies in the fabric's folder, root's alone.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import asdict
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from integration.fabric import armcontrol, records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.fabric.fabric import Fabric

SOCKET = "control.sock"
_PATIENCE = 60.0
"""Seconds for an answer; a reboot takes less than one."""

Wanted = int | tuple[IPv4Address, ...]


class ControlError(RuntimeError):
    """The fabric refused, or does not answer; the message says what to do."""


def ask(name: str, do: str, *, patience: float = _PATIENCE, **arguments: Any) -> Any:
    """Ask a running fabric; the answer may take ``patience`` seconds.

    Raises:
        ControlError: it is not running, does not answer, or refuses.
    """
    path = records.root() / name / SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(path))
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as stream:
                answer = json.loads(stream.readline() or "{}")
    except (OSError, ValueError) as error:
        raise ControlError(
            f"fabric {name} does not answer ({error}); is it up? see: python -m integration.fabric list"
        ) from error
    if "ok" not in answer:
        raise ControlError(str(answer.get("error", f"fabric {name} ended while it was asked")))
    return answer["ok"]


class Controlled(Protocol):
    """What can be asked: a fabric, or a process that ends like one."""

    @property
    def name(self) -> str:
        """Unique on this machine."""

    @property
    def commands(self) -> dict[str, Callable[..., Any]]:
        """Beside or instead of those that every fabric knows."""


class ControlServer:
    """One thread that answers at the control socket until `close`."""

    def __init__(self, fabric: Controlled, folder: Path, stop: Callable[[], None] | None) -> None:
        self._fabric = fabric
        self._stop = stop
        self._listener = socket.socket(socket.AF_UNIX)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"{fabric.name} control", daemon=True)
        try:
            self._listener.bind(str(folder / SOCKET))
            self._listener.listen(16)
        except BaseException:
            self._listener.close()
            raise
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), name="control", daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_PATIENCE)
            with connection.makefile("rb") as stream:
                answer = self._answer(stream.readline())
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            do = request.pop("do")
            if do == "down":
                return self._down()
            commands = {**COMMANDS, **self._fabric.commands}
            if do not in commands:
                return {"error": f"a fabric can't {do}; it can {', '.join(commands)}, down"}
            return {"ok": commands[do](self._fabric, **request)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who asked has to know
            return {"error": str(error) or type(error).__name__}

    def _down(self) -> dict[str, Any]:
        if self._stop is None:
            return {"error": f"fabric {self._fabric.name} belongs to a running program, which ends it"}
        self._stop()
        return {"ok": None}


def _status(fabric: Fabric) -> dict[str, Any]:
    counters = fabric.drop_counters()
    return {
        "name": fabric.name,
        "mtu": fabric.mtu,
        "machines": [
            {
                "name": machine.name,
                "pid": machine.holder_pid,
                "nics": [
                    {
                        "name": nic.name,
                        "mac": nic.mac,
                        "subnet": str(nic.subnet.prefix),
                        "primary": str(nic.primary_ip),
                        "secondaries": [str(entry.block).removesuffix("/32") for entry in nic.secondaries],
                        "unfinished": sum(e not in nic.delivered for e in nic.configurations),
                    }
                    for nic in machine.nics
                ],
                "spoofed": counters.spoofed.get(machine.name, 0),
                "platform": counters.platform.get(machine.name, 0),
            }
            for machine in fabric.machines.values()
        ],
        "faults": [[surface.value, fault.described()] for surface, fault in fabric.board.active()],
        "lags": {s.value: str(lag) for s, lag in fabric.goal.lags().items() if lag},
    }


def _machine(fabric: Fabric, machine: str) -> dict[str, Any]:
    if machine not in fabric.machines:
        raise ValueError(f"there is no machine {machine}; there are {', '.join(fabric.machines)}")
    found = fabric.machines[machine]
    return {"pid": found.holder_pid, "variables": found.own_variables}


def _fault(fabric: Fabric, surface: str, what: dict[str, Any]) -> None:
    fabric.fault(surface, **what)


def _lag(fabric: Fabric, surface: str, seconds: float) -> None:
    fabric.lag(surface, seconds)


def _addresses(words: Sequence[str]) -> Wanted:
    if len(words) == 1 and words[0].isdecimal():
        return int(words[0])
    return tuple(IPv4Address(word) for word in words)


def _address_add(fabric: Fabric, machine: str, addresses: list[str], state: str) -> list[str]:
    _machine(fabric, machine)
    return [str(a) for a in fabric.add_addresses(machine, _addresses(addresses), state=state)]


def _address_remove(fabric: Fabric, machine: str, addresses: list[str]) -> None:
    _machine(fabric, machine)
    fabric.remove_addresses(machine, _addresses(addresses))


def _address_state(fabric: Fabric, machine: str, addresses: list[str], state: str) -> None:
    _machine(fabric, machine)
    fabric.set_state(machine, [IPv4Address(word) for word in addresses], state)


def _address_public(fabric: Fabric, machine: str, addresses: list[str], basic: bool) -> list[str]:
    _machine(fabric, machine)
    return [str(fabric.give_public(machine, ip_address(word), basic=basic)) for word in addresses]


def _address_private(fabric: Fabric, machine: str, addresses: list[str]) -> None:
    _machine(fabric, machine)
    for word in addresses:
        fabric.take_public(machine, ip_address(word))


def _clear(fabric: Fabric, surface: str | None) -> None:
    fabric.clear_faults(surface)


def _reboot(fabric: Fabric, machine: str) -> None:
    _machine(fabric, machine)
    fabric.reboot(machine)


def _vf(fabric: Fabric, machine: str, action: str, link: str, nic: int) -> None:
    _machine(fabric, machine)
    nics = fabric.machines[machine].nics
    if not 0 <= nic < len(nics):
        raise ValueError(f"{machine} has {len(nics)} NICs, numbered from 0")
    if action == "remove":
        fabric.remove_vf(machine, nic=nic)
    else:
        {"add": fabric.add_vf, "rename": fabric.rename_vf}[action](machine, link, nic=nic)


def _arm(fabric: Fabric, switch: str, words: list[str]) -> Any:
    return armcontrol.switch(fabric.arm, switch, words)


def _counters(fabric: Fabric) -> dict[str, Any]:
    return asdict(fabric.drop_counters())


COMMANDS: dict[str, Callable[..., Any]] = {
    "status": _status,
    "machine": _machine,
    "fault": _fault,
    "clear": _clear,
    "lag": _lag,
    "address-add": _address_add,
    "address-remove": _address_remove,
    "address-state": _address_state,
    "address-public": _address_public,
    "address-private": _address_private,
    "reboot": _reboot,
    "vf": _vf,
    "arm": _arm,
    "counters": _counters,
}
"""What can be asked, with the arguments by name."""
