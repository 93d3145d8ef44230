"""How much an agent does for a call, counted: the numbers of docs/performance.md, which no load changes."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import FrameType, ModuleType

import pytest

from cni_plugin.cni import contract
from cni_plugin.cni.call import Call
from cni_plugin.kernel import prepared
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.node import Node as Engine
from ipam.value import compile_constructors
from tests.netns.node import Node
from tests.netns.sandbox import Pod

pytestmark = pytest.mark.alone("an engine inside of the test, as the agent has it")

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT}/{package}/" for package in ("cni_plugin", "ipam"))
MOST = {"ADD": 67, "CHECK": 59, "DEL": 32}
"""Calls of a function in another file of azvnet; the CNI call before was one of the same network."""


def _prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "packaging" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Changes:
    """Counts calls from one file of azvnet into another."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or frame.f_back is None:
            return
        one, other = (each.f_code.co_filename for each in (frame.f_back, frame))
        if one != other and one.startswith(OURS) and other.startswith(OURS):
            self.found[f"{Path(one).stem} -> {Path(other).stem} {frame.f_code.co_name}"] += 1


def _call(
    verb: str, pod: Pod, container_id: str, conf: dict[str, object], engine: Engine, result: bytes
) -> bytes:
    environ = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container_id}",
    }
    document = conf | ({"prevResult": json.loads(result)} if result else {})
    netns_fd = os.open(pod.netns, os.O_RDONLY)
    try:
        reply = contract.handle(Call(environ, json.dumps(document).encode(), netns_fd=netns_fd), engine)
    finally:
        os.close(netns_fd)
    assert reply.exit_code == 0, reply.stdout
    return reply.stdout


def test_a_call_goes_through_few_files(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "TEMPLATES", _prepare().templates())  # as in the bundle
    pod, conf = node.sandbox.pod("c1"), node.conf()

    def work() -> dict[str, dict[str, int]]:
        compile_constructors()
        engine = Engine({}, background_reads=True, known_host=KnownHost())
        changes = {verb: Changes() for verb in MOST}
        for container_id in ("c1", "c2", "c3"):
            result = b""
            for verb in MOST:
                sys.setprofile(changes[verb] if container_id == "c3" else None)
                said = _call(verb, pod, container_id, conf, engine, result)
                sys.setprofile(None)
                result = said if verb == "ADD" else result
        return {verb: dict(each.found) for verb, each in changes.items()}

    found = node.sandbox.ask(work)
    much = {verb: each for verb, each in found.items() if sum(each.values()) > MOST[verb]}
    totals = {verb: sum(each.values()) for verb, each in found.items()}
    assert not much, (totals, json.dumps(much))
    assert all(found.values())
