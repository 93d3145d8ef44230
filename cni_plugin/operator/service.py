"""``azvnet operator``: the process, from start to end.

Owns its signals, its log and its pages. It must not know what the operator does.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus

from cni_plugin import __version__, log
from cni_plugin.agent.listener import Listener, Page, address_of, listen_on_port
from cni_plugin.agent.signals import Signals
from ipam.operator.cluster import ClusterApi
from ipam.operator.main import Operator
from ipam.operator.pages import OperatorPages
from ipam.operator.settings import Settings
from ipam.value import compile_constructors

Write = Callable[[bytes], object]


def run(settings: Settings, write: Write) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code. ``write`` takes the lines of the log.

    Raises:
        SettingsError: the settings are not possible here; says which.
        OSError: ``metrics_address`` can't be listened on.
    """

    def tell(level: str, text: str) -> None:
        line = log.line(level, settings.log_level, by="operator", msg=text)
        if line:
            write(line)

    compile_constructors()
    signals = Signals((signal.SIGTERM, signal.SIGINT))
    operator = Operator(settings, ClusterApi(settings.kubeconfig), _identity(), tell)
    listener = _listen(settings.metrics_address, OperatorPages(operator))
    operator.start()
    tell("info", f"azvnet operator {__version__} is up as {operator.identity}")
    signals.wait(None)
    operator.stop()
    if listener is not None:
        listener.stop()
    return 0


def _identity() -> str:
    """An identity that no other process has, before or after this one."""
    return f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"


def _listen(address: str, pages: OperatorPages) -> Listener | None:
    if not address:
        return None
    where = address_of(address)

    def answer(path: str, accept: str) -> Page:
        status, content_type, body = pages.answer(path, accept)
        return Page(body, HTTPStatus(status), content_type)

    return Listener(listen_on_port(*where), answer, "pages")
