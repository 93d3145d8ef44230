"""What an attachment is called in the kernel, and which link is its own: pure functions.

A host veth is known by its mark, an alternative name that is made of the attachment and that nobody else
uses. Its visible name is for others: network policy of Calico and Azure looks for it. So a link without the
mark is somebody else's, whatever it is called, unless an earlier version made it. Owns the names, MACs and
indexes that are derived, and the alias. It must not do I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice

from cni_plugin.kernel.decode import Link
from cni_plugin.kernel.digest import digest, sha1_of
from ipam.model import Attachment, Owner
from ipam.value import Value

HOST_MAC = "aa:aa:aa:aa:aa:aa"
"""Every host veth has it: no two share a segment, and the pod's neighbour entry can be derived."""
HOST_PREFIX = "azv"
"""Prefix of visible names. Those of azure-vnet's links and, on Azure, Calico's begin with it as well."""
MARK_PREFIX = "azvnet-"
MARK_DIGITS = 24
ALIAS_TAG = "azvnet1"
ALIAS_MAX_BYTES = 254
"""The kernel refuses IFALIASZ (256) bytes with the closing NUL, which a request has (rtnl_set_alias)."""
CALL_ID = re.compile("[0-9a-f]{32}")
"""As the launcher makes them; anything else in AZVNET_CALL_ID is not put into an alias."""

FIRST_INDEX, INDEX_PAIRS = 100_000, 450_000
"""Where chosen interface indexes lie: above what the kernel counts up to by itself, six digits for people."""
INDEX_ATTEMPTS = 64


class Names(Value):
    """Everything in the kernel that is derived from an attachment; made once for a call."""

    attachment: Attachment
    mark: str
    """The alternative name of the host veth: its identity."""
    host_ifname: str
    """Its visible name, unless another link has that name."""
    own_ifname: str
    """Its visible name in that case. Earlier versions always used it, and set no mark."""
    pod_mac: str
    """MAC of the pod's end if none is requested: unicast, locally administered (IEEE 802)."""
    first_index: int
    lock_offset: int
    """Offset of its byte in the file of locks."""


@lru_cache(maxsize=1024)  # each check of the agent needs those of every pod, several times
def names_of(attachment: Attachment, pod_namespace: str = "", pod_name: str = "") -> Names:
    """The names of an attachment; of a named pod where the runtime passes a name.

    With one, the visible name is that of Azure CNI and of Calico with FELIX_INTERFACEPREFIX=azv: ``azv`` and
    11 hex digits of SHA-1 of ``namespace.name``. Never that of the pod's end: containerd keys both by name.
    """
    own = digest(attachment)
    octets = bytearray(own[6:12])
    octets[0] = octets[0] & 0xFC | 0x02
    own_ifname = HOST_PREFIX + own.hex()[:11]
    pod_ifname = HOST_PREFIX + sha1_of(f"{pod_namespace}.{pod_name}").hex()[:11] if pod_name else own_ifname
    return Names(
        attachment=attachment,
        mark=MARK_PREFIX + own.hex()[:MARK_DIGITS],
        host_ifname=pod_ifname if pod_ifname != attachment.ifname else own_ifname,
        own_ifname=own_ifname,
        pod_mac=octets.hex(":"),
        first_index=int.from_bytes(own[12:16], "big"),
        lock_offset=int.from_bytes(own[:7], "big"),
    )


def names_for(attachment: Attachment, owner: Owner) -> Names:
    """The names of an attachment whose owner the store knows."""
    return names_of(attachment, owner.pod_namespace, owner.pod_name)


def index_pairs(names: Names) -> Iterator[tuple[int, int]]:
    """Interface indexes to try for host and pod end, the derived ones first.

    Choosing them saves reading them back. The two differ, because tools take a link whose index equals its
    peer's for a physical one.
    """
    first, end = FIRST_INDEX + 2 * (names.first_index % INDEX_PAIRS), FIRST_INDEX + 2 * INDEX_PAIRS
    hosts = chain(range(first, end, 2), range(FIRST_INDEX, first, 2))
    pods = chain(range(first + 1, end, 2), range(FIRST_INDEX + 1, first, 2))
    return islice(zip(hosts, pods, strict=True), INDEX_ATTEMPTS)


def alias(attachment: Attachment, network: str, call_id: str = "") -> str:
    """The alias of a host veth: its attachment and the call that created it, in case the store is lost.

    What does not fit is left out: the id of the call first, then the network's name.
    """
    short = f"{ALIAS_TAG} {attachment.container_id} {attachment.ifname}"
    longest = f"{short} {network} {call_id}" if CALL_ID.fullmatch(call_id) else f"{short} {network}"
    for whole in (longest, f"{short} {network}"):
        if len(whole.encode()) <= ALIAS_MAX_BYTES:
            return whole
    return short


def read_alias(text: str) -> tuple[Attachment, str, str] | None:
    """The attachment, network and call of an alias, empty where left out; None when it is not one of ours."""
    words = text.split(" ")
    if words[0] != ALIAS_TAG or not 3 <= len(words) <= 5:
        return None
    network, call_id = (*words[3:], "", "")[:2]
    return Attachment(words[1], words[2]), network, call_id


def owner_of(link: Link) -> tuple[Attachment, str, str] | None:
    """What the alias of a finished host veth says; None for any other link.

    Anybody can set an alias: it counts only where something else confirms it.
    """
    named = read_alias(link.alias)
    return named if named is not None and is_own(link, names_of(named[0])) else None


def is_own(link: Link, names: Names) -> bool:
    """Whether a link is the attachment's host veth, finished or not.

    Without a mark it is where its alias names the attachment and its name is that of earlier versions, or
    where it is a veth with an index of the attachment's: its ADD was killed before it could mark it, or
    somebody took the mark away.
    """
    if is_marked(link):
        return names.mark in link.alt_names
    named = read_alias(link.alias)
    if named is not None and named[0] != names.attachment:
        return False
    if named is not None and link.name == names.own_ifname:
        return True
    return link.kind == "veth" and any(link.index == host for host, _ in index_pairs(names))


def is_marked(link: Link) -> bool:
    """Whether a link is the host veth of any attachment."""
    return any(each.startswith(MARK_PREFIX) for each in link.alt_names)


def is_finished(link: Link | None, attachment: Attachment) -> bool:
    """Whether the ADD of a host veth finished: the alias is the last thing it sets."""
    named = read_alias(link.alias) if link else None
    return named is not None and named[0] == attachment


def by_name(links: Iterable[Link]) -> dict[str, Link]:
    """Links by every name they have, marks among them."""
    return {name: link for link in links for name in (link.name, *link.alt_names)}


def find(names: Names, links: Mapping[str, Link]) -> Link | None:
    """The host veth of an attachment among links ``by_name``."""
    marked = links.get(names.mark)
    if marked is not None:
        return marked
    candidates = (links.get(name) for name in (names.own_ifname, names.host_ifname))
    return next((link for link in candidates if link is not None and is_own(link, names)), None)
