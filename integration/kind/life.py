"""A kind cluster from its first step to its last: up, found again by another command, down.

Owns the order of the steps and what is undone when one fails. Must not know how they are shown.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from integration.cluster import conformance as suite
from integration.fabric import control
from integration.kind import debian, keeper, nodeimage, programs
from integration.kind import docker as dockers
from integration.kind.cluster import KindCluster, forget
from integration.kind.places import CACHE, DAEMON, KUBECONFIG, LOGS, ROOT, KindError
from integration.tools import containerd, kind, kubernetes, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.kind.docker import Docker

MOST_NODES = 6
"""A node needs 14 inotify instances, a control plane 27, of 128 that root has on most machines."""
_STATE = CACHE / "state.json"


def up(nodes: int, choice: str, source: str, image: str, progress: Callable[[str], None]) -> Docker:
    """Make a cluster; on failure, or when interrupted, nothing is left.

    Raises:
        KindError, ImageError, ToolsError: the message says what failed.
    """
    is_own = choice == "own" or (choice == "auto" and not dockers.system_answers())
    if source == "imds" and not is_own:
        raise KindError("the emulated IMDS answers in our own Docker's network only: DOCKER=own make kind")
    if is_own and os.geteuid() != 0:
        raise KindError("our own Docker needs namespaces: sudo DOCKER=own make kind; or DOCKER=system")
    if image and is_own:
        raise KindError("our own Docker reaches no registry, and makes the node image itself: no --image")
    with _alone():
        if is_own:
            _refuse_foreign()
        _clear(is_own=is_own)
        try:
            docker, image, port = _own(progress) if is_own else (dockers.system(), image, 0)
            _STATE.write_text(json.dumps({"own": is_own, "nodes": nodes}), encoding="utf-8")
            KindCluster(docker).create(
                nodes,
                source,
                image=image,
                api_port=port,
                serve=_serve if is_own else lambda _: None,
                progress=progress,
            )
        except BaseException:
            progress("taking it down")
            with contextlib.suppress(KindError):  # what failed first is what has to be shown
                _clear(is_own=is_own)
            raise
    return docker


def prepare(progress: Callable[[str], None]) -> None:
    """Make once what every cluster with our own Docker is made of, as far as no daemon is needed for it.

    Raises:
        KindError, ImageError, ToolsError: the message says what failed.
    """
    with _alone():
        _prepare(progress)
        progress("the images of Kubernetes' control plane")
        nodeimage.archives()


def running() -> Docker | None:
    """The Docker of the cluster that is up; None when none is."""
    if not (KUBECONFIG.exists() and _STATE.exists()):
        return None
    if json.loads(_STATE.read_text(encoding="utf-8"))["own"]:
        return dockers.own(keeper.ask()) if keeper.running() else None
    return dockers.system()


def cluster() -> KindCluster:
    """The cluster that is up. Raises KindError."""
    docker = running()
    if docker is None:
        raise KindError("no cluster is up; make one: make kind")
    return KindCluster(docker)


def down() -> str:
    """Delete whatever is up or was left; returns what was done, for people. Repeatable. Raises KindError."""
    known = json.loads(_STATE.read_text(encoding="utf-8")) if _STATE.exists() else None
    was_up = known is not None or keeper.running()
    if known and not known["own"]:
        KindCluster(dockers.system()).delete()
    else:
        keeper.take_down()  # with the nodes; neither kind nor Kubernetes has to be built for it
        forget()
    _STATE.unlink(missing_ok=True)
    return "kind: down" if was_up else "kind: nothing was up"


def conformance(focus: str, progress: Callable[[int], None]) -> list[suite.Spec]:
    """Run Kubernetes' own specs on the cluster that is up; all of [sig-network]'s without ``focus``.

    Raises:
        KindError, ClusterError: no cluster is up, or the suite did not run to its end.
    """
    found = cluster()
    return suite.run(
        keeper.ask().pid if found.docker.own else 0,
        LOGS / "conformance",
        nodes=len(found.node_names()),
        focus=focus or suite.CONFORMANCE,
        kubeconfig=str(KUBECONFIG),
        progress=progress,
    )


def _clear(*, is_own: bool) -> None:
    """Take down what is of this checkout: on a machine's Docker it is what was noted."""
    if is_own or _STATE.exists():
        down()


def _refuse_foreign() -> None:
    """Raises KindError when our Docker runs for somebody else."""
    if keeper.running():
        other = keeper.ask().checkout
        if other != str(ROOT):
            raise KindError(f"a cluster of {other} is up; delete it there: make kind-down")


def _own(progress: Callable[[str], None]) -> tuple[Docker, str, int]:
    """Our Docker with the node image in it; the image, and the port for the API server."""
    _prepare(progress)
    progress("dockerd")
    kept = keeper.start()
    docker = dockers.own(kept)
    if not nodeimage.exists(docker):
        nodeimage.make(docker, progress)
    return docker, nodeimage.tag(), kept.api_port


def _prepare(progress: Callable[[str], None]) -> None:
    if subprocess.run([str(ROOT / "packaging" / "bootstrap.sh"), "kind"], check=False).returncode:
        raise KindError("packages are missing on this machine")
    for build in (kubernetes, containerd, tools, kind):  # with progress of their own
        build()
    if not programs.unpacked():
        progress("Docker's packages (36 MB, once)")
    programs.docker()
    if not debian.made():
        progress("the root of a node, from Debian's packages (a minute or two, once)")
    debian.archive()


def _serve(documents: dict[str, Any]) -> None:
    control.ask(DAEMON, "serve", documents=documents)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KindError("another `make kind` of this checkout is at work") from None
        yield
