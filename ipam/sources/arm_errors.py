"""Error messages and remedies for Azure Resource Manager.

It must not import the SDK: what it needs of an error is passed to it. No token ever appears in a message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ipam.errors import SourceUnreadable
from ipam.quoting import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipam.sources.placement import Placement

READS = (
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/networkInterfaces/read",
)
"""The permissions that reading needs; the built-in role Reader has them all."""

_SECRET = re.compile(r"eyJ[\w-]{5,}(?:\.[\w-]+)*|(?i:bearer)\s+[\w.~+/=-]{8,}|sig=[^&\s]+")


def words_of(message: str) -> str:
    """An error's message on one line, cut short, without anything that looks like a token."""
    return one_line(_SECRET.sub("***", message))


def no_token(message: str, identity: str = "") -> SourceUnreadable:
    """There is no access token; ``identity``: who asked for one, where and why."""
    asked = f" ({identity})" if identity else ""
    return SourceUnreadable(
        f"source arm: no access token{asked}: {words_of(message)}",
        "Give the machine or scale set a managed identity (az vm identity assign, az vmss identity assign); "
        "if it has several, name one as arm.client_id. With a workload identity check AZURE_TENANT_ID, "
        "AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE.",
    )


def refused(
    what: str, status: int, message: str, headers: Mapping[str, str], place: Placement
) -> SourceUnreadable:
    """ARM answered with an error."""
    retry_after = retry_seconds(headers.get("Retry-After") or headers.get("retry-after"))
    said = f"source arm: {what}: {status}: {words_of(message)}"
    if retry_after:
        said += f" (Retry-After {retry_after:.0f} s)"
    return SourceUnreadable(said, _remedy(status, place), retry_after)


def unreachable(endpoint: str, message: str) -> SourceUnreadable:
    """ARM or the login endpoint did not answer."""
    return SourceUnreadable(
        f"source arm: {endpoint} can't be reached: {words_of(message)}",
        f"Check from the node's own network that {endpoint} answers on port 443 (name resolution, routes, "
        "network security groups, proxy), and arm.ca_file if it has a private certificate authority.",
    )


def too_slow(endpoint: str, *, still: bool = False) -> SourceUnreadable:
    """No answer within the deadline."""
    since = "an earlier request has not ended yet" if still else "no answer in time"
    return SourceUnreadable(
        f"source arm: {endpoint}: {since}", "Check the node's network; the read is retried automatically."
    )


def retry_seconds(retry_after: str | None) -> float:
    """Retry-After of ARM, which is always in seconds."""
    try:
        return min(max(0.0, float(retry_after or 0)), 3600.0)
    except ValueError:
        return 0.0


def _remedy(status: int, place: Placement) -> str:
    if status == 401:
        return "The token was not accepted; a new one is fetched with the next read. Check the node's time."
    if status == 403:
        return (
            f"Give the node's identity the role Reader on resource group {place.resource_group} (az role "
            f"assignment create), or one with {', '.join(READS)}. It takes effect after some minutes."
        )
    if status == 404:
        return (
            "The machine or its NIC is not where IMDS says: it was moved or is being deleted. It is looked "
            "up again with the next read."
        )
    if status == 429:
        return "The subscription's requests are throttled; the read is retried when Retry-After is over."
    if status >= 500:
        return "Azure Resource Manager had an internal error; the read is retried automatically."
    return "See the code in the message."
