"""The executable's own environment, stdin and stdout: the only module that touches them.

Owns reading a call from this process and writing its reply: one JSON document on stdout or nothing, in
every case. It must not know what a verb does. While a call is handled descriptor 1 points at stderr,
so that nothing, not even a library, can write a second document.
"""

from __future__ import annotations

import os
import posix
import time
from collections.abc import Mapping

from cni_plugin import stdio
from cni_plugin.call_log import record
from cni_plugin.cni import contract, versions
from cni_plugin.cni.call import MOST_STDIN_BYTES, Call, Reply
from cni_plugin.cni.errors import CniError, IOFailure, TryAgainLater
from cni_plugin.kernel import netns
from cni_plugin.node import Node
from ipam.quoting import one_line

VERBS_WITH_NAMESPACE = ("ADD", "CHECK")


def serve_call(*, as_ipam: bool) -> int:
    """Handle the call that this process was started for; returns its exit code."""
    stdout = _take_stdout()
    environ = _environ()
    started = time.monotonic()
    call: Call | None = None
    node = Node(environ)
    try:
        call = _read_call(environ, as_ipam=as_ipam)
        reply = _without_agent(call, node) or contract.handle(call, node)
    except CniError as error:
        reply = contract.failure(error, versions.CURRENT)
    except Exception as error:  # noqa: BLE001 - the caller must get a document, whatever happened
        reply = contract.failure(error, versions.CURRENT)
    exit_code = _finish(stdout, call, reply, environ, time.monotonic() - started)
    # The process ends without cleaning up; a store that is closed properly leaves nothing to recover.
    node.ipam.close()
    return exit_code


def _environ() -> dict[str, str]:
    """The environment, with what the thin start has added to it (``os.environ`` may be an older copy)."""
    return {os.fsdecode(name): os.fsdecode(value) for name, value in posix.environ.items()}


def _take_stdout() -> int:
    """Reserve stdout for the reply; anything else written there goes to stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    return stdout


def _read_call(environ: Mapping[str, str], *, as_ipam: bool) -> Call:
    verb = environ.get("CNI_COMMAND", "")
    return Call(
        environ=environ,
        stdin=_read_stdin(),
        netns_fd=_open_namespace(environ) if verb in VERBS_WITH_NAMESPACE else None,
        as_ipam=as_ipam,
        call_id=environ.get("AZVNET_CALL_ID") or os.urandom(16).hex(),
    )


def _read_stdin() -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := os.read(0, 1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_STDIN_BYTES:
                raise IOFailure(
                    f"stdin has more than {MOST_STDIN_BYTES} bytes", "Network configurations are far smaller."
                )
    except OSError as error:
        raise IOFailure(
            f"stdin can't be read: {error.strerror}", "The runtime writes the configuration there."
        ) from error
    return b"".join(chunks)


def _open_namespace(environ: Mapping[str, str]) -> int | None:
    """The pod's namespace; an error is left for the verb to report, after those that come before it."""
    path = environ.get("CNI_NETNS", "")
    try:
        return netns.open_netns(path) if path else None
    except (CniError, OSError):
        return None


def _without_agent(call: Call, node: Node) -> Reply | None:
    """The reply for an ADD that an agent has accepted; None if it has to be handled here."""
    became = call.environ.get("AZVNET_AGENT") if call.environ.get("CNI_COMMAND") == "ADD" else ""
    error: CniError
    if became == "hung":  # it may still finish it, so this process must not handle it
        error = TryAgainLater(
            "the azvnet agent accepted the call and did not answer in time",
            "The kubelet retries. See `azvnet status`, and the agent's log; restarting it is safe.",
        )
    elif became == "gone":  # the caller did not get the result, so the ADD is undone
        contract.undo_add(call, node)
        error = IOFailure("the result can't be written", "The ADD is undone; check the runtime.")
    else:
        return None
    return contract.failure(error, versions.CURRENT, call.call_id)


def _finish(stdout: int, call: Call | None, reply: Reply, environ: Mapping[str, str], seconds: float) -> int:
    for line in reply.warnings:
        _say(line)
    exit_code = reply.exit_code
    try:
        _write_all(stdout, reply.stdout)
        os.close(stdout)
    except OSError as error:
        _say(f"the result can't be written: {error.strerror}")
        exit_code = 1
        if call is not None and reply.exit_code == 0 and environ.get("CNI_COMMAND") == "ADD":
            _undo(call, environ)
    record(environ, call, reply, seconds, by="executable")
    return exit_code


def _undo(call: Call, environ: Mapping[str, str]) -> None:
    """The caller does not know about the new interface, so it must not stay."""
    again = {**call.environ, "CNI_COMMAND": "DEL"}
    contract.handle(Call(again, call.stdin, as_ipam=call.as_ipam, call_id=call.call_id), Node(environ))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _say(line: str) -> None:
    """Not through ``sys.stderr``: that is None when the caller closed it, and a failed write makes the
    interpreter exit with status 120.
    """
    stdio.write_all(
        2, f"azvnet: {one_line(line, contract.LONGEST_MESSAGE)}\n".encode(errors="backslashreplace")
    )
