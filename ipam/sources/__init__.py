"""Where addresses come from: stateless readers, one module each, loaded when first used.

A reader answers with what Azure says now and remembers nothing; what to make of it is ``pool``'s. It
must not know the store.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.errors import SourceUnreadable
from ipam.value import Value

if TYPE_CHECKING:
    from ipam.model import Listing, SourceConfig

_SHARE_OF_FIRST = 0.6
"""Of the time there is, when another source can be asked after the first."""


class Endpoints(Value):
    """Where the two services of the platform are. Other values than Azure's are for tests."""

    imds: str = "http://169.254.169.254"
    wireserver: str = "http://168.63.129.16"


AZURE = Endpoints()


class ArmConfig(Value):
    """How Azure Resource Manager is reached. Empty fields: as the node's cloud has it."""

    credential: str = "auto"
    """``managed-identity``, ``workload-identity``, or ``auto``: the latter if the environment has one."""
    client_id: str = ""
    """Of a user-assigned managed identity or of the workload's; needed when a machine has several."""
    base_url: str = ""
    """Instead of the cloud's own endpoint."""
    ca_file: str = ""
    """PEM file of the authority that signed the endpoint's certificate, instead of the public ones."""


def read(
    config: SourceConfig,
    deadline: float,
    last: str = "",
    *,
    endpoints: Endpoints = AZURE,
    arm: ArmConfig | None = None,
) -> Listing:
    """Read the source that ``config`` names.

    ``auto`` takes the file if one is named and there, else the instance metadata service, else the
    wireserver; of the last two, the one that answered last time is asked first.

    Args:
        config: which source.
        deadline: seconds that it may take altogether.
        last: ``Listing.source`` of the last successful read, if there was one.
        endpoints: where the services are.
        arm: how ARM is reached; without it the source ``arm`` is refused, since loading the SDK is for
            the agent alone.

    Raises:
        SourceUnreadable: no answer, or no address document; for ``auto``, what each one said.
    """
    until = time.monotonic() + deadline
    if config.environment == "arm":
        return _read_arm(arm, endpoints, until)
    if config.environment != "auto":
        return _read_one(config.environment, config, until, endpoints)
    if config.file and Path(config.file).exists():
        return _read_one("file", config, until, endpoints)
    order = ("wireserver", "imds") if last == "wireserver" else ("imds", "wireserver")
    return _first_answer(order, config, until, endpoints)


def _read_arm(config: ArmConfig | None, endpoints: Endpoints, until: float) -> Listing:
    if config is None:
        raise SourceUnreadable(
            "source arm is read by the agent only, and it has not done so yet",
            "Start the agent, or choose another `ipam.environment`.",
        )
    import warnings

    # requests would guess encodings with it; the bundle has none, since JSON needs no guess.
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection dependency")
    from ipam.sources import arm

    return arm.read(config, endpoints.imds, until)


def _first_answer(
    order: tuple[str, str], config: SourceConfig, until: float, endpoints: Endpoints
) -> Listing:
    """The first listing with an address for pods in it; an empty one only if nobody has more."""
    empty: Listing | None = None
    failed: list[SourceUnreadable] = []
    for position, name in enumerate(order):
        now = time.monotonic()
        share = _SHARE_OF_FIRST if position == 0 else 1.0
        try:
            found = _read_one(name, config, now + (until - now) * share, endpoints)
        except SourceUnreadable as error:
            failed.append(error)
            continue
        if any(nic.addresses for nic in found.nics):
            return found
        empty = empty or found
    if empty is not None:
        return empty
    no_file = f"there is no {config.file}" if config.file else "no file is named"
    elsewhere = f" Elsewhere write the addresses to {config.file}." if config.file else ""
    raise SourceUnreadable(
        f"source auto: {no_file}; " + "; ".join(str(error) for error in failed),
        "On an Azure node check that the host's own network works (`curl -H Metadata:true "
        f"{endpoints.imds}/metadata/versions`) and that nothing on the node blocks uid 0.{elsewhere}",
        max(error.retry_after for error in failed),
    )


def _read_one(name: str, config: SourceConfig, until: float, endpoints: Endpoints) -> Listing:
    if name == "file":
        from ipam.sources import file

        return file.read(config.file)
    if name == "imds":
        from ipam.sources import imds

        return imds.read(endpoints.imds, until)
    if name == "wireserver":
        from ipam.sources import wireserver

        return wireserver.read(endpoints.wireserver, until)
    message = f"there is no source {name!r}"
    raise SourceUnreadable(message, "Use auto, file, imds, wireserver or arm as `ipam.environment`.")
