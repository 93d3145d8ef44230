"""Another plugin's IPAM: run as libcni would run it, undone when something fails, its words passed on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.calls import Engine
from tests.netns.node import Node, ping, pod_addresses
from tests.netns.sandbox import Pod
from tests.netns.ways import Executables
from tests.waiting import eventually

SCRIPT = Path(__file__).with_name("delegate_script.py")
PLUGINS = "/run/plugins"
NOT_THERE, INVALID_NETCONF, CHECK_FAILED = 109, 7, 107


class Delegate:
    """The scripted plugin, installed in a node's CNI_PATH."""

    def __init__(self, node: Node) -> None:
        self.node = node
        node.sandbox.write(f"{PLUGINS}/scripted", SCRIPT.read_text())
        node.sandbox.path(f"{PLUGINS}/scripted").chmod(0o755)
        node.environ["CNI_PATH"] = f"/opt/cni/bin:{PLUGINS}"
        node.netconf["ipam"] = {"type": "scripted", "ranges": [[{"subnet": "172.20.0.0/24"}]]}
        self.behave()

    def behave(self, **verbs: str) -> None:
        """What it does from now on, by verb."""
        self.node.sandbox.write("/run/delegate/behaviour", json.dumps(verbs))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called so far."""
        path = self.node.sandbox.path("/run/delegate/calls")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def verbs(self) -> list[str]:
        """The verbs it was called with so far."""
        return [call["verb"] for call in self.calls]


@pytest.fixture
def delegate(busy_node: Node) -> Delegate:
    return Delegate(busy_node)


@pytest.fixture
def pod(busy_node: Node) -> Pod:
    return busy_node.sandbox.pod("c1")


def test_a_pod_with_anothers_address_lives_like_any_other(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    added = busy_node.add(pod)
    assert pod_addresses(pod) == ["172.20.0.9/32"]
    (ip,) = added.result["ips"]
    assert ip == {"address": "172.20.0.9/32", "gateway": "169.254.1.1", "interface": 1}
    assert busy_node.host_routes().keys() == {"172.20.0.9"}
    assert ping(pod, "10.10.0.4")
    assert added.result["dns"] == {"nameservers": ["172.20.0.1"]}
    assert added.result["interfaces"][1]["mtu"] == 1500
    busy_node.check(pod, added).done()
    busy_node.status().done()
    busy_node.gc([(pod, "eth0")]).done()
    busy_node.delete(pod).done()
    assert delegate.verbs == ["ADD", "CHECK", "STATUS", "GC", "DEL"]
    assert not busy_node.veths()
    assert not busy_node.host_routes()


def test_it_gets_the_callers_environment_and_the_whole_configuration(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    conf = busy_node.conf(runtimeConfig={"ips": ["172.20.0.9"]}, args={"cni": {"a": 1}})
    busy_node.add(pod, conf=conf, env={"TRACEPARENT": "00-ab-cd-01"}).done()
    (call,) = delegate.calls
    assert call["stdin"] == conf
    given = {name: value for name, value in call["environ"].items() if name.startswith("CNI_")}
    assert given == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"/opt/cni/bin:{PLUGINS}",
        "CNI_ARGS": given["CNI_ARGS"],
    }
    assert "K8S_POD_NAME=c1" in given["CNI_ARGS"]
    assert call["environ"]["TRACEPARENT"] == "00-ab-cd-01"


def test_it_is_asked_in_the_version_that_was_agreed_on(busy_node: Node, delegate: Delegate, pod: Pod) -> None:
    """It need not know ``cniVersions``."""
    conf = busy_node.conf(cniVersion="9.0.0", cniVersions=["0.4.0", "1.0.0", "9.0.0"])
    assert busy_node.add(pod, conf=conf).result["cniVersion"] == "1.0.0"
    busy_node.delete(pod, conf=conf).done()
    assert [call["stdin"] for call in delegate.calls] == [{**conf, "cniVersion": "1.0.0"}] * 2


@pytest.mark.parametrize("library_path", [None, "", "/opt/somewhere/lib"])
def test_nothing_of_the_frozen_bundle_reaches_it(node: Node, library_path: str | None) -> None:
    """P3: a program that loads our libraries instead of its own crashes."""
    delegate = Delegate(node)
    env: dict[str, str | None] = {"LD_LIBRARY_PATH": library_path} if library_path is not None else {}
    pod = node.sandbox.pod("c1")
    node.add(pod, env=env).done()
    (call,) = delegate.calls
    environ = call["environ"]
    assert environ.get("LD_LIBRARY_PATH", "") == (library_path or "")
    leaked = [
        name for name in environ if name.startswith(("_MEI", "_PYI", "LD_LIBRARY_PATH_ORIG", "AZVNET_"))
    ]
    assert leaked == ["AZVNET_DELEGATED_BY"], "which is for us, should it lead back"
    assert not [path for path in call["libraries"] if "azvnet" in path]
    node.delete(pod, env=env).done()


def test_what_it_says_is_passed_on(node: Node) -> None:
    delegate = Delegate(node)
    assert "delegate says ADD" in node.add(node.sandbox.pod("c1")).done().stderr
    delegate.behave(ADD="error")
    failed = node.add(node.sandbox.pod("c2"))
    assert "delegate says ADD" in failed.stderr


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.1.0"])
@pytest.mark.parametrize("ours", ["0.2.0", "0.3.1", "1.0.0"])
def test_its_result_is_understood_in_every_version(
    busy_node: Node, delegate: Delegate, pod: Pod, version: str, ours: str
) -> None:
    delegate.behave(ADD=version)
    made = busy_node.add(pod, conf=busy_node.conf(cniVersion=ours)).result
    assert made["cniVersion"] == ours
    assert pod_addresses(pod) == ["172.20.0.9/32"]


def test_several_addresses_are_all_set(busy_node: Node, delegate: Delegate, pod: Pod) -> None:
    delegate.behave(ADD="1.0.0")
    added = busy_node.add(pod)
    assert pod_addresses(pod) == ["172.20.0.9/32", "172.20.0.10/32"]
    assert busy_node.host_routes().keys() == {"172.20.0.9", "172.20.0.10"}
    busy_node.check(pod, added).done()


@pytest.mark.parametrize(
    ("behaviour", "code", "word"),
    [
        ("error", 117, "no luck"),
        ("garbage", NOT_THERE, "JSON"),
        ("fails without a word", NOT_THERE, "exit status 3"),
        ("killed", NOT_THERE, "signal 9"),
        ("v6", NOT_THERE, "IPv4"),
        ("none", NOT_THERE, "scripted"),
        ("nested", NOT_THERE, "JSON"),
        ("a list", NOT_THERE, "not return a CNI result"),
        ("odd", NOT_THERE, "not return a CNI result"),
        ("odd dns", NOT_THERE, "nameservers"),
        ("no host", NOT_THERE, "0.0.0.0"),
        ("everybody", NOT_THERE, "224.0.0.5"),
        ("platform", NOT_THERE, "168.63.129.16"),
        ("link-local", NOT_THERE, "169.254.1.1"),
        ("itself", NOT_THERE, "127.0.0.1"),
        *(
            (f"code {code}", NOT_THERE, "no luck")
            for code in ("0", "-5", "1e999", "true", "null", '"7"', 1 << 64)
        ),
        ("code 4294967295", 4294967295, "no luck"),
    ],
)
def test_when_it_fails_it_gets_a_del_and_its_error_is_told(
    busy_node: Node, delegate: Delegate, pod: Pod, behaviour: str, code: int, word: str
) -> None:
    delegate.behave(ADD=behaviour)
    failed = busy_node.add(pod)
    assert failed.code == code
    assert word in failed.msg + failed.error["details"]
    assert delegate.verbs == ["ADD", "DEL"]
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert not busy_node.veths()


def test_when_we_fail_after_it_it_gets_a_del_too(busy_node: Node, delegate: Delegate, pod: Pod) -> None:
    """Its address has a stale route: there is no other one to take."""
    busy_node.sandbox.batch("link add s type ifb", "link set s up", "route add 172.20.0.9/32 dev s")
    failed = busy_node.add(pod)
    assert failed.code == 106
    assert "172.20.0.9" in failed.msg
    assert delegate.verbs == ["ADD", "DEL"]
    assert not busy_node.veths()


@pytest.mark.parametrize("verb", ["CHECK", "DEL", "STATUS", "GC"])
def test_its_errors_of_other_verbs_are_returned(
    busy_node: Node, delegate: Delegate, pod: Pod, verb: str
) -> None:
    added = busy_node.add(pod)
    delegate.behave(**{verb: "error"})
    conf = busy_node.conf(prevResult=added.result) | {"cni.dev/valid-attachments": []}
    failed = busy_node.call(verb, pod, conf=conf)
    assert (failed.code, failed.error["details"].split(" (")[0]) == (117, "try another")
    assert "no luck" in failed.msg
    if verb in ("DEL", "GC"):
        assert not busy_node.veths(), "what is ours is gone all the same"


def test_it_does_not_hear_of_a_second_add(busy_node: Node, delegate: Delegate, pod: Pod) -> None:
    """A DEL in the course of undoing would take the address of the pod that runs."""
    added = busy_node.add(pod)
    assert busy_node.add(pod).code == 104
    assert "DEL" not in delegate.verbs
    busy_node.check(pod, added).done()


def test_it_does_not_hear_of_an_interface_that_is_somebody_elses(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    pod.change("link add eth0 type ifb")
    assert busy_node.add(pod).code == 104
    assert delegate.verbs == []
    assert not busy_node.veths()


def test_it_finds_the_interface_there_and_up(busy_node: Node, delegate: Delegate, pod: Pod) -> None:
    """A plugin that asks over it, as dhcp does, could not otherwise."""
    delegate.behave(ADD="looks")
    busy_node.add(pod).done()
    looked = busy_node.sandbox.path("/run/delegate/link").read_text()
    assert "eth0@" in looked
    assert "UP,LOWER_UP" in looked
    assert len(busy_node.veths()) == 1


def test_a_plugin_that_is_not_there_is_named_with_where_it_was_looked_for(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    conf = busy_node.conf(ipam={"type": "dhcp"})
    failed = busy_node.add(pod, conf=conf)
    assert failed.code == NOT_THERE
    assert "dhcp" in failed.msg
    assert PLUGINS in failed.msg
    assert not busy_node.veths()
    unset = busy_node.add(pod, conf=conf, env={"CNI_PATH": None})
    assert unset.code == NOT_THERE
    assert "CNI_PATH" in unset.msg


@pytest.mark.parametrize("name", ["../scripted", "/run/plugins/scripted", "..", "a/b"])
def test_a_path_is_no_plugin_name(busy_node: Node, delegate: Delegate, pod: Pod, name: str) -> None:
    failed = busy_node.add(pod, conf=busy_node.conf(ipam={"type": name}))
    assert failed.code == INVALID_NETCONF
    assert delegate.verbs == []


def _write_script(path: Path, runs: Path) -> None:
    path.write_text(f"#!/bin/sh\necho $CNI_COMMAND >> /run/delegate/nested\nexec {runs}\n")
    path.chmod(0o755)


LOOPS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda other, own: other.symlink_to(own),
    "another name of the same file": lambda other, own: os.link(own, other),
    "a copy": lambda other, own: shutil.copy(own, other),
    "a script that runs it": _write_script,
}


@pytest.fixture
def looping(node: Node, product: Executables) -> Callable[[str], None]:
    """Has ``ipam.type`` lead back to the executable under test, in one of several ways."""

    def make(what: str) -> None:
        node.sandbox.path("/run/delegate").mkdir()
        node.sandbox.path(PLUGINS).mkdir()
        own = Path(PLUGINS, "own")
        node.environ["CNI_PATH"] = f"{own}:{PLUGINS}"
        node.netconf["ipam"] = {"type": "azvnet" if what == "its own name" else "other"}

        def install() -> None:
            shutil.copytree(product.bundle, own)
            if what != "its own name":
                LOOPS[what](Path(PLUGINS, "other"), own / "azvnet")

        node.sandbox.ask(install)

    return make


@pytest.mark.parametrize("what", ["its own name", *LOOPS])
def test_azvnet_does_not_delegate_to_itself(node: Node, looping: Callable[[str], None], what: str) -> None:
    """One such DEL started a process after the other until memory was full."""
    looping(what)
    pod = node.sandbox.pod("c1")
    for verb in ("ADD", "STATUS", "CHECK"):
        previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.10.0.5/16"}]}
        refused = node.call(verb, pod, conf=node.conf(prevResult=previous))
        assert refused.code == (CHECK_FAILED if verb == "CHECK" else INVALID_NETCONF), refused
        assert verb == "CHECK" or "azvnet" in refused.msg
    for verb in ("DEL", "GC"):
        done = node.call(verb, pod, conf=node.conf() | {"cni.dev/valid-attachments": []})
        assert done.done().stdout == b""
    assert not node.residue()
    nested = node.sandbox.path("/run/delegate/nested")
    called = nested.read_text().split() if nested.exists() else []
    expected = ["ADD", "DEL", "STATUS", "DEL", "GC"] if what == "a script that runs it" else []
    assert called == expected, "each is run once, and runs nothing itself"


def test_a_file_that_can_not_be_executed_is_passed_over(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    busy_node.sandbox.write("/run/first/scripted", "not executable")
    busy_node.sandbox.path("/run/first/dir/scripted").mkdir(parents=True)
    busy_node.add(pod, env={"CNI_PATH": f"/run/first:/run/first/dir::/nowhere:{PLUGINS}"}).done()
    assert delegate.verbs == ["ADD"]


def test_a_call_that_is_killed_takes_its_delegate_along(
    busy_node: Node, delegate: Delegate, pod: Pod
) -> None:
    """P5: it must not go on for a pod that the runtime has given up."""
    if not isinstance(busy_node.caller, Engine):
        return  # with an agent, its process is the parent: see the agent's own tests
    delegate.behave(ADD="hangs")
    running = busy_node.start("ADD", pod)
    path = busy_node.sandbox.path("/run/delegate/pid")
    eventually(lambda: path.exists() and path.read_text(), "the delegate runs")
    child = int(path.read_text())
    running.signal(signal.SIGKILL)
    running.finish()
    eventually(lambda: not Path(f"/proc/{child}").exists() or _state(child) == "Z", "the delegate has ended")
    delegate.behave()
    busy_node.delete(pod).done()
    busy_node.add(pod).done()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


# The other way round: azvnet-ipam, which others delegate to


def test_as_ipam_it_gives_an_address_and_touches_no_link(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    conf = {**node.netconf, "type": "bridge", "bridge": "cni0", "isGateway": True}
    added = node.add(pod, conf=conf, as_ipam=True)
    assert added.result == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.10.0.5/16", "gateway": "10.10.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.10.0.1"}],
        "dns": {},
    }
    assert added.stderr == "", "the other plugin's keys are none of our business"
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert not node.veths()
    previous = {"cniVersion": "1.1.0", "ips": added.result["ips"]}
    node.check(pod, previous, conf=conf, as_ipam=True).done()
    node.status(conf=conf, as_ipam=True).done()
    node.delete(pod, conf=conf, as_ipam=True).done()
    assert not node.held()
    assert node.check(pod, previous, conf=conf, as_ipam=True).code == 107
    node.delete(pod, conf=conf, as_ipam=True).done()


def test_as_ipam_a_second_add_is_refused_while_the_namespace_lives(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    first = busy_node.add(pod, as_ipam=True)
    assert busy_node.add(pod, as_ipam=True).code == 104
    assert busy_node.held() == {first.address: "c1"}
    pod.remove()
    busy_node.add(pod, as_ipam=True).done()
    assert len(busy_node.held()) == 1


def test_as_ipam_gc_frees_what_is_its_own_alone(busy_node: Node) -> None:
    ours, theirs = busy_node.sandbox.pods("ours", "theirs")
    busy_node.add(ours).done()
    busy_node.add(theirs, as_ipam=True).done()
    busy_node.gc([], as_ipam=True).done()
    assert list(busy_node.held().values()) == ["ours"]
    busy_node.add(theirs, as_ipam=True).done()
    busy_node.gc([]).done()
    assert list(busy_node.held().values()) == ["theirs"]


def test_as_ipam_its_addresses_and_the_interface_plugins_are_one_pool(busy_node: Node) -> None:
    pods = busy_node.sandbox.pods(*(f"c{number}" for number in range(8)))
    given = [busy_node.add(pod, as_ipam=number % 2 == 0).address for number, pod in enumerate(pods)]
    assert len(set(given)) == 8
    assert busy_node.add(busy_node.sandbox.pod("late")).code == 100
