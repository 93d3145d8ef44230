"""The agent's socket: callers in, replies out, any number at a time.

Owns the listening socket and the threads that serve it. Each thread takes a connection, carries the call
out with the same engine the executable uses, and answers. It must not know how a verb works.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cni_plugin import contract, log
from cni_plugin.agent import protocol
from cni_plugin.call import Call, Reply
from cni_plugin.node import Node
from cni_plugin.record import default_file, record
from cni_plugin.verbs import delete

SOCKET_NAME = "agent.sock"
WORKERS = 16
"""Deleting a link waits for RCU; that many waits overlap. Fewer threads made a burst of DELs slower."""
BACKLOG = 1024
REQUEST_SECONDS = 5.0
REPLY_SECONDS = 5.0
ACCEPT_PAUSE = 0.05
"""Before accept() is tried again after it failed, for want of descriptors say."""

Observer = Callable[[str, Reply, float], None]
"""Told of each call: verb, reply, seconds."""
NetconfListener = Callable[[dict[str, Any]], None]


class Server:
    """The agent's socket and its threads.

    Args:
        node: what calls are carried out on.
        observe: told of each call that was carried out.
        heard: given the netconf of each call, since it tells where addresses come from.
    """

    def __init__(self, node: Node, observe: Observer, heard: NetconfListener) -> None:
        self._node = node
        self._observe = observe
        self._heard = heard
        self._path = node.run_dir / SOCKET_NAME
        self._draining = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._inode = 0
        self._unused: list[socket.socket] = []

    def start(self) -> None:
        """Listen, and serve from now on.

        Raises:
            OSError: the state directory can't be written.
        """
        self._node.ensure_run_dir()
        self._listener = self._listen()
        for number in range(WORKERS):
            thread = threading.Thread(target=self._work, name=f"call-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def restore(self) -> bool:
        """Listen anew if somebody has removed the socket; whether that was needed.

        A socket of another agent in its place is left alone: that one has taken over.
        """
        if self._path.exists() or self._draining.is_set() or self._listener is None:
            return False
        self._node.ensure_run_dir()
        before, self._listener = self._listener, self._listen()
        self._unused.append(before)  # closed at the end: a thread may be just about to use its number
        with contextlib.suppress(OSError):
            before.shutdown(socket.SHUT_RDWR)
        return True

    def _listen(self) -> socket.socket:
        """A listening socket, renamed into place: a caller finds either the agent before this one or this
        one, never nothing, and it has its mode before anybody can see it.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        beside = self._path.with_name(f"{SOCKET_NAME}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(BACKLOG)
        self._inode = beside.stat().st_ino
        beside.replace(self._path)
        return listener

    def in_place(self) -> bool:
        """Whether callers still find this agent at the path; another one may have taken it over."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def stop(self, seconds: float) -> bool:
        """Take no more calls and finish those under way; whether they finished in time.

        Callers that are waiting to be accepted find the connection closed, and carry their call out
        themselves; nothing of it has been begun.
        """
        self._draining.set()
        if self.in_place():
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the threads in accept()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for listener in (*self._unused, *([self._listener] if self._listener else [])):
            listener.close()
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (listener := self._listener) is not None and not self._draining.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                time.sleep(0 if self._draining.is_set() else ACCEPT_PAUSE)
                continue
            with connection:
                try:
                    self._serve(connection)
                except protocol.UnknownVersion as error:
                    with contextlib.suppress(protocol.ProtocolError):
                        refusal = protocol.refusal(error.version)
                        protocol.write_reply(connection, refusal, time.monotonic() + REPLY_SECONDS)
                except protocol.ProtocolError:
                    continue  # the caller is gone, or speaks something else: it helps itself
                except Exception as error:  # noqa: BLE001 - a thread must outlive any defect
                    said = f"internal error: {type(error).__name__}: {error}"
                    log.write(default_file({}), "error", "error", by="agent", error=said)
        self._node.close()

    def _serve(self, connection: socket.socket) -> None:
        if protocol.peer_uid(connection) != 0:
            return
        request = protocol.read_request(connection, time.monotonic() + REQUEST_SECONDS)
        try:
            netconf = _netconf_of(request)
            if self._draining.is_set() or not _ours(request, netconf):
                protocol.write_reply(
                    connection, protocol.refusal(request.version), time.monotonic() + REPLY_SECONDS
                )
            elif protocol.caller_alive(connection):
                self._carry_out(connection, request)
                self._heard(netconf)
        finally:
            request.close()

    def _carry_out(self, connection: socket.socket, request: protocol.Request) -> None:
        started = time.monotonic()
        environ = request.environ()
        call = Call(
            environ=environ,
            stdin=request.stdin,
            netns_fd=request.netns_fd,
            as_ipam=request.as_ipam,
            call_id=environ.get("AZVNET_CALL_ID", ""),
            caller_alive=lambda: protocol.caller_alive(connection),
        )
        reply = contract.carry_out(call, self._node)
        verb = environ.get("CNI_COMMAND", "")
        stderr = "".join(f"azvnet: {line}\n" for line in reply.warnings).encode(errors="replace")
        answer = protocol.Reply(reply.stdout, stderr, reply.exit_code, version=request.version)
        try:
            protocol.write_reply(connection, answer, time.monotonic() + REPLY_SECONDS)
        except protocol.ProtocolError:
            if verb == "ADD" and reply.exit_code == 0:
                delete.undo_add(call, self._node)
            raise
        finally:
            seconds = time.monotonic() - started
            self._observe(verb, reply, seconds)
            record(environ, call, reply, seconds, by="agent")


def _netconf_of(request: protocol.Request) -> dict[str, Any]:
    """The configuration, as far as it is one; what is wrong with it is said where the call is carried out."""
    try:
        document = json.loads(request.stdin)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _ours(request: protocol.Request, netconf: dict[str, Any]) -> bool:
    """Whether the call needs nothing but this process.

    A delegated IPAM plugin is a program of the host, found by a path of the host's; the caller is there.
    """
    ipam = netconf.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    return request.as_ipam or kind in (None, "azvnet-ipam")


def socket_path(run_dir: Path) -> Path:
    """Where callers of the agent connect."""
    return run_dir / SOCKET_NAME
