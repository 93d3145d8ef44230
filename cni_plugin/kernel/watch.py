"""Whether links, routes or addresses of the host have changed since somebody looked.

Owns the subscription to notifications (rtnetlink(7), multicast groups), so that an idle node costs no dump.
It must not know what is looked for.
"""

from __future__ import annotations

import _socket as socket
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE = 0x1, 0x40, 0x80
RTMGRP_IPV6_RULE, RTMGRP_NEXTHOP = 1 << 18, 1 << 31
"""RTNLGRP_IPV6_RULE and RTNLGRP_NEXTHOP as bits of the mask that bind(2) takes."""
RTM_NEWLINK, RTM_DELLINK, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 24, 25
SINGLE_ADDRESS = 32
"""Bits of the destination of a pod's route."""
_HEAD = 24
"""Bytes of a notification that tell what it is about: its header and that of a link or route."""


def of_routing(index: int) -> Callable[[bytes], bool]:
    """Which notifications may change how packets leave by a link: not those of pods' links and of routes to
    single addresses, of which every ADD and DEL makes some.
    """

    def matters(message: bytes) -> bool:
        kind = int.from_bytes(message[4:6], "little")
        if kind in {RTM_NEWROUTE, RTM_DELROUTE}:
            return message[17] < SINGLE_ADDRESS  # rtm_dst_len
        if kind in {RTM_NEWLINK, RTM_DELLINK}:
            return int.from_bytes(message[20:24], "little") == index  # ifi_index
        return True

    return matters


class Watch:
    """Subscribed to objects of the namespace that the calling thread is in.

    Args:
        groups: which (RTMGRP_*; those of a family are in ``family``).

    Raises:
        OSError: the kernel refuses such a socket.
    """

    def __init__(self, groups: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._first = True
        try:
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the subscription; more than once is fine."""
        self._socket.close()

    def changed(self, matters: Callable[[bytes], bool] | None = None) -> bool:
        """Whether anything changed since the last call; true at the first one. Call it before a look, so that
        the next call reports what changes meanwhile. ``matters``: which messages count; all by default.
        """
        changed, self._first = self._first, False
        while True:
            try:
                message = self._socket.recv(_HEAD)  # the rest is dropped
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than the socket could keep
                    raise
                changed = True
            else:
                changed = changed or matters is None or matters(message)
