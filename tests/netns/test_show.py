"""``azvnet show``: what it says of a pod is what the kernel has, and looking changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from integration.both_ends import carried, told
from tests.netns.calls import Executable
from tests.netns.node import RUN_DIR, Node, pod_args
from tests.netns.sandbox import Pod
from tests.netns.test_delegation import Delegate

Show = Callable[..., subprocess.CompletedProcess[str]]
NOT_FOUND, SEVERAL = 1, 2


@pytest.fixture
def show(node: Node, executable: Executable) -> Show:
    """Runs the command on the node."""

    def run(*options: str, lang: str = "C.UTF-8") -> subprocess.CompletedProcess[str]:
        environ = {"LANG": lang, "PYTHONCOERCECLOCALE": "0"}
        return executable.command(node.sandbox, "show", *options, **environ)

    return run


def shown(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The attachments of a document."""
    assert (done.returncode, done.stderr) == (0, ""), done
    attachments = json.loads(done.stdout)["attachments"]
    assert isinstance(attachments, list)
    return attachments


def one(show: Show, target: str) -> dict[str, Any]:
    """The one attachment that ``target`` names."""
    (found,) = shown(show(target, "--output", "json"))
    assert isinstance(found, dict)
    return found


def test_both_ends_are_shown_as_the_kernel_has_them(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("0123456789abcdef")
    result = node.add(pod, args=pod_args(pod.container_id, namespace="prod", name="web"))
    veth = result.result["interfaces"][0]["name"]
    seen = one(show, "prod/web")
    assert told(seen["podEnd"]) == carried(pod.ip, "eth0")
    assert told(seen["hostEnd"]) == carried(node.sandbox.ip, veth)
    assert seen["paired"] is True
    assert seen["podEnd"]["neighbours"] == [
        {"address": "169.254.1.1", "mac": "aa:aa:aa:aa:aa:aa", "state": "permanent"}
    ]
    (address,) = seen["addresses"]
    (nic,) = node.sandbox.ip("link", "show", "dev", "eth0")
    assert address["address"] == "10.10.0.5/16", "as the NIC has it; the pod has it alone"
    assert result.result["ips"][0]["address"] == "10.10.0.5/32"
    assert address["nicMAC"] == nic["address"]
    assert address["nicLink"] == {"name": "eth0", "index": nic["ifindex"], "mtu": nic["mtu"]}
    assert (address["source"], address["ipConfiguration"]) == ("file", None)
    assert seen["unknown"] == {"ipConfiguration": "not known to source file"}
    assert (seen["podNamespace"], seen["podName"], seen["containerID"]) == ("prod", "web", pod.container_id)
    assert (seen["ifname"], seen["network"], seen["netns"]) == ("eth0", "azvnet", pod.netns)
    assert seen["callID"] in {record["call"] for record in node.log() if record["verb"] == "ADD"}
    assert (seen["confirmed"], seen["holder"]) == (True, "endpoint")


def test_a_pod_is_found_by_everything_people_know_of_it(node: Node, show: Show) -> None:
    pods = node.sandbox.pods("aaaa1111", "aaaa2222", "bbbb")
    added = [
        node.add(pod, args=pod_args(pod.container_id, namespace=space, name=name))
        for pod, space, name in zip(pods, ("prod", "test", "prod"), ("web", "web", "api"), strict=True)
    ]
    veth = added[2].result["interfaces"][0]["name"]
    for target in ("api", "prod/api", "bbbb", "b", added[2].address, f"{added[2].address}/16", veth):
        assert one(show, target)["containerID"] == "bbbb", target
    assert one(show, "aaaa2")["podNamespace"] == "test"


def test_several_pods_that_fit_are_listed(node: Node, show: Show) -> None:
    for container, space in (("aaaa1111", "prod"), ("aaaa2222", "test")):
        pod = node.sandbox.pod(container)
        node.add(pod, args=pod_args(container, namespace=space, name="web")).done()
    for target in ("web", "aaaa"):
        done = show(target)
        assert done.returncode == SEVERAL
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["POD", "prod/web", "test/web"]
        assert "choose one by its container" in done.stderr
    done = show("web", "--output", "json")
    assert done.returncode == SEVERAL
    assert [each["containerID"] for each in json.loads(done.stdout)["attachments"]] == [
        "aaaa1111",
        "aaaa2222",
    ]


def test_every_interface_of_a_pod_is_shown_and_each_by_itself(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("c1")
    first, second = node.add(pod), node.add(pod, ifname="net1")
    both = shown(show("default/c1", "--output", "json"))
    assert [each["ifname"] for each in both] == ["eth0", "net1"]
    assert [each["addresses"][0]["address"].split("/")[0] for each in both] == [
        first.address,
        second.address,
    ]
    assert told(both[1]["podEnd"]) == carried(pod.ip, "net1")
    assert show("c1").stdout.count("─ NIC ─") == 2
    assert one(show, second.address)["ifname"] == "net1"


def test_a_pod_whose_namespace_is_gone(node: Node, show: Show) -> None:
    pod, other = node.sandbox.pods("gone", "other")
    address = node.add(pod).address
    pod.remove()
    seen = one(show, address)
    assert (seen["podEnd"], seen["paired"]) == (None, None)
    assert pod.netns in seen["unknown"]["podEnd"]
    node.sandbox.run("sh", "-c", f"touch {pod.netns} && mount --bind {other.netns} {pod.netns}")
    assert "another namespace now" in one(show, address)["unknown"]["podEnd"]
    done = show(address)
    assert done.returncode == 0
    assert "not known" in done.stdout


@pytest.mark.alone("an agent would make it anew")
def test_a_host_veth_that_is_missing(node: Node, show: Show) -> None:
    node.add(node.sandbox.pod("c1")).done()
    (veth,) = node.veths()
    node.sandbox.batch(f"link delete {veth}")
    seen = one(show, "c1")
    assert (seen["hostEnd"], seen["podEnd"]) == (None, None)
    assert seen["unknown"]["hostEnd"] == "its host veth is missing"
    assert "no interface eth0" in seen["unknown"]["podEnd"]


def test_a_renamed_veth_is_still_known(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    (veth,) = node.veths()
    node.sandbox.batch(f"link set {veth} down", f"link set {veth} name renamed0", "link set renamed0 up")
    pod.change("link set eth0 down", "link set eth0 name renamed1", "link set renamed1 up")
    for target in ("c1", "renamed0"):
        seen = one(show, target)
        assert (seen["hostEnd"]["name"], seen["podEnd"]["name"]) == ("renamed0", "renamed1")
        assert seen["paired"] is True


def delegated(node: Node, pod: Pod) -> str:
    """A pod as ptp makes it: a veth pair, and an address of azvnet-ipam."""
    conf = {**node.netconf, "type": "ptp"}
    address = node.add(pod, conf=conf, as_ipam=True).address
    name = pod.netns.rpartition("/")[2]
    node.sandbox.batch(
        f"link add vethptp type veth peer name eth0 netns {name}",
        "link set vethptp up",
        f"route add {address}/32 dev vethptp",
    )
    pod.change("link set eth0 up", f"address add {address}/32 dev eth0")
    return address


def test_a_pod_of_another_plugin_that_delegates_to_azvnet_ipam(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("c1")
    address = delegated(node, pod)
    for target in ("default/c1", address, "vethptp"):
        seen = one(show, target)
        assert seen["holder"] == "delegated"
        assert told(seen["podEnd"]) == carried(pod.ip, "eth0")
        assert told(seen["hostEnd"]) == carried(node.sandbox.ip, "vethptp")
        assert seen["paired"] is True
    assert "made by another plugin" in show("c1").stdout


def test_a_pod_with_an_address_of_another_ipam_plugin(node: Node, show: Show) -> None:
    Delegate(node)
    pod = node.sandbox.pod("c1")
    node.add(pod).done()
    seen = one(show, "c1")
    assert told(seen["podEnd"]) == carried(pod.ip, "eth0")
    assert seen["addresses"] == []
    assert "another IPAM plugin gave its addresses" in seen["unknown"]["addresses"]


def test_a_link_without_an_end_on_the_node(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("c1")
    conf = {**node.netconf, "type": "macvlan"}
    node.add(pod, conf=conf, as_ipam=True).done()
    name = pod.netns.rpartition("/")[2]
    node.sandbox.batch(f"link add m0 link eth0 netns {name} type macvlan mode bridge")
    pod.change("link set m0 name eth0", "link set eth0 up")
    seen = one(show, "c1")
    assert seen["podEnd"]["kind"] == "macvlan"
    assert seen["hostEnd"] is None
    assert "macvlan on eth0 (" in seen["unknown"]["hostEnd"]


def test_nothing_found_is_one_line(node: Node, show: Show) -> None:
    node.add(node.sandbox.pod("c1")).done()
    for target, words in (
        ("nobody", "no pod, address, interface or container of azvnet is called nobody"),
        ("10.10.0.9", "no pod has 10.10.0.9: the pool has it, and no pod holds it"),
        ("192.0.2.1", "is called 192.0.2.1"),
        ("eth0", "is called eth0"),
    ):
        done = show(target)
        assert (done.returncode, done.stdout) == (NOT_FOUND, "")
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr


def test_a_node_that_never_had_a_pod(node: Node, show: Show) -> None:
    done = show("web")
    assert done.returncode == NOT_FOUND
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.alone("the agent would begin anew with what is alive")
def test_a_lost_store_hides_no_pod(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("living")
    result = node.add(pod)
    veth = result.result["interfaces"][0]["name"]
    node.sandbox.run("sh", "-c", f"rm -f {RUN_DIR}/azvnet.db*")
    for target in ("living", veth):
        seen = one(show, target)
        assert told(seen["podEnd"]) == carried(pod.ip, "eth0")
        assert (seen["netns"], seen["paired"], seen["confirmed"]) == (pod.netns, True, None)
        assert set(seen["unknown"]) == {"pod", "since", "addresses"}
        assert seen["callID"] == node.log()[0]["call"], "which the alias of the host veth has"
        assert "there is no store" in seen["unknown"]["addresses"]
    assert "not known" in show("living").stdout
    assert "there is no store" in show("default/living").stderr


@pytest.mark.alone("the agent writes to its store at any time")
def test_looking_writes_nothing(node: Node, show: Show) -> None:
    pod = node.sandbox.pod("c1")
    node.add(pod).done()

    def everything() -> object:
        folder = node.sandbox.path(RUN_DIR)
        files = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
        kernel = [carried(node.sandbox.ip, name) for name in (*node.veths(), "eth0")]
        return files, kernel, carried(pod.ip, "eth0"), node.log()

    before = everything()
    for options in (("c1",), ("c1", "--output", "json"), ("10.10.0.9",), ("nobody",)):
        show(*options)
    assert everything() == before


def test_the_picture_is_plain_where_the_locale_is(node: Node, show: Show) -> None:
    node.add(node.sandbox.pod("c1")).done()
    for options, lang, plain in (
        (("c1",), "C.UTF-8", False),
        (("c1",), "C", True),
        (("c1", "--output", "ascii"), "C.UTF-8", True),
        (("c1", "--output", "picture"), "C", False),
    ):
        drawn = show(*options, lang=lang).stdout
        assert drawn.isascii() is plain
        assert max(map(len, drawn.splitlines())) <= 100
        assert "default/c1" in drawn


def test_a_target_has_to_be_given(show: Show) -> None:
    for options in ((), ("",), (" ",)):
        assert show(*options).returncode == 2
