"""Source ``wireserver``: the host agent behind ``168.63.129.16``, which knows the NICs of its guests.

    <Interfaces><Interface MacAddress="000D3A6E1825" IsPrimary="true"><IPSubnet Prefix="10.0.0.0/16">
      <IPAddress Address="10.0.0.4" IsPrimary="true"/><IPAddress Address="10.0.0.5" IsPrimary="false"/>
    </IPSubnet></Interface></Interfaces>

It answers uid 0 in the host's own network namespace only: Azure's guest agent drops what anybody else
sends. The document is read with lxml, and nothing in it can make the parser open a file, ask the
network or grow: entities are not resolved, a document type is refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lxml import etree

from ipam.sources.http import Get, get
from ipam.sources.nic import Entry, builder, listing, not_a_document

if TYPE_CHECKING:
    from ipam.model import Listing, Nic

PATH = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1"
REMEDY = (
    "It has to be asked as root from the node's own network namespace: look for firewall rules on "
    "168.63.129.16 (`iptables -t security -S OUTPUT`, `nft list ruleset`) and for its route."
)


def read(endpoint: str, until: float) -> Listing:
    """The listing of the NICs of this node; ``until`` is ``time.monotonic`` when it has to be over.

    Raises:
        SourceUnreadable: no answer, or not an address document.
    """
    url = endpoint.rstrip("/") + PATH
    return parse(get(Get("wireserver", url, {}, REMEDY), until), url)


@lru_cache(maxsize=1)
def parse(answer: bytes, url: str) -> Listing:
    """The listing that ``answer`` means; kept for when the same answer comes again."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True
    )
    try:
        root = etree.fromstring(answer, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise not_a_document("wireserver", url, str(error)) from error
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr]  # the stubs lack it
        raise not_a_document("wireserver", url, "it has a document type, which is never needed")
    if root.tag != "Interfaces":
        raise not_a_document("wireserver", url, f"its root is <{root.tag}>, not <Interfaces>")
    warnings: list[str] = []
    nics = (_nic(each, warnings) for each in root.iterchildren("Interface"))
    return listing("wireserver", (nic for nic in nics if nic is not None), warnings, answer)


def _nic(interface: etree._Element, warnings: list[str]) -> Nic | None:
    nic = builder(interface.get("MacAddress", ""), _is_primary(interface), warnings)
    if nic is None:
        return None
    for described in interface.iterchildren("IPSubnet"):
        subnet = nic.add_subnet(described.get("Prefix", ""))
        if subnet is not None:
            for each in described.iterchildren("IPAddress"):
                nic.add(Entry(each.get("Address", ""), own=_is_primary(each)), [subnet])
    return nic.nic()


def _is_primary(element: etree._Element) -> bool:
    return element.get("IsPrimary", "").strip().lower() in {"true", "1"}
