"""Deleting a link, and continuing as soon as it is gone.

The kernel acknowledges the deletion of a link only when the last reference to it is dropped, 15 to 50 ms
later (``netdev_run_todo``, net/core/dev.c). Long before, under the RTNL lock, it has removed the link, its
peer and their routes, and sends a notification to a requester that set NLM_F_ECHO (from Linux 6.2 on,
rtnl_delete_link). So another thread sends the request and waits in the kernel, and the caller continues at
the first message: that the link is gone, or how the request ended.

Owns those threads. It must not know what a link was for.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from cni_plugin.kernel.encode import NLM_F_ECHO, RTM_DELLINK
from cni_plugin.kernel.netlink import ANSWER_SECONDS, NLMSG_ERROR, Netlink, error_of

if TYPE_CHECKING:
    from cni_plugin.kernel.templates import Request

MOST = 64
"""Threads at a time. When all are busy, callers send the request themselves and wait for the end."""
IDLE_SECONDS = 3.0
"""Seconds after which an idle thread ends."""
LOOK_SECONDS = 1
"""Seconds between a caller's checks whether its request was sent at all."""
ANSWER_BYTES = 1 << 13
"""More than one notification of a link."""


class Unregistering:
    """Deletes links of the namespace that its users are in; any number of threads may use one."""

    def __init__(self) -> None:
        self._idle: deque[_Sender] = deque()
        self.number = 0
        """Threads that there are now."""
        self._lock = threading.Lock()

    def delete(self, request: Request, host: Netlink) -> None:
        """Send a request to delete a link; returns when the link is gone.

        Args:
            request: what to send.
            host: the caller's own socket, for when no thread is free.

        Raises:
            OSError: as ``Netlink.change``.
        """
        sender = self._idle_one() or self._new_one()
        if sender is None:
            host.change([request])
        else:
            sender.delete(request)

    def _idle_one(self) -> _Sender | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _new_one(self) -> _Sender | None:
        with self._lock:
            if self.number >= MOST:
                return None
            self.number += 1
        try:
            return _Sender(self)
        except (OSError, RuntimeError):  # no descriptor, no thread
            self.ended()
            return None

    def idle(self, sender: _Sender) -> None:
        """Take back a sender for the next request."""
        self._idle.append(sender)

    def may_end(self, sender: _Sender) -> bool:
        """Whether a sender that was idle for long should end; if so, it is not used again."""
        try:
            self._idle.remove(sender)
        except ValueError:  # somebody has just taken it
            return False
        self.ended()
        return True

    def ended(self) -> None:
        """Count one sender less."""
        with self._lock:
            self.number -= 1


class _Sender:
    """A thread with a socket. One caller at a time has it; it is idle again when both are done."""

    def __init__(self, pool: Unregistering) -> None:
        self._pool = pool
        self._netlink = Netlink(answer_seconds=LOOK_SECONDS, received=memoryview(bytearray(ANSWER_BYTES)))
        self._asked = threading.Lock()
        """Released for each request."""
        self._asked.acquire()
        self._batch = bytearray()
        self._failure: OSError | None = None
        self._busy = 0
        self._lock = threading.Lock()
        try:
            threading.Thread(target=self._work, name="unregister", daemon=True).start()
        except BaseException:
            self._netlink.close()
            raise

    def delete(self, request: Request) -> None:
        self._batch, self._failure, self._busy = self._netlink.numbered([request], NLM_F_ECHO), None, 2
        self._asked.release()
        try:
            self._wait(request)
        finally:
            self._done()

    def _wait(self, request: Request) -> None:
        for _ in range(ANSWER_SECONDS):
            try:
                if self._is_gone(request):
                    return
            except BlockingIOError:
                if self._failure is not None:
                    raise self._failure from None
        raise TimeoutError(f"{request.what}: the kernel did not answer for {ANSWER_SECONDS} s")

    def _is_gone(self, request: Request) -> bool:
        """Read one answer, skipping those to earlier requests. Raises the OSError that answers ours."""
        for kind, flags, sequence, body in self._netlink.receive():
            if sequence == self._netlink.sequence and kind in {RTM_DELLINK, NLMSG_ERROR}:
                error = error_of(body, flags, [request]) if kind == NLMSG_ERROR else None
                if error is not None:
                    raise error
                return True
        return False

    def _work(self) -> None:
        while True:
            if self._asked.acquire(timeout=IDLE_SECONDS):
                try:
                    self._netlink.send(self._batch)
                except OSError as error:
                    self._failure = error
                self._done()
            elif self._pool.may_end(self):
                self._netlink.close()
                return

    def _done(self) -> None:
        with self._lock:
            self._busy -= 1
            idle = not self._busy
        if idle:
            self._pool.idle(self)
