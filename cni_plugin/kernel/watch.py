"""Whether links, routes or addresses of the host have changed since somebody looked.

Owns the subscription to what the kernel tells (rtnetlink(7), multicast groups). It must not know what is
looked for: a node where nothing happens costs no dump.
"""

from __future__ import annotations

import _socket as socket
import errno

RTMGRP_LINK = 0x1


class Watch:
    """Subscribed to objects of the namespace that the calling thread is in.

    Args:
        groups: which (RTMGRP_*; those of a family are in ``family``).

    Raises:
        OSError: the kernel allows no such socket.
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

    def changed(self) -> bool:
        """Whether anything changed since the last call; yes at the first one. To be asked before a look, so
        that what changes meanwhile is seen with the next.
        """
        changed, self._first = self._first, False
        while True:
            try:
                self._socket.recv(1)  # what it was does not matter; the rest of the message is dropped
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than the socket could keep
                    raise
            changed = True
