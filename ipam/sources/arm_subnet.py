"""How full a subnet is, as Azure Resource Manager counts it.

Two reads, with the node's identity or a workload's. It must not know what the count is
for. Source: REST reference of Microsoft.Network, "Subnets - Get" and "Virtual Networks - List Usage".
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.quoting import LONGEST_VALUE, one_line, quoted
from ipam.sources import arm_errors
from ipam.sources.arm_answer import NotAnswered
from ipam.sources.managed_identity import NoToken
from ipam.sources.placement import Placement, own_placement
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.sources import ArmConfig
    from ipam.sources.arm_answer import ArmAnswer, Ask

API = "2024-05-01"
READS = ("Microsoft.Network/virtualNetworks/subnets/read", "Microsoft.Network/virtualNetworks/usages/read")
"""The permissions that it needs; the built-in role Reader has them."""
ELSEWHERE = (
    "Run it on an Azure machine with a managed identity, or give --size and --used: `az network vnet "
    "list-usage` prints currentValue for each subnet."
)
INSTEAD = "Give --size and --used instead."
MOST_ADDRESSES, LONGEST_ID = 1 << 32, 1000
MOST_PAGES = 100
"""Pages of a list: a virtual network has at most 3,000 subnets."""
_ID = re.compile(
    r"(?P<vnet_id>/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers"
    r"/Microsoft\.Network/virtualNetworks/[^/]+)/subnets/(?P<name>[^/]+)/?",
    re.IGNORECASE,
)


class SubnetId(Value):
    """A subnet by its resource id."""

    text: str
    vnet_id: str
    subscription: str
    group: str
    name: str


class SubnetUsage(Value):
    """A subnet, and how many of its addresses are in use."""

    name: str
    prefix: IPv4Network
    used: int
    """Addresses, without those that Azure reserves in every subnet."""
    elsewhere: int
    """The same in the other subnets of the virtual network."""
    uncounted: tuple[str, ...] = ()
    """Those of them for which Azure gives no count (-1), gateways' for example."""


def subnet_id(text: str) -> SubnetId:
    """The parts of a resource id. Raises ValueError: it is not that of a subnet."""
    found = _ID.fullmatch(text.strip())
    if found is None:
        message = (
            f"{quoted(text)} is not the resource id of a subnet: /subscriptions/.../resourceGroups/.../"
            "providers/Microsoft.Network/virtualNetworks/.../subnets/..."
        )
        raise ValueError(message)
    return SubnetId(
        text.strip().rstrip("/"), found["vnet_id"], found["subscription"], found["group"], found["name"]
    )


def read(subnet: SubnetId, config: ArmConfig, imds_endpoint: str, until: float) -> SubnetUsage:
    """What ARM of this machine's cloud says of a subnet; ``until`` is ``time.monotonic`` by which IMDS has to
    answer which cloud that is. On a machine outside of Azure, ``config`` has to say where ARM is.

    Raises:
        SourceUnreadable: as ``usage_of``; or the cloud is not known.
    """
    from ipam.sources.arm_client import Access, Requests

    try:
        environment = own_placement(imds_endpoint, until).environment
    except SourceUnreadable as error:
        if not config.base_url:
            raise SourceUnreadable(f"cannot find out which cloud this is: {error}", ELSEWHERE) from error
        environment = ""
    place = Placement(environment, subnet.text, subnet.subscription, subnet.group, subnet.name, "")
    requests = Requests(Access(config, place, imds_endpoint))
    return usage_of(subnet, requests.ask, requests.identity)


def usage_of(subnet: SubnetId, ask: Ask, identity: str) -> SubnetUsage:
    """What ARM says of it; ``identity`` is whose token it is, in words.

    Raises:
        SourceUnreadable: no token, no answer, refused, not found; or Azure gives no count for it.
    """
    try:
        document = _answer(subnet, ask, f"{subnet.text}?api-version={API}").document
        counts = dict(_counts(subnet, ask))
    except NoToken as error:
        raise arm_errors.no_token(str(error), identity) from error
    except NotAnswered as error:
        raise arm_errors.unreachable(str(error).partition(": ")[0], str(error)) from error
    name = subnet.text.casefold()
    if counts.get(name, -1) < 0:
        raise SourceUnreadable(f"ARM does not report how many addresses are in use in {subnet.text}", INSTEAD)
    others = {key: count for key, count in counts.items() if key != name}
    return SubnetUsage(
        one_line(str(document.get("name") or subnet.name), LONGEST_VALUE),
        _prefix(subnet, document),
        counts[name],
        sum(count for count in others.values() if count > 0),
        tuple(sorted(key.rpartition("/")[2] for key, count in others.items() if count < 0)),
    )


def _counts(subnet: SubnetId, ask: Ask) -> Iterator[tuple[str, int]]:
    """Each subnet of the virtual network by its id, and how many addresses of it are in use; -1: unknown."""
    where = f"{subnet.vnet_id}/usages?api-version={API}"
    for _ in range(MOST_PAGES):
        document = _answer(subnet, ask, where).document
        entries = document.get("value")
        for each in entries if isinstance(entries, list) else ():
            if isinstance(each, dict):
                identifier = str(each.get("id") or "").casefold()
                yield one_line(identifier, LONGEST_ID), _count(each.get("currentValue"))
        where = str(document.get("nextLink") or "")
        if not where:
            return


def _count(value: object) -> int:
    if isinstance(value, int | float) and 0 <= value <= MOST_ADDRESSES:  # NaN is neither
        return int(value)
    return -1


def _answer(subnet: SubnetId, ask: Ask, where: str) -> ArmAnswer:
    answer = ask("GET", where, None, "")
    if answer.status == 200:
        return answer
    error = answer.document.get("error")
    said: dict[str, Any] = error if isinstance(error, dict) else {}
    what = f"GET {where.partition('?')[0]}: {answer.status}"
    words = arm_errors.words_of(f"{said.get('code', '')}: {said.get('message', '')}".strip(": "))
    raise SourceUnreadable(f"{what}: {words}", _remedy(answer.status, subnet), status=answer.status)


def _remedy(status: int, subnet: SubnetId) -> str:
    if status == 403:
        return (
            "Give the identity the role Reader on the virtual network (az role assignment create --role "
            f"Reader --scope {subnet.vnet_id}), or one with {' and '.join(READS)}."
        )
    if status == 404:
        return "Check the id and its subscription (az network vnet subnet show --ids ID)."
    if status == 429:
        return "The subscription's requests are throttled: try again later."
    return "See the code in the message, and try again."


def _prefix(subnet: SubnetId, document: dict[str, Any]) -> IPv4Network:
    properties = document.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    texts = properties.get("addressPrefixes") or [properties.get("addressPrefix")]
    try:
        networks = [ip_network(str(each)) for each in texts]
        (found,) = [each for each in networks if isinstance(each, IPv4Network)]
    except (ValueError, TypeError):
        raise SourceUnreadable(
            f"{subnet.text} needs exactly one IPv4 prefix, and has {quoted(texts)}", INSTEAD
        ) from None
    return found
