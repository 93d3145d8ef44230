"""CNI_NETNS: what is taken for a pod's namespace, and what is refused before anything is done."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.fabric import syscalls as sc
from tests.netns.calls import Executable
from tests.netns.node import GATEWAY, Node
from tests.netns.sandbox import Pod, Sandbox

INVALID_NETNS, KERNEL_REFUSED = 8, 106

HOST_FACTS = ("address", "route", "rule")


def _file(sandbox: Sandbox) -> str:
    sandbox.write("/run/netns/plain", "left here by a reboot")
    return "/run/netns/plain"


def _fifo(sandbox: Sandbox) -> str:
    sandbox.do(lambda: os.mkfifo("/run/netns/fifo"))
    return "/run/netns/fifo"


def _link_to_nowhere(sandbox: Sandbox) -> str:
    sandbox.do(lambda: Path("/run/netns/link").symlink_to("/run/netns/nothing"))
    return "/run/netns/link"


WRONG: dict[str, Callable[[Sandbox], str]] = {
    "nothing is there": lambda _: "/run/netns/missing",
    "a folder is missing": lambda _: "/run/missing/c1",
    "a plain file": _file,
    "a directory": lambda _: "/run/netns",
    "a device": lambda _: "/dev/null",
    "a device that may block": lambda _: "/dev/tty",
    "a pipe that nobody writes to": _fifo,
    "a link to nowhere": _link_to_nowhere,
    "a mount namespace": lambda _: "/proc/self/ns/mnt",
    "a process namespace": lambda _: "/proc/self/ns/pid",
    "another file of proc": lambda _: "/proc/self/status",
    "too long a path": lambda _: "/" + "x" * 5000,
    "text that is no path": lambda _: "not/a\nnamespace\udcff",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_network_namespace_is_refused(busy_node: Node, what: str) -> None:
    path = WRONG[what](busy_node.sandbox)
    for verb, conf in (
        ("ADD", busy_node.netconf),
        ("CHECK", {**busy_node.netconf, "prevResult": {"ips": []}}),
    ):
        failed = busy_node.call(verb, Pod("c1", path, busy_node.sandbox), conf=conf)
        assert failed.code == INVALID_NETNS, failed
        assert "CNI_NETNS" in failed.msg
        assert failed.error["details"]
    assert not busy_node.residue()


@pytest.mark.parametrize("what", WRONG)
def test_a_pod_goes_away_whatever_has_become_of_its_namespace(busy_node: Node, what: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.add(pod).done()
    path = WRONG[what](busy_node.sandbox)
    busy_node.delete(Pod("c1", path, busy_node.sandbox)).done()
    assert not busy_node.residue()


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/1/ns/net", "/run/netns/host"])
def test_the_hosts_own_namespace_is_refused_before_anything_is_done(node: Node, path: str) -> None:
    sandbox = node.sandbox
    if path == "/proc/1/ns/net":  # in a sandbox pid 1 is outside: stand its holder in for it
        path = f"/proc/{sandbox.holder}/ns/net"
    elif path == "/run/netns/host":
        sandbox.do(Path(path).touch, lambda: sc.mount("/proc/self/ns/net", path, flags=sc.MS_BIND))
    before = [sandbox.ip(fact) for fact in HOST_FACTS]
    failed = node.add(Pod("c1", path, sandbox))
    assert failed.code == INVALID_NETNS
    assert "host" in failed.msg
    assert "CNI_NETNS_OVERRIDE" in failed.error["details"]
    assert [sandbox.ip(fact) for fact in HOST_FACTS] == before
    assert not node.residue()


@pytest.mark.parametrize(("value", "metric"), [("1", 0), ("true", 100), ("1", 4_000_000_000)])
def test_the_hosts_own_namespace_is_taken_when_it_is_really_meant(
    busy_node: Node, value: str, metric: int
) -> None:
    """Its default route stays the one that is used, and DEL takes away what ADD made, nothing else. DHCP
    clients give it a metric, on Azure it is 100.
    """
    sandbox = busy_node.sandbox
    sandbox.batch("route delete default", f"route add default via {GATEWAY} dev eth0 metric {metric}")
    pod = Pod("c1", f"/proc/{sandbox.holder}/ns/net", sandbox)
    before = [sandbox.ip(fact) for fact in HOST_FACTS]
    added = busy_node.add(pod, ifname="pod0", env={"CNI_NETNS_OVERRIDE": value})
    assert added.result["interfaces"][1]["sandbox"] == pod.netns
    assert sandbox.ip("route", "get", "192.0.2.1")[0]["dev"] == "eth0"
    busy_node.check(pod, added, ifname="pod0").done()
    busy_node.delete(pod, ifname="pod0").done()
    assert not busy_node.residue()
    assert [sandbox.ip(fact) for fact in HOST_FACTS] == before


@pytest.mark.alone("an agent has the capabilities of its own")
def test_without_the_capability_to_enter_a_namespace_the_step_is_named_and_nothing_is_left(
    node: Node, executable: Executable
) -> None:
    pod = node.sandbox.pod("c1")
    env = {**node.environ, **executable.environ, "CNI_COMMAND": "ADD"}
    env |= {"CNI_CONTAINERID": "c1", "CNI_NETNS": pod.netns, "CNI_IFNAME": "eth0"}
    argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", str(executable.program)]
    process = node.sandbox.popen(argv, env=env, stdin=subprocess.PIPE)
    printed, _ = process.communicate(json.dumps(node.netconf).encode())
    failed = json.loads(printed)
    assert failed["code"] == KERNEL_REFUSED
    assert "namespace" in failed["msg"]
    assert "CAP_SYS_ADMIN" in failed["details"]
    assert not node.residue()


@pytest.mark.parametrize("value", ["0", "false", "yes", ""])
def test_only_one_and_true_override(busy_node: Node, value: str) -> None:
    pod = Pod("c1", "/proc/self/ns/net", busy_node.sandbox)
    assert busy_node.add(pod, env={"CNI_NETNS_OVERRIDE": value}).code == INVALID_NETNS


def test_a_namespace_may_be_named_by_a_process(node: Node) -> None:
    """Some runtimes write /proc/PID/ns/net."""
    pod = node.sandbox.pod("c1")
    process = node.sandbox.popen(["ip", "netns", "exec", "c1", "sleep", "60"], stdout=subprocess.DEVNULL)
    try:
        path = f"/proc/{process.pid}/ns/net"
        ours = node.sandbox.path("/run/netns/c1").stat().st_ino
        while Path(path).stat().st_ino != ours:
            assert process.poll() is None
        by_process = Pod("c1", path, node.sandbox)
        previous = node.add(by_process)
        assert previous.result["interfaces"][1]["sandbox"] == path
        node.check(by_process, previous).done()
        assert [link["ifname"] for link in pod.ip("link")] == ["lo", "eth0"]
    finally:
        process.kill()
        process.communicate()
    node.delete(by_process).done()
    assert not node.residue()


def test_the_path_is_given_back_as_it_was_written(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    written = "/run/../run//netns/./c1"
    made = busy_node.add(Pod("c1", written, busy_node.sandbox)).result
    assert made["interfaces"][1]["sandbox"] == written
    busy_node.delete(pod).done()


def test_a_relative_path_is_understood_from_where_the_caller_is(busy_node: Node) -> None:
    busy_node.sandbox.pod("c1")
    pod = Pod("c1", "run/netns/c1", busy_node.sandbox)
    busy_node.add(pod).done()
    busy_node.delete(pod).done()
    assert not busy_node.residue()
