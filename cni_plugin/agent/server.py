"""The agent's socket: requests in, replies out, any number at a time.

Owns the listening socket and the threads that serve it. Each thread takes a connection, handles the
call with the same engine the executable uses, and answers. It must not know how a verb works.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cni_plugin import log
from cni_plugin.agent import protocol
from cni_plugin.agent.unixsocket import SocketOwner, UnixSocket
from cni_plugin.call_log import default_file, record
from cni_plugin.cni import contract
from cni_plugin.cni.call import Call, Reply
from cni_plugin.cni.netconf import remembered
from cni_plugin.node import Node
from ipam.quoting import one_line

SOCKET_NAME = "agent.sock"
WORKERS = 16
"""Calls that can wait, for a lock or a source, before more threads are started. Their other work takes turns
anyway."""
MOST_WORKERS = 128
"""Maximum, including threads added while calls wait, such as for a source that hangs."""
SLOW_SECONDS = 1.0
"""A call that takes longer counts as waiting."""
EXTRA_SECONDS = 3.0
"""Seconds after which an idle added thread ends."""
STUCK_SECONDS = 120.0
"""No call takes that long: every wait has a shorter deadline."""
MOST_BYTES_AT_ONCE = 2 * 1024 * 1024
"""Of all requests in progress: hundreds of ordinary ones. A byte of JSON may take thirty in memory."""
BACKLOG = 1024
REQUEST_SECONDS = 5.0
REPLY_SECONDS = 5.0
ACCEPT_PAUSE = 0.05
"""Seconds before accept() is retried after a failure, for example for lack of descriptors."""

WITH_TODAYS_NETCONF = ("ADD", "STATUS")
"""Verbs with a current netconf. That of a DEL or CHECK may be as old as its pod, and of a network that is no
longer used."""

Observer = Callable[[str, Reply, float], None]
"""Called after each call with verb, reply and seconds."""
NetconfListener = Callable[[dict[str, Any]], None]


class Room:
    """A budget of bytes that threads share."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], bool]]:
        """A function that reserves bytes if there is room; they are returned at the end."""
        taken: list[int] = []

        def take(size: int) -> bool:
            with self._lock:
                if size > self._left:
                    return False
                self._left -= size
                taken.append(size)
                return True

        try:
            yield take
        finally:
            with self._lock:
                self._left += sum(taken)


class Server:
    """The agent's socket and its threads.

    Args:
        node: where calls are handled.
        observe: called after each call.
        note_netconf: given the netconf of each ADD and STATUS, since it says where addresses come from.
    """

    def __init__(self, node: Node, observe: Observer, note_netconf: NetconfListener) -> None:
        self._node = node
        self._observe = observe
        self._note_netconf = note_netconf
        self._path = socket_path(node.run_dir)
        self._draining = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._threads_lock = threading.Lock()
        self._begun: dict[threading.Thread, float] = {}
        """When each thread that has a connection took it (``time.monotonic``)."""
        self._full = threading.Event()
        self._room = Room(MOST_BYTES_AT_ONCE)
        self._listener: UnixSocket | None = None
        self._unused: list[UnixSocket] = []

    def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: the state directory can't be written.
        """
        self._node.ensure_run_dir()
        self._listener = UnixSocket(self._path, BACKLOG)
        self._start_threads(WORKERS, extra=False)
        threading.Thread(target=self._relieve, name="relief", daemon=True).start()

    def restore(self) -> bool:
        """Listen again if nothing answers at the path any more; whether that was needed.

        Another agent there is left alone: it has taken over.
        """
        before = self._listener
        if before is None or self._draining.is_set() or before.owner() is not SocketOwner.NOBODY:
            return False
        self._node.ensure_run_dir()
        with self._threads_lock:
            self._listener = UnixSocket(self._path, BACKLOG)
            self._bound_waiting(len(self._threads))
        self._unused.append(before)  # closed at the end: a thread may be just about to use its number
        _refuse(before)
        return True

    def in_place(self) -> bool:
        """Whether the path still leads to this agent; another one may have taken it over."""
        return self._listener is not None and self._listener.owner() is SocketOwner.OURS

    def why_not_alive(self) -> str:
        """Why this agent should be killed: calls that will never end; empty if there are none."""
        stuck = self._older_than(STUCK_SECONDS)
        return f"{stuck} calls have been in progress for {STUCK_SECONDS:.0f} s" if stuck >= WORKERS else ""

    def stop(self, seconds: float) -> bool:
        """Accept no more calls and finish those in progress; whether they finished in time.

        Callers waiting to be accepted get the reply to handle their call themselves: it was not started.
        """
        self._draining.set()
        self._full.set()
        if self._listener is not None:
            self._listener.withdraw()
            _refuse(self._listener)
        deadline = time.monotonic() + seconds
        for thread in tuple(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in tuple(self._threads)):
            return False
        for listener in (*self._unused, *([self._listener] if self._listener else [])):
            listener.close()
        return True

    # Threads

    def _start_threads(self, number: int, *, extra: bool) -> None:
        for _ in range(number):
            thread = threading.Thread(target=self._work, args=(extra,), name="call", daemon=True)
            with self._threads_lock:
                self._threads.add(thread)
                self._bound_waiting(len(self._threads))
            thread.start()

    def _bound_waiting(self, threads: int) -> None:
        """While there are added threads, give accept() a timeout, so that idle ones can end.

        The time is read as accept() begins (socket(7), SO_RCVTIMEO). Looking with poll(2) first would not do:
        another thread may take the connection that was seen.
        """
        if self._listener is not None:
            seconds = EXTRA_SECONDS if threads > WORKERS else 0.0
            protocol.set_timeout(self._listener.socket, socket.SO_RCVTIMEO, seconds)

    def _relieve(self) -> None:
        """Add threads when all have waiting calls: a source that hangs must not delay a DEL. A burst needs
        none, since its calls end soon.
        """
        while not self._draining.is_set():
            self._full.wait()
            self._full.clear()
            while not self._draining.wait(SLOW_SECONDS) and len(self._begun) >= len(self._threads):
                slow = self._older_than(SLOW_SECONDS)
                if 2 * slow >= len(self._threads):
                    self._start_threads(min(slow, MOST_WORKERS - len(self._threads)), extra=True)

    def _older_than(self, seconds: float) -> int:
        before = time.monotonic() - seconds
        return sum(begun < before for begun in tuple(self._begun.values()))

    def _work(self, extra: bool) -> None:  # noqa: FBT001 - an argument of a thread
        thread = threading.current_thread()
        while (listener := self._listener) is not None and not self._draining.is_set():
            try:
                connection, _ = listener.socket.accept()
            except BlockingIOError:
                if extra:
                    break
                continue
            except OSError:
                time.sleep(0 if self._draining.is_set() else ACCEPT_PAUSE)
                continue
            self._begun[thread] = time.monotonic()
            if len(self._begun) >= len(self._threads):
                self._full.set()
            with connection:
                self._answer(connection)
            del self._begun[thread]
        if extra:
            with self._threads_lock:
                self._bound_waiting(len(self._threads) - 1)
                self._threads.remove(thread)
        self._node.close()

    def _answer(self, connection: socket.socket) -> None:
        """Serve a connection; no error ends the thread."""
        try:
            self._serve(connection)
        except protocol.UnknownVersion as error:
            _send_refusal(connection, error.version)
        except protocol.TooLarge:
            _send_refusal(connection)  # the executable refuses it with a CNI error, or handles it
        except protocol.ProtocolError:
            return  # the caller is gone, or uses another protocol: it handles the call itself
        except Exception as error:  # noqa: BLE001 - a thread must outlive any defect
            said = f"internal error: {type(error).__name__}: {error}"
            log.write_record(default_file({}), "error", "error", by="agent", error=said)

    def _serve(self, connection: socket.socket) -> None:
        if protocol.peer_uid(connection) != 0:
            return
        deadline = time.monotonic() + REQUEST_SECONDS
        with self._room.share() as take:
            request = protocol.read_request(connection, deadline, admit=take)
            try:
                self._handle(connection, request)
            finally:
                request.close()

    def _handle(self, connection: socket.socket, request: protocol.RequestFrame) -> None:
        netconf = _netconf_of(request)
        if self._draining.is_set() or not _ours(request, netconf):
            _send_refusal(connection, request.version)
        elif protocol.caller_alive(connection):
            self._call(connection, request, netconf)

    def _call(
        self, connection: socket.socket, request: protocol.RequestFrame, netconf: dict[str, Any]
    ) -> None:
        started = time.monotonic()
        environ = request.environ()
        call = Call(
            environ=environ,
            stdin=request.stdin,
            netns_fd=request.netns_fd,
            as_ipam=request.as_ipam,
            call_id=environ.get("AZVNET_CALL_ID", ""),
            caller_alive=partial(protocol.caller_alive, connection),
        )
        reply = contract.handle(call, self._node)
        verb = environ.get("CNI_COMMAND", "")
        lines = [one_line(line, contract.LONGEST_MESSAGE) for line in reply.warnings]
        stderr = "".join(f"azvnet: {line}\n" for line in lines).encode(errors="replace")
        answer = protocol.ReplyFrame(reply.stdout, stderr, reply.exit_code, version=request.version)
        try:
            protocol.write_reply(connection, answer, time.monotonic() + REPLY_SECONDS)
        except protocol.ProtocolError:
            if verb == "ADD" and reply.exit_code == 0:
                contract.undo_add(call, self._node)
            raise
        finally:
            seconds = time.monotonic() - started
            self._observe(verb, reply, seconds)
            if verb in WITH_TODAYS_NETCONF:
                self._note_netconf(netconf)
            record(environ, call, reply, seconds, by="agent")


def _refuse(listener: UnixSocket) -> None:
    for connection in listener.refuse_more():
        _send_refusal(connection)


def _send_refusal(connection: socket.socket, version: int = protocol.VERSION) -> None:
    """Let the caller handle its call itself; it may also be gone."""
    with contextlib.suppress(protocol.ProtocolError):
        protocol.write_reply(connection, protocol.refusal(version), time.monotonic() + REPLY_SECONDS)


def _netconf_of(request: protocol.RequestFrame) -> dict[str, Any]:
    """The configuration if it is valid JSON; the verb reports what is wrong with it."""
    known = remembered(request.stdin)
    if known:
        return known[0]
    try:
        document = json.loads(request.stdin)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _ours(request: protocol.RequestFrame, netconf: dict[str, Any]) -> bool:
    """Whether the call needs nothing but this process.

    A delegated IPAM plugin is a program of the host, found by a path of the host's; the caller is there.
    """
    ipam = netconf.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    return request.as_ipam or kind in (None, "azvnet-ipam")


def socket_path(run_dir: Path) -> Path:
    """Where callers of the agent connect."""
    return run_dir / SOCKET_NAME
