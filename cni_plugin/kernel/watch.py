"""Whether links, routes or addresses of the host have changed since the last check.

Owns the subscription to notifications (rtnetlink(7), multicast groups), so that an idle node costs no dump,
and which of them are about pods' links and routes. It must not know what is checked after a change.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct
from array import array
from typing import NamedTuple

from cni_plugin.kernel.encode import HOST_LINK_GROUP

RTMGRP_LINK, RTMGRP_IPV4_RULE = 0x1, 0x80
RTMGRP_IPV6_RULE, RTMGRP_NEXTHOP = 1 << 18, 1 << 31
RTMGRP_IPV4_NETCONF, RTMGRP_IPV6_NETCONF = 1 << 23, 1 << 24
"""RTNLGRP_* of the same names as bits of the mask that bind(2) takes."""
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 20, 21, 24, 25
RTM_NEWNETCONF, RTM_DELNETCONF = 80, 81
ANYTHING = 0
"""Stands for a message's type (NLMSG_NOOP is never sent): more happened than could be kept, or this is the
first check."""
SO_ATTACH_FILTER = 26
SINGLE_ADDRESS = 32
"""Prefix length of a pod's IPv4 route."""
IFLA_LINKINFO, IFLA_GROUP, IFLA_INFO_KIND, RTA_OIF = 18, 27, 1, 4
_HEAD = 16
"""Bytes of a notification that are read: its header. The kernel drops the rest."""


class _Step(NamedTuple):
    """One instruction of classic BPF (struct sock_filter), and where it continues; empty: at the next one."""

    code: int
    value: int = 0
    if_true: str = ""
    if_false: str = ""
    label: str = ""


LOAD, LOAD_HALF, LOAD_BYTE, LOAD_AT_X, LOAD_BYTE_AT_X = 0x20, 0x28, 0x30, 0x40, 0x50
SET, SET_X, TO_X, IS, RETURN = 0x00, 0x01, 0x07, 0x15, 0x06
ATTRIBUTE, INNER_ATTRIBUTE = 0xFFFFF000 + 12, 0xFFFFF000 + 16
"""SKF_AD_NLATTR, SKF_AD_NLATTR_NEST: the offset of the attribute of type X, from offset A on or inside of the
one at A; 0 if there is none (Documentation/networking/filter.rst)."""
BODY, ROUTE_ATTRIBUTES, LINK_ATTRIBUTES = 16, 28, 32
"""Offsets in a message: behind struct nlmsghdr, behind struct rtmsg, behind struct ifinfomsg."""


def _as_read(value: int, size: int) -> int:
    """A number of the host's order as BPF loads it, in the network's."""
    return int.from_bytes(value.to_bytes(size, "little"), "big")


NOT_OF_PODS = (
    _Step(LOAD_HALF, 4),  # nlmsg_type
    _Step(IS, _as_read(RTM_NEWLINK, 2), "link"),
    _Step(IS, _as_read(RTM_DELLINK, 2), "link"),
    _Step(IS, _as_read(RTM_NEWROUTE, 2), "route"),
    _Step(IS, _as_read(RTM_DELROUTE, 2), "route"),
    _Step(IS, _as_read(RTM_NEWNETCONF, 2), "settings"),
    _Step(IS, _as_read(RTM_DELNETCONF, 2), "settings", "keep"),
    _Step(LOAD_BYTE, BODY + 1, label="route"),  # rtm_dst_len
    _Step(IS, 0, "keep"),
    _Step(IS, SINGLE_ADDRESS, "drop"),  # for IPv6 a prefix like any other
    _Step(SET, ROUTE_ATTRIBUTES),
    _Step(SET_X, RTA_OIF),
    _Step(LOAD, ATTRIBUTE),
    _Step(TO_X),
    _Step(IS, 0, "keep", "index"),
    _Step(SET_X, BODY + 4, label="settings"),  # NETCONFA_IFINDEX comes first
    _Step(LOAD_BYTE_AT_X, 7, label="index"),  # the highest byte of the index that an attribute at X has
    _Step(IS, 0, "", "keep"),  # what concerns all links is negative
    _Step(LOAD_BYTE_AT_X, 6),
    _Step(IS, 0, "keep", "drop"),  # up to 65535: not an index that was chosen for a pod
    _Step(SET, LINK_ATTRIBUTES, label="link"),
    _Step(SET_X, IFLA_GROUP),
    _Step(LOAD, ATTRIBUTE),
    _Step(IS, 0, "keep"),
    _Step(TO_X),
    _Step(LOAD_AT_X, 4),
    _Step(IS, _as_read(HOST_LINK_GROUP, 4), "", "keep"),
    _Step(SET, LINK_ATTRIBUTES),
    _Step(SET_X, IFLA_LINKINFO),
    _Step(LOAD, ATTRIBUTE),
    _Step(IS, 0, "keep"),
    _Step(SET_X, IFLA_INFO_KIND),
    _Step(LOAD, INNER_ATTRIBUTE),
    _Step(IS, 0, "keep"),
    _Step(TO_X),
    _Step(LOAD_AT_X, 4),
    _Step(IS, int.from_bytes(b"veth", "big"), "drop"),
    _Step(RETURN, 0xFFFFFFFF, label="keep"),
    _Step(RETURN, 0, label="drop"),
)
"""Keeps every notification except those that each ADD and DEL causes: about a veth in the group of pods'
links, about IPv4 routes to single addresses, and about settings and other routes, default routes excepted, of
a link whose index is in the range that is chosen for pods."""


class Watch:
    """Subscribed to objects of the namespace that the calling thread is in.

    It keeps few notifications: that there are more is enough to know, and reading them one by one would take
    a system call each.

    Args:
        groups: which (RTMGRP_*; those of a family are in ``family``).
        of_pods: also what happens to pods' links and routes; without it the kernel does not even keep it.

    Raises:
        OSError: the kernel refuses such a socket.
    """

    def __init__(self, groups: int, *, of_pods: bool = True) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._first = True
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the least: a message or two
            if not of_pods:
                _attach(self._socket, NOT_OF_PODS)
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the subscription; more than once is fine."""
        self._socket.close()

    def changed(self) -> bool:
        """Whether anything changed since the last call; true at the first one. Call it before a check, so
        that the next call reports what changes meanwhile.
        """
        return bool(self.changes())

    def changes(self) -> set[int]:
        """The types of what was notified of since the last call (RTM_*, or ``ANYTHING``); as ``changed``."""
        found: set[int] = set()
        if self._first:
            self._first = False
            found.add(ANYTHING)
        while True:
            try:
                message = self._socket.recv(_HEAD)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.add(ANYTHING)
            else:
                found.add(int.from_bytes(message[4:6], "little"))


def _attach(to: socket.socket, steps: tuple[_Step, ...]) -> None:
    """Have the kernel keep only what a program keeps (socket(7), SO_ATTACH_FILTER)."""
    at = {each.label: number for number, each in enumerate(steps) if each.label}
    code = b"".join(
        struct.pack(
            "=HBBI",
            step.code,
            at[step.if_true] - number - 1 if step.if_true else 0,
            at[step.if_false] - number - 1 if step.if_false else 0,
            step.value,
        )
        for number, step in enumerate(steps)
    )
    held = array("B", code)
    where, _ = held.buffer_info()
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(steps), where))
