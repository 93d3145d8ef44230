"""The kind cluster itself: made, given addresses, changed and deleted by the recipe of docs/kind.md.

Owns what `make kind` sets in the recipe's configuration. Everything else is the recipe's.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import yaml

from integration.cluster.client import Client
from integration.kind import recipe
from integration.kind.places import CACHE, ENVIRONMENT, KUBECONFIG, NAME, KindError

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.kind.docker import Docker

SOURCES = ("file", "imds")
CONFIGURATION = CACHE / "kind.yaml"
_ADDRESSES = "/etc/kubernetes/interfaces.json"
_STEP_OF_KIND = re.compile(r"^ ✓ ([ -~]+)")
_DELETE_SECONDS = 120.0


class KindCluster(Client):
    """A cluster on one Docker; nothing is asked of it before a method is called."""

    def __init__(self, docker: Docker) -> None:
        super().__init__(KUBECONFIG, program=shutil.which("kubectl", path=docker.environment["PATH"]))
        self.docker = docker

    def create(
        self,
        nodes: int,
        source: str,
        *,
        image: str = "",
        api_port: int = 0,
        serve: Callable[[dict[str, Any]], None],
        progress: Callable[[str], None],
    ) -> None:
        """Make it by the recipe, with azvnet, and wait until all nodes are Ready and names resolve.

        Args:
            nodes: how many, the control plane included.
            source: where azvnet reads the nodes' addresses.
            image: of the nodes; kind's own from its registry when empty.
            api_port: where the API server is published on 127.0.0.1; 0: kind chooses.
            serve: given the address document of each node, by the node's name, before azvnet starts.
            progress: told what begins.

        Raises:
            KindError: the message says which step failed.
        """
        recipe.LOG.unlink(missing_ok=True)
        configure, *others = recipe.steps("The recipe")
        self._run(configure, progress)
        text = CONFIGURATION.read_text(encoding="utf-8")
        CONFIGURATION.write_text(adapted(text, nodes, image, api_port), encoding="utf-8")
        *before, install = others
        for step in before:
            self._run(step, progress)
        serve(self.documents())
        self._run(install if source == "file" else _only("From IMDS"), progress)
        for step in recipe.steps("Ready"):
            self._run(step, progress)
        self._write_environment()

    def change(self, section: str, progress: Callable[[str], None] = lambda _: None) -> str:
        """Run the commands of another section of the page; returns what they printed. Raises KindError."""
        return "".join(self._run(step, progress) for step in recipe.steps(section))

    def delete(self) -> None:
        """Delete the node containers and their volumes; repeatable. Raises KindError."""
        self.docker.run("kind", "delete", "cluster", timeout=_DELETE_SECONDS)
        forget()

    def node_names(self) -> list[str]:
        """The containers that are its nodes, the control plane first. Raises KindError."""
        names = self.docker.run("kind", "get", "nodes").stdout.split()
        return sorted(
            (name for name in names if name.startswith(f"{NAME}-")),
            key=lambda n: (len(n.split("-worker")), n),
        )

    def documents(self) -> dict[str, Any]:
        """What azvnet's file source reads on each node. Raises KindError."""
        return {name: json.loads(self.on_node(name, "cat", _ADDRESSES)) for name in self.node_names()}

    def on_node(self, node: str, *command: str) -> str:
        """Run a command on a node; what it printed. Raises KindError."""
        return self.docker.run("docker", "exec", node, *command).stdout

    def _run(self, step: recipe.Step, progress: Callable[[str], None]) -> str:
        progress(step.title)

        def show(line: str) -> None:
            if done := _STEP_OF_KIND.match(line):
                progress(f"  {done[1].strip()}")

        return recipe.run(step, self.docker.environment, show)

    def _write_environment(self) -> None:
        """For a shell, to be sourced."""
        lines = [f"export {name}='{value}'\n" for name, value in self.docker.variables.items()]
        ENVIRONMENT.write_text("".join(lines), encoding="utf-8")


def forget() -> None:
    """Remove the files of a cluster that is gone; repeatable."""
    for path in (KUBECONFIG, ENVIRONMENT, CONFIGURATION):
        path.unlink(missing_ok=True)


def adapted(text: str, nodes: int, image: str, api_port: int) -> str:
    """The recipe's configuration with another number of nodes, their image, and where the API server is."""
    wanted: dict[str, Any] = yaml.safe_load(text)
    control, worker = wanted["nodes"]
    wanted["nodes"] = [dict(control), *(dict(worker) for _ in range(nodes - 1))]
    if image:
        for node in wanted["nodes"]:
            node["image"] = image
    if api_port:
        wanted["networking"] |= {"apiServerAddress": "127.0.0.1", "apiServerPort": api_port}
    return yaml.safe_dump(wanted, sort_keys=False)


def _only(section: str) -> recipe.Step:
    step, *more = recipe.steps(section)
    if more:
        raise KindError(f"section '{section}' of docs/kind.md has more than one step")
    return step
