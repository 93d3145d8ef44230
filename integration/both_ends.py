"""An end of a pod's link as ``ip`` prints it and as ``azvnet show`` does, in the same words: to be compared.

Must not know where ``ip`` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def carried(ip: Callable[..., list[dict[str, Any]]], name: str) -> dict[str, Any]:
    """What ``ip`` says of a link, in the words of ``azvnet show``."""
    (link,) = ip("-details", "link", "show", "dev", name)
    (address,) = ip("address", "show", "dev", name)
    routes = [*ip("route", "show", "dev", name), *ip("-6", "route", "show", "dev", name)]
    return {
        "name": link["ifname"],
        "index": link["ifindex"],
        "peerIndex": link["link_index"],
        "mac": link["address"],
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "addresses": {f"{each['local']}/{each['prefixlen']}" for each in address["addr_info"]},
        "routes": {
            (
                {"default": "0.0.0.0/0"}.get(
                    each["dst"], each["dst"] if "/" in each["dst"] else f"{each['dst']}/32"
                ),
                each.get("gateway"),
            )
            for each in routes
        },
        "neighbours": {
            (each["dst"], each.get("lladdr", "")) for each in ip("neighbour", "show", "dev", name)
        },
    }


def told(end: dict[str, Any]) -> dict[str, Any]:
    """The same of what ``azvnet show`` says."""
    return {
        **{name: end[name] for name in ("name", "index", "peerIndex", "mac", "mtu", "up")},
        "addresses": set(end["addresses"]),
        "routes": {(each["destination"], each["gateway"]) for each in end["routes"]},
        "neighbours": {(each["address"], each["mac"]) for each in end["neighbours"]},
    }
