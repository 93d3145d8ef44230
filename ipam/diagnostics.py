"""Why no address can be given out, in terms an operator can act on.

One message per cause: the pool is exhausted, the source has never been read successfully, the requested
address is not available. It reads the store within the transaction that failed, and must not change it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipam.errors import AddressUnavailable, IpamError, NoAddressesKnown, PoolExhausted
from ipam.pool import cooling_left, no_address_for_pods
from ipam.store import records, source_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipam.model import AddressRequest, IPAddress
    from ipam.store.records import Scope
    from ipam.store.transaction import Row, Transaction

_NAMED = 5
"""Holders, addresses or reasons that a message names; the others are counted."""


def nothing_free(tx: Transaction, scope: Scope, family: int, request: AddressRequest) -> IpamError:
    """Every address in scope is held, excluded or in quarantine; or there is none."""
    rows = tx.rows_named(records.IN_SCOPE, source=scope.source, nic_mac=scope.nic_mac, family=family)
    if not rows:
        return no_address_for_pods(scope.source_name, f"{scope.nic_mac} for IPv{family}")
    held = [row for row in rows if row["container_id"] is not None]
    reasons = Counter(
        why for row in rows if row["container_id"] is None and (why := records.unusable_because(row, tx.now))
    )
    free = [row for row in rows if row["container_id"] is None and not records.unusable_because(row, tx.now)]
    own = [row for row in free if records.unpacked(row["ip"]) in request.excluded]
    cooling = [
        left for row in free if (left := cooling_left(row["released_at"], request.cooldown, tx.now)) > 0
    ]
    parts = [f"{len(held)} held{_holders(held)}"]
    if own:
        named = ", ".join(str(records.unpacked(row["ip"])) for row in own[:_NAMED])
        parts.append(f"{len(own)} carried by the node itself ({named})")
    if cooling:
        parts.append(f"{len(cooling)} cooling, the next one for {min(cooling):.0f} s")
    if reasons:
        parts.append(f"{reasons.total()} in quarantine ({_counted(reasons)})")
    message = f"no free IPv{family} address: {len(rows)} known, {', '.join(parts)}"
    said = f"{message}; {source_words(tx, request.source)}"
    return PoolExhausted(said, _remedy(len(rows), carried=bool(own)), family=family)


def _remedy(known: int, *, carried: bool) -> str:
    if carried:
        return (
            "The node's own links carry addresses that are meant for pods: cloud-init adds them unless its "
            "Azure datasource has apply_network_config_for_secondary_ips: false. Remove them from the links."
        )
    return (
        "Add IP configurations to the node's NIC (az network nic ip-config create), move pods to another "
        f"node, or set the kubelet's max-pods to {known} or less."
    )


def no_addresses_known(tx: Transaction, source: str) -> NoAddressesKnown:
    """The source was never read successfully since the node booted."""
    row = source_records.row_of_source(tx, source)
    remedy = row["remedy"] if row is not None and row["remedy"] else "Check `ipam.environment`."
    return NoAddressesKnown(f"no address is known on this node: {source_words(tx, source)}", remedy)


def unknown_address(tx: Transaction, ip: IPAddress, request: AddressRequest) -> AddressUnavailable:
    """No listing has the requested address."""
    return AddressUnavailable(
        f"address {ip} is not an address of this node's NIC; {source_words(tx, request.source)}",
        "Request an address that `azvnet status` lists, or add it to the NIC as an IP configuration.",
    )


def unavailable(
    tx: Transaction, ip: IPAddress, row: Row | None, scope: Scope, request: AddressRequest
) -> AddressUnavailable | None:
    """Why the requested address can't be given out; ``row``: what the store has about it. None: it can."""
    if row is not None and row["container_id"] is not None:
        return AddressUnavailable(
            f"address {ip} is held by {_named(row)}, {row['ifname']}",
            "Delete that pod first, or request another address.",
        )
    if row is None or row["misses"] is None:
        return unknown_address(tx, ip, request)
    if ip in request.excluded:
        why = "the node itself carries it"
    elif not records.is_of(row["offered_mac"], scope):
        why = f"it belongs to NIC {row['offered_mac']}, not to {scope.nic_mac}"
    else:
        why = records.unusable_because(row, tx.now)
    if not why:
        return None
    return AddressUnavailable(f"address {ip} can't be given out: {why}", "Request another address, or none.")


def source_words(tx: Transaction, source: str) -> str:
    """Which source, how old its last listing is, and its last error."""
    row = source_records.row_of_source(tx, source)
    if row is None or row["attempt_wall"] is None:
        return "its source has not been read yet"
    name = row["name"] or "the source"
    if row["success_at"] is not None:
        words = f"{name} was read {max(0.0, tx.now - row['success_at']):.0f} s ago"
    elif row["success_wall"] is not None:
        words = f"{name} was read before the node was restarted"
    else:
        words = f"{name} has never been read successfully"
    if row["error"]:
        words += f", last attempt failed: {row['error']}"
    return words


def _holders(rows: Iterable[Row]) -> str:
    names = Counter(_named(row) for row in rows)
    if not names:
        return ""
    first = _most(names)
    words = [name + (f" x{number}" if number > 1 else "") for name, number in first[:_NAMED]]
    return f" ({', '.join(words)}{', ...' if len(first) > _NAMED else ''})"


def _counted(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{number}: {reason}" for reason, number in _most(reasons)[:_NAMED])


def _most(numbers: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first, then by name."""
    return sorted(numbers.items(), key=lambda each: (-each[1], each[0]))


def _named(row: Row) -> str:
    """The holder's pod, or its container when the runtime named no pod."""
    if row["pod_name"]:
        return f"{row['pod_namespace']}/{row['pod_name']}"
    return f"container {row['container_id'][:12]}"
