"""``azvnet uninstall``: remove what ``azvnet install`` created."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.cli.install import place_arguments, place_of, run_reporting, say

if TYPE_CHECKING:
    from cni_plugin.host import HostState
    from cni_plugin.install.place import Place
    from cni_plugin.node import Node


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where, and how thoroughly."""
    place_arguments(parser)
    parser.add_argument(
        "--force", action="store_true", help="uninstall even if pods are attached or the agent runs"
    )
    parser.add_argument(
        "--remove-conflist",
        action="store_true",
        help="remove 10-azvnet.conflist too, even if the agent wrote it",
    )
    parser.add_argument(
        "--purge",
        action="store_true",
        help="remove the node's state (/run/azvnet) and logs (/var/log/azvnet) too",
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="wait for SIGTERM afterwards: for a DaemonSet, whose pods must not exit",
    )


def run(options: argparse.Namespace) -> int:
    """Uninstall."""
    from cni_plugin.call_log import DEFAULT_FILE
    from cni_plugin.cli.asking import HANGS, RUNNING, ask_agent
    from cni_plugin.host import STATES, forwarding
    from cni_plugin.install.installing import require_root
    from cni_plugin.install.removing import Removal, uninstall
    from cni_plugin.node import LIB_DIR, Node

    def work() -> None:
        require_root()
        place = place_of(options)
        given = os.environ.get("AZVNET_RUN_DIR")
        run_dir = Path(given) if given else place.real(Path("/run/azvnet"))
        lib_dir = Path(os.environ.get("AZVNET_LIB_DIR") or given or place.real(Path(LIB_DIR)))
        log = os.environ.get("AZVNET_LOG_FILE")
        logs = Path(log) if log else place.real(Path(DEFAULT_FILE))
        with closing(Node({**os.environ, "AZVNET_RUN_DIR": str(run_dir)})) as node:
            agent, attached = ask_agent(run_dir), count_attachments(node)
            before = [(state, recorded(state, node)) for state in STATES]
            removal = Removal(
                place,
                attached,
                options.force,
                tuple({run_dir, lib_dir}) if options.purge else (),
                logs if options.purge else None,
                options.remove_conflist,
                str(place.shown(Path(agent.socket))) if agent.state in {RUNNING, HANGS} else "",
            )
            uninstall(removal, say)
            for state, values in before:
                if values:
                    restore(state, values, node, place, attached)
            (run_dir / forwarding.BEFORE).unlink(missing_ok=True)

    status = run_reporting("uninstall", work)
    if options.stay and not status:
        wait()
    return status


def recorded(state: HostState, node: Node) -> dict[str, str]:
    """What was done to the host for pods; nothing, with a note, if it can't be found out."""
    try:
        return state.recorded(node)
    except OSError as error:
        say(f"note: {state.KIND} can't be checked: {error.strerror}")
        return {}


def restore(state: HostState, values: dict[str, str], node: Node, place: Place, attached: int) -> None:
    """Undo what was done to the host for pods, unless something else may need it."""
    from cni_plugin.conflist import EXTENSIONS
    from cni_plugin.kernel.sysctl import PLACE

    directory = place.real_conf_dir
    names = sorted(path.name for path in directory.iterdir()) if state.SHARED and directory.is_dir() else []
    users = [str(place.conf_dir / name) for name in names if name.endswith(EXTENSIONS)]
    users += ["pods that are still attached"] if attached else []
    if users:
        say(f"note: {state.KEPT.format(', '.join(values))}, since {', '.join(users)} may need it")
        return
    try:
        restored = state.restore(node, values, place.real(PLACE))
        if restored:
            say(restored)
    except OSError as error:
        say(f"note: {state.KIND} can't be restored: {error.strerror}")


def wait() -> None:
    """Until SIGTERM or SIGINT."""
    import signal

    from cni_plugin.agent.signals import Signals

    sys.stdout.flush()
    Signals((signal.SIGTERM, signal.SIGINT)).wait(None)


def count_attachments(node: Node) -> int:
    """How many attachments have an endpoint here, or hold an address."""
    from cni_plugin.cli.looking import MISSING, look

    return sum(each.state != MISSING for each in look(node).attachments)
