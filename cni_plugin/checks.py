"""What is wrong with a node: one list of checks for ``azvnet status``, the agent's pages, metrics and log.

Owns the conditions and the words. Pure: facts in, problems out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ipam.model import AddressState, AddressStatus, Holder, IPAddress, Reservation, SourceState
from ipam.quoting import LONGEST_VALUE, one_line
from ipam.value import Value

NOT_ON_NIC, HOST_HAS_POD_ADDRESS, HOST_HAS_FREE_ADDRESS = (
    "not-on-nic",
    "host-has-pod-address",
    "host-has-free-address",
)
SMALL_POOL, OTHER_CONFLIST, HOST = "small-pool", "other-conflist", "host"
PROVISION, VANISHED, DEMAND = "provision", "vanished", "demand"
SOURCE, STORE, AGENT, EXHAUSTED = "source", "store", "agent", "pool-exhausted"
KINDS = (
    *(NOT_ON_NIC, HOST_HAS_POD_ADDRESS, HOST_HAS_FREE_ADDRESS),
    *(SMALL_POOL, OTHER_CONFLIST, HOST, PROVISION, VANISHED, DEMAND),
)
"""Warnings of the agent while pods get addresses; each is a metrics series from the start."""
UNSEEN = "it is not known which pods are scheduled to this node"
"""Then growth begins only when a pod asks."""
ON_HOST = "on_host"
"""State of a free address that the host itself carries."""
MOST_NAMED = 8
"""Problems of a kind that are listed individually."""
SPANS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
STALE_SECONDS = 300.0
"""An agent reads its source far more often."""


class Problem(Value):
    """Something an operator should know."""

    kind: str
    """Its kind, for programs and as part of the key."""
    text: str
    """For people; numbers in it may change from one check to the next."""
    subject: str = ""
    """The object concerned, where there can be several of a kind."""
    remedy: str = ""
    level: str = "warning"
    over: str = ""
    """What to log when it has ended; empty: a default text."""

    @property
    def key(self) -> tuple[str, str]:
        """Problems with equal keys are the same problem."""
        return self.kind, self.subject


def small_pool(known: Mapping[int, int], expected: int) -> list[Problem]:
    """Whether the pool is too small for the node's pods. An empty pool is another problem.

    Args:
        known: how many addresses it has of each IP version that pods get.
        expected: how many pods with addresses of their own may run on the node.
    """
    found = []
    for version, number in known.items():
        if 0 < number < expected:
            of = f"IPv{version} " if len(known) > 1 else ""
            text = (
                f"the pool has {number} {of}addresses for {expected} pods that may run here: give the NIC "
                f"more secondary {of}IP configurations, or lower the kubelet's maxPods by {expected - number}"
            )
            found.append(Problem(SMALL_POOL, text))
    return found


def preferred_conflist(own: str, directory: str, before: Sequence[str]) -> list[Problem]:
    """Whether the runtime prefers another configuration to ours: it uses the first by name (libcni)."""
    if not before:
        return []
    sort = "sorts" if len(before) == 1 else "sort"
    text = f"{', '.join(before)} {sort} before {own} in {directory}: the runtime uses {before[0]}"
    return [Problem(OTHER_CONFLIST, text, before[0])]


def without_numbers(text: str) -> str:
    """A text as a key: an error stays the same when its seconds or bytes change."""
    return "".join(letter for letter in text if not letter.isdigit())


def pool_states(addresses: Iterable[AddressStatus], on_host: frozenset[IPAddress]) -> Counter[str]:
    """How many addresses are in which state; one that the host itself carries is never given to a pod."""
    return Counter(
        ON_HOST if _can_be_given(each) and each.address.ip in on_host else each.state.value
        for each in addresses
    )


def pool_by_family(
    addresses: Sequence[AddressStatus], on_host: frozenset[IPAddress]
) -> dict[int, Counter[str]]:
    """As ``pool_states``, of each IP version that the pool has addresses of; of IPv4 if it has none."""
    versions = sorted({each.address.version for each in addresses}) or [4]
    return {
        version: pool_states((each for each in addresses if each.address.version == version), on_host)
        for version in versions
    }


def pool_addresses(
    addresses: Sequence[AddressStatus], on_host: frozenset[IPAddress], sources: Sequence[SourceState]
) -> list[Problem]:
    """Problems of single addresses that break a pod, found by comparing store, source and host."""
    held = [(each, each.reservation) for each in addresses if each.reservation is not None]
    found = []
    # Unknown before the first read since boot; so is an address that no source has listed, until all of
    # them were read.
    read = {each.source for each in sources if each.success_age is not None}
    if sources and all(each.success_age is not None for each in sources):
        read.add("")
    lost = [
        (each, who)
        for each, who in held
        if not each.listed and each.source in read and not _is_a_strangers(each, who)
    ]
    found += _named(NOT_ON_NIC, [_not_on_nic(each, who) for each, who in lost])
    doubled = [(each, who) for each, who in held if each.address.ip in on_host]
    found += _named(HOST_HAS_POD_ADDRESS, [_host_has_pods(each, who) for each, who in doubled])
    return [*found, *_host_has_free(addresses, on_host)]


def _not_on_nic(each: AddressStatus, who: Reservation) -> Problem:
    ip = str(each.address.ip)
    text = (
        f"{ip} of {holder_name(who)} is no longer listed by the source: the virtual network drops what "
        "the pod sends"
    )
    remedy = "Give the NIC this IP configuration again, or delete the pod."
    return Problem(NOT_ON_NIC, text, ip, remedy, level="error")


def vanished(lost: Sequence[Reservation]) -> list[Problem]:
    """Live pods whose addresses Azure Resource Manager does not show on the NIC any more, whatever the source
    lists: it may lag behind, and an operator should act before it catches up.
    """
    if not lost:
        return []
    some = ", ".join(f"{each.ip} of {holder_name(each)}" for each in lost[:MOST_NAMED])
    some += f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
    text = (
        f"the NIC has lost {some}: something else took the addresses in Azure, as an update of a scale set's "
        "model does, and the virtual network drops what the pods send. Delete the pods, so that new ones get "
        "addresses that the NIC has, and find who changed the NIC in the activity log of its resource group"
    )
    over = "the NIC has the addresses of all pods again"
    subject = " ".join(sorted(str(each.ip) for each in lost))
    return [Problem(VANISHED, text, subject, level="error", over=over)]


def _host_has_pods(each: AddressStatus, who: Reservation) -> Problem:
    ip = str(each.address.ip)
    text = f"the host itself carries {ip} of {holder_name(who)}: packets to the pod end on the host"
    remedy = f"Find what put {ip} on a link of the host (cloud-init, networkd, a person), and remove it."
    return Problem(HOST_HAS_POD_ADDRESS, text, ip, remedy, level="error")


def _host_has_free(addresses: Sequence[AddressStatus], on_host: frozenset[IPAddress]) -> list[Problem]:
    could = [each for each in addresses if _can_be_given(each)]
    carried = [each for each in could if each.address.ip in on_host]
    if not carried:
        return []
    some = ", ".join(str(each.address.ip) for each in carried[:MOST_NAMED])
    text = (
        f"the host itself carries {len(carried)} of {len(could)} addresses that pods could have: {some}"
        f"{', ...' if len(carried) > MOST_NAMED else ''}"
    )
    return [Problem(HOST_HAS_FREE_ADDRESS, text, remedy="Remove them from the links of the host.")]


def _can_be_given(each: AddressStatus) -> bool:
    return each.state in (AddressState.FREE, AddressState.COOLING)


def _is_a_strangers(each: AddressStatus, who: Reservation) -> bool:
    """Whether it was adopted from another plugin's pod: it may never have been this NIC's."""
    return not each.source and who.owner.holder is Holder.DELEGATED


def holder_name(reservation: Reservation) -> str:
    """The pod that holds an address, or its container where the runtime named no pod."""
    container = f"container {reservation.attachment.container_id[:12]}"
    return one_line(reservation.owner.pod or container, LONGEST_VALUE)


def _named(kind: str, problems: list[Problem]) -> list[Problem]:
    """The first few, and the number of the others."""
    more = len(problems) - MOST_NAMED
    if more <= 0:
        return problems
    last = problems[MOST_NAMED]
    text = f"the same is true of {more} more addresses"
    return [*problems[:MOST_NAMED], Problem(kind, text, "more", last.remedy, level=last.level)]


def attachment_problems(states: Mapping[str, int], late: int) -> list[Problem]:
    """Attachments whose endpoint has drifted; ``late``: those whose ADD never finished."""
    words = (
        ("missing", states.get("missing", 0), "lost its endpoint|lost their endpoints"),
        ("down", states.get("down", 0), "has a host veth that is down|have host veths that are down"),
        ("no-route", states.get("no-route", 0), "has no host route|have no host routes"),
        ("unconfirmed", late, "never finished its ADD|never finished their ADD"),
    )
    found = []
    for kind, number, text in words:
        one, many = text.split("|")
        if number:
            found.append(
                Problem(kind, f"1 attachment {one}" if number == 1 else f"{number} attachments {many}")
            )
    return found


def store_problems(state: str, error: str, unknown: int, *, agent_runs: bool) -> list[Problem]:
    """A store that can't be read, or that lacks what is alive: ``unknown`` endpoints."""
    text = ""
    if state == "unreadable":
        text = error
    elif unknown:
        endpoints = "1 endpoint is alive" if unknown == 1 else f"{unknown} endpoints are alive"
        why = error or "they are not in the store"
        text = f"{endpoints}, but {why}: the agent, or the next ADD, adopts what is alive"
    elif state == "missing" and agent_runs:
        text = f"{error}, though the agent runs"
    return [Problem(STORE, text)] if text else []


def agent_problems(state: str, reason: str, *, ready: bool) -> list[Problem]:
    """An agent that does not serve, and why; none at all is not a problem."""
    text = {
        "hangs": f"the agent hangs: {reason}",
        "forbidden": reason,
        "running": f"the agent is not ready: {reason}",
    }.get(state)
    return [Problem(AGENT, text)] if text and not ready else []


def source_problems(states: Iterable[SourceState], *, agent_runs: bool) -> list[Problem]:
    """Sources that can't be read, and those that a running agent should have read again."""
    found = []
    for each in states:
        name = f"source {each.source}" if each.source else "the source"
        if each.failures:
            text = f"{each.error} ({each.failures} attempt{'s' if each.failures > 1 else ''})"
        elif agent_runs and each.success_age is not None and each.success_age > STALE_SECONDS:
            text = f"{name} was not read for {span(each.success_age)}"
        else:
            continue
        subject = f"{each.config.key} {without_numbers(each.error)}"
        over = f"{name} is readable again"
        found.append(Problem(SOURCE, text, subject, each.remedy, level="error", over=over))
    return found


def exhausted_pool(pool: Mapping[int, Mapping[str, int]]) -> list[Problem]:
    """Families of which no address can be given; ``pool``: as ``pool_by_family`` has it."""
    found = []
    for version, counts in pool.items():
        total = sum(counts.values())
        if total and not counts["free"] + counts["cooling"]:
            of = f"IPv{version} " if len(pool) > 1 else ""
            text = f"no {of}address is free: {counts['assigned']} of {total} are assigned"
            found.append(Problem(EXHAUSTED, text, of))
    return found


def span(seconds: float) -> str:
    """A span of time in its two largest units: ``3d4h``, ``5m12s``, ``8s``."""
    left = round(seconds)
    for place, (size, letter) in enumerate(SPANS):
        if left >= size:
            words = f"{left // size}{letter}"
            smaller = SPANS[place + 1] if place + 1 < len(SPANS) else None
            if smaller and (rest := left % size // smaller[0]):
                words += f"{rest}{smaller[1]}"
            return words
    return "0s"
