"""Where addresses come from: stateless readers, one module each, loaded when first used.

A reader returns what Azure lists now and remembers nothing; ``pool`` decides what to do with it. It
must not know the store.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ipam.errors import SourceUnreadable
from ipam.quoting import quoted
from ipam.value import Value

if TYPE_CHECKING:
    from ipam.model import Listing, SourceConfig
    from ipam.sources.arm_subnet import SubnetId, SubnetUsage

HEAD_START = 0.5
"""Seconds that the preferred of two sources has to answer before the other one is asked as well (as RFC 8305
does with addresses). Both normally answer within a few milliseconds, so the order of preference holds, and
one that hangs delays a pod by no more than this."""
_GRACE = 0.2
"""Seconds after the deadline in which the answer of a reader that kept to it may still arrive."""


class Endpoints(Value):
    """Where the two services of the platform are. Other values than Azure's are for tests."""

    imds: str = "http://169.254.169.254"
    wireserver: str = "http://168.63.129.16"


AZURE = Endpoints()


class ArmConfig(Value):
    """How Azure Resource Manager is reached. An empty field: as usual in the node's cloud."""

    credential: str = "auto"
    """``managed-identity``, ``workload-identity``, or ``auto``: the latter if the environment has one."""
    client_id: str = ""
    """Client id of a user-assigned managed identity or the workload's; needed if a machine has several."""
    base_url: str = ""
    """URL to use instead of the cloud's own endpoint."""
    ca_file: str = ""
    """PEM file of the authority that signed the endpoint's certificate, instead of the public ones."""


def read(
    config: SourceConfig,
    deadline: float,
    last: str = "",
    *,
    endpoints: Endpoints = AZURE,
    arm: ArmConfig | None = None,
    public: bool = False,
) -> Listing:
    """Read the source that ``config`` names.

    ``auto`` takes the file if one is named and exists, else the instance metadata service or the wireserver,
    whichever lists addresses first; the one that answered last time has a head start.

    ``deadline`` is in seconds, ``last`` the ``Listing.source`` of the last successful read. Without ``arm``
    the source ``arm`` is refused, since only the agent loads the SDK. ``public``: see ``imds.read``; the
    wireserver, which does not report public addresses, then has no head start. Without it the addresses that
    have a public one may be incomplete.

    Raises:
        SourceUnreadable: no answer, or not an address document; for ``auto``, the error of each source.
    """
    until = time.monotonic() + deadline
    if config.environment == "arm":
        return _read_arm(arm, endpoints, until)
    if config.environment != "auto":
        return _read_one(config.environment, config, until, endpoints, public=public)
    if config.file and Path(config.file).exists():
        return _read_one("file", config, until, endpoints)
    order = ("wireserver", "imds") if last == "wireserver" and not public else ("imds", "wireserver")
    return _first_answer(order, config, until, endpoints, public=public)


def subnet_usage(
    subnet: SubnetId, deadline: float, arm: ArmConfig, *, endpoints: Endpoints = AZURE
) -> SubnetUsage:
    """How full a subnet is; ``deadline``: seconds for finding out where ARM is.

    Raises:
        SourceUnreadable: ARM can't be reached, refuses, or gives no count; the remedy says what to do.
    """
    _expect_no_guessing()
    from ipam.sources import arm_subnet

    return arm_subnet.read(subnet, arm, endpoints.imds, time.monotonic() + deadline)


def _read_arm(config: ArmConfig | None, endpoints: Endpoints, until: float) -> Listing:
    if config is None:
        raise SourceUnreadable(
            "source arm is read by the agent only, which has not done so yet",
            "Start the agent, or choose another `ipam.environment`.",
        )
    _expect_no_guessing()
    from ipam.sources import arm

    return arm.read(config, endpoints.imds, until)


def _expect_no_guessing() -> None:
    """Silence a warning of ``requests``: the bundle lacks the library that guesses encodings of text."""
    import warnings

    warnings.filterwarnings("ignore", "Unable to find acceptable character detection dependency")


def _first_answer(
    order: tuple[str, str], config: SourceConfig, until: float, endpoints: Endpoints, *, public: bool
) -> Listing:
    """The first listing with an address for pods in it; an empty one only if no source has more.

    The sources are read in threads, which end by themselves at ``until``.
    """
    answers: SimpleQueue[Listing | SourceUnreadable | BaseException] = SimpleQueue()

    def ask(name: str) -> None:
        try:
            answers.put(_read_one(name, config, until, endpoints, public=public))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            answers.put(error)

    waiting = list(order)
    asked = 0
    empty: Listing | None = None
    failed: list[SourceUnreadable] = []
    while waiting or asked:
        if waiting:
            name = waiting.pop(0)
            threading.Thread(target=ask, args=(name,), name=f"source {name}", daemon=True).start()
            asked += 1
        patience = HEAD_START if waiting else until + _GRACE - time.monotonic()
        try:
            answer = answers.get(timeout=max(0.0, patience))
        except Empty:
            if not waiting:
                break
            continue
        asked -= 1
        if isinstance(answer, SourceUnreadable):
            failed.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        elif any(nic.addresses for nic in answer.nics):
            return answer
        else:
            empty = empty or answer
    if empty is not None:
        return empty
    raise _none_answered(config, endpoints, failed)


def _none_answered(
    config: SourceConfig, endpoints: Endpoints, failed: list[SourceUnreadable]
) -> SourceUnreadable:
    no_file = f"there is no {config.file}" if config.file else "no file is set"
    elsewhere = f" Elsewhere write the addresses to {config.file}." if config.file else ""
    return SourceUnreadable(
        f"source auto: {no_file}; " + ("; ".join(str(error) for error in failed) or "no answer in time"),
        "On an Azure node check that the host's own network works (`curl -H Metadata:true "
        f"{endpoints.imds}/metadata/versions`) and that nothing on the node blocks uid 0.{elsewhere}",
        max((error.retry_after for error in failed), default=0.0),
    )


def _read_one(
    name: str, config: SourceConfig, until: float, endpoints: Endpoints, *, public: bool = False
) -> Listing:
    if name == "file":
        from ipam.sources import file

        return file.read(config.file)
    if name == "imds":
        from ipam.sources import imds

        return imds.read(endpoints.imds, until, public=public)
    if name == "wireserver":
        from ipam.sources import wireserver

        return wireserver.read(endpoints.wireserver, until)
    message = f"unknown source {quoted(name)}"
    raise SourceUnreadable(message, "Use auto, file, imds, wireserver or arm as `ipam.environment`.")
