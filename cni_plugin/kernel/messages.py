"""Netlink messages as bytes.

The only module that imports pyroute2, and of it only the message classes: ``pyroute2/__init__`` loads the
whole library (four times as long as these four modules), so a bare package object stands in for it. They
are loaded when a request has to be compiled; an ordinary call of the frozen bundle has none (``prepared``).
It must not know what a message is for.
"""

from __future__ import annotations

import sys
import types
from functools import cache
from importlib.machinery import PathFinder
from typing import Any

from cni_plugin.kernel import prepared

AF_INET = 2
HOST_SETTINGS = (("FORWARDING", 1, 1), ("PROXY_ARP", 3, 1), ("ACCEPT_REDIRECTS", 4, 0), ("RP_FILTER", 8, 1))
"""IPv4 settings of a host veth (ip-sysctl.rst): name, IPV4_DEVCONF_*, value. ``rp_filter`` 1: a pod sends
from its own address alone, also in ARP. ``forwarding``: the node's default may be 0. ``proxy_arp``: a pod
whose MAC a later plugin changed has lost its permanent neighbour, and asks for its gateway."""

COMPILED = dict(prepared.COMPILED)
"""Requests that are the same each time, by what they are compiled from."""


def compiled_once(
    message: str, kind: int, flags: int, fields: dict[str, int], attributes: list[Any]
) -> bytes:
    """For requests that are the same each time."""
    key = repr((message, kind, flags, fields, attributes))
    data = COMPILED.get(key)
    if data is None:
        data = COMPILED[key] = compiled(message, kind, flags, fields, attributes)
    return data


def compiled(message: str, kind: int, flags: int, fields: dict[str, int], attributes: list[Any]) -> bytes:
    """A message of a class of pyroute2; its sequence number is filled in when it is sent."""
    made = classes()[message]()
    made["header"] = {"type": kind, "flags": flags, "sequence_number": 0, "pid": 0}
    for name, value in fields.items():
        made[name] = value
    made["attrs"] = attributes
    made.encode()
    return bytes(made.data)


@cache
def classes() -> dict[str, Any]:
    """The message classes of pyroute2, by name."""
    _without_running_init()
    from pyroute2.netlink import nla, nlmsg
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    class linkconf(nlmsg):  # type: ignore[misc]  # noqa: N801
        """Pyroute2 knows IFLA_INET_CONF as the kernel sends it, an array; it is set one by one."""

        fields = ifinfmsg.fields
        nla_map = ((26, "IFLA_AF_SPEC", "af_spec"),)

        class af_spec(nla):  # type: ignore[misc]  # noqa: N801
            nla_map = ((AF_INET, "AF_INET", "inet"),)

            class inet(nla):  # type: ignore[misc]  # noqa: N801
                nla_map = ((1, "IFLA_INET_CONF", "conf"),)

                class conf(nla):  # type: ignore[misc]  # noqa: N801
                    nla_map = tuple((number, name, "uint32") for name, number, _ in HOST_SETTINGS)

    messages = (fibmsg, ifaddrmsg, ifinfmsg, linkconf, ndmsg, rtmsg)
    return {each.__name__: each for each in messages}


def _without_running_init() -> None:
    """Put a package object for ``pyroute2`` in place whose submodules can be imported as usual."""
    if "pyroute2" in sys.modules:
        return
    spec = PathFinder.find_spec("pyroute2")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("pyroute2 is not installed")
    package = types.ModuleType("pyroute2")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["pyroute2"] = package
