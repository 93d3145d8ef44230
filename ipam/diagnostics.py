"""Why no address can be given out, in words an operator can act upon.

One text per cause: the pool is used up, the source was never readable, the requested address is not
to be had. It reads the store within the transaction that failed, and must not change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipam.errors import AddressUnavailable, NoAddressesKnown, PoolExhausted
from ipam.pool import is_of
from ipam.store import records

if TYPE_CHECKING:
    from ipam.model import AddressRequest, PoolCounts
    from ipam.store.transaction import Row, Transaction

_NAMED = 5
"""So many holders, addresses or reasons are named; the rest is counted."""

_TOP_OWNERS = """
    SELECT pod_namespace, pod_name, count(*) AS addresses, min(container_id) AS container_id
    FROM address WHERE container_id IS NOT NULL AND family = ?
    GROUP BY pod_namespace, pod_name, CASE WHEN pod_name = '' THEN container_id ELSE '' END
    ORDER BY addresses DESC, pod_namespace, pod_name, container_id LIMIT ?
"""
_QUARANTINE_REASONS = """
    SELECT CASE WHEN quarantined_until > :now THEN quarantine_reason
                ELSE 'not listed by the source any more' END AS reason, count(*) AS addresses
    FROM address
    WHERE container_id IS NULL AND family = :family AND (quarantined_until > :now OR NOT listed)
    GROUP BY reason ORDER BY addresses DESC, reason LIMIT :named
"""
_NEXT_COOLED = """
    SELECT min(released_at) AS released_at FROM address
    WHERE container_id IS NULL AND listed = 1 AND quarantined_until IS NULL AND released_at > ?
"""


def pool_exhausted(
    tx: Transaction, request: AddressRequest, counts: PoolCounts, family: int
) -> PoolExhausted:
    """Every address is held, resting beyond use, in quarantine or the node's own."""
    parts = [f"{counts.assigned} held{_owners(tx, family)}"]
    unheld = list(records.candidates(tx, family))
    own = sum(candidate.ip in request.excluded for candidate in unheld)
    if own:
        named = ", ".join(str(ip) for ip in sorted(request.excluded, key=str)[:_NAMED])
        parts.append(f"{own} carried by the node itself ({named})")
    elsewhere = sum(not is_of(candidate.nic_mac, request) for candidate in unheld)
    if elsewhere:
        parts.append(f"{elsewhere} of other NICs than {request.nic_mac}")
    if counts.cooling:
        row = tx.one(_NEXT_COOLED, tx.now - request.cooldown)
        if row is not None and row["released_at"] is not None:
            left = request.cooldown - (tx.now - row["released_at"])
            parts.append(f"{counts.cooling} cooling, the next one for {left:.0f} s")
    if counts.quarantined:
        parts.append(f"{counts.quarantined} in quarantine ({_reasons(tx, family)})")
    message = f"no free IPv{family} address: {counts.total} known, {', '.join(parts)}; {source_words(tx)}"
    if own:
        remedy = (
            "The node's own links carry addresses that are meant for pods: cloud-init adds them unless its "
            "Azure datasource has apply_network_config_for_secondary_ips: false. Remove them from the links."
        )
    else:
        remedy = (
            "Add IP configurations to the node's NIC (az network nic ip-config create), move pods to another "
            f"node, or set the kubelet's max-pods to {counts.total} or less."
        )
    return PoolExhausted(message, remedy)


def no_addresses_known(tx: Transaction) -> NoAddressesKnown:
    """No source was ever read with success."""
    row = tx.one("SELECT remedy FROM source")
    remedy = row["remedy"] if row is not None and row["remedy"] else "Check `ipam.environment`."
    return NoAddressesKnown(f"no address is known on this node: {source_words(tx)}", remedy)


def address_unavailable(tx: Transaction, request: AddressRequest, row: Row | None) -> AddressUnavailable:
    """The address that was asked for can't be given out; ``row`` is what is known of it."""
    ip = request.requested
    if row is None:
        return AddressUnavailable(
            f"address {ip} is not one of this node's NIC; {source_words(tx)}",
            "Ask for an address that `azvnet status` lists, or add it to the NIC as an IP configuration.",
        )
    if row["container_id"] is not None:
        return AddressUnavailable(
            f"address {ip} is held by {_named(row)}, {row['ifname']}",
            "Delete that pod first, or ask for another address.",
        )
    why = records.unusable_because(row, request, tx.now)
    return AddressUnavailable(
        f"address {ip} can't be given out: {why}", "Ask for another address, or for none."
    )


def source_words(tx: Transaction) -> str:
    """Which source, how old what it said is, and what went wrong last."""
    row = tx.one("SELECT * FROM source")
    if row is None or row["attempt_wall"] is None:
        return "its source was not read yet"
    name = row["name"] or "the source"
    if row["success_at"] is not None:
        words = f"{name} was read {max(0.0, tx.now - row['success_at']):.0f} s ago"
    elif row["success_wall"] is not None:
        words = f"{name} was read before the node was restarted"
    else:
        words = f"{name} was never readable"
    if row["error"]:
        words += f", last attempt failed: {row['error']}"
    return words


def _owners(tx: Transaction, family: int) -> str:
    rows = tx.rows(_TOP_OWNERS, family, _NAMED + 1)
    if not rows:
        return ""
    names = [_named(row) + (f" x{row['addresses']}" if row["addresses"] > 1 else "") for row in rows[:_NAMED]]
    return f" ({', '.join(names)}{', ...' if len(rows) > _NAMED else ''})"


def _reasons(tx: Transaction, family: int) -> str:
    rows = tx.rows_named(_QUARANTINE_REASONS, now=tx.now, family=family, named=_NAMED)
    return "; ".join(f"{row['addresses']}: {row['reason']}" for row in rows)


def _named(row: Row) -> str:
    """A holder as people know it: the pod, or the container when the runtime named no pod."""
    if row["pod_name"]:
        return f"{row['pod_namespace']}/{row['pod_name']}"
    return f"container {row['container_id'][:12]}"
