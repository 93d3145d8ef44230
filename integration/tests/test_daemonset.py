"""The DaemonSet's pod under a real containerd, just as the manifest says: what it can do, and that every
capability, mount and limit in it is needed.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import plugins
from integration.containerd import Containerd, CriError, podspec
from integration.containerd.podspec import HostPod, PodSpec
from integration.fabric import Fabric
from integration.fabric.machine import CA_FILE
from integration.waiting import found_within
from tests.waiting import Syscall, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.fabric import Machine

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "packaging/kubernetes/azvnet.yaml"
UNINSTALL = ROOT / "packaging/kubernetes/uninstall.yaml"
IMAGE = ROOT / "dist/azvnet-image.tar"
CONFLIST = "/etc/cni/net.d/10-azvnet.conflist"
PATIENCE = 20.0

pytestmark = [pytest.mark.xdist_group("daemonset"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def azure() -> Iterator[Fabric]:
    """A node, and a host beside it."""
    with Fabric(nodes=1, addresses=16, ipv6=4) as fabric:
        yield fabric


@pytest.fixture(scope="module")
def node(azure: Fabric) -> Machine:
    """A node with the reference plugins and nothing of ours."""
    made = azure.nodes["node1"]
    plugins.install_reference(made)
    return made


@pytest.fixture(scope="module")
def containerd(node: Machine) -> Iterator[Containerd]:
    """A containerd that has the image."""
    assert IMAGE.exists(), "run: make image"
    with Containerd(node, images=[IMAGE]) as started:
        yield started


@pytest.fixture
def spec() -> PodSpec:
    """The pod of the manifest, with an agent that looks more often."""
    daemonset = podspec.read(MANIFEST, "DaemonSet")
    data = dict(podspec.read(MANIFEST, "ConfigMap")["data"])
    data["agent.json"] = json.dumps({**json.loads(data["agent.json"]), "reconcile_seconds": 0.5})
    return PodSpec(copy.deepcopy(daemonset["spec"]["template"]["spec"]), {"azvnet": data})


@pytest.fixture
def place(azure: Fabric, node: Machine, containerd: Containerd) -> Iterator[Place]:
    """Starts the DaemonSet's pod; everything of it is gone afterwards."""
    made = Place(node, containerd, azure.vnet_hosts["vm1"])
    yield made
    made.clear()


class Place:
    """One node, with the DaemonSet's pod on it once it was started."""

    def __init__(self, node: Machine, containerd: Containerd, neighbour: Machine) -> None:
        self.node = node
        self.neighbour = neighbour
        """A host of the same subnet that is no node."""
        self.containerd = containerd
        self.pods: list[HostPod] = []
        self.agent: tuple[HostPod, str] | None = None
        """The pod that was installed, and its agent's container."""

    def pod(self, spec: PodSpec) -> HostPod:
        """A pod on the node whose containers do not run yet."""
        made = HostPod(self.containerd, f"azvnet-{time.monotonic_ns()}", spec)
        self.pods.append(made)
        return made

    def install(self, spec: PodSpec) -> tuple[HostPod, str]:
        """The whole pod, as the kubelet starts it, once the node is ready; and its agent's container."""
        pod = self.pod(spec)
        assert pod.run_to_end("install") == 0, pod.log("install")
        agent = pod.start("agent")
        self.agent = pod, agent
        eventually(lambda: pod.exec(agent, probe("agentz"))[0] == 0, lambda: pod.log("agent"))
        eventually(lambda: self.containerd.conditions()["NetworkReady"].status, self.containerd.log_tail)
        return pod, agent

    def journey(self) -> list[str]:
        """What does not work of what an agent is there for."""
        name = f"guest-{time.monotonic_ns()}"
        try:
            guest = self.containerd.run_pod(name)
        except CriError as error:
            return [f"attach: {error.message}"]
        veth = self.run("sh", "-c", "basename /sys/class/net/azv*")
        netns = Path(guest.netns).name
        route = ["ip", "route", "show", str(guest.ip)]
        inside = ["ip", "-n", netns, "route", "show", "default"]
        steps: dict[str, Callable[[], bool]] = {
            "carried out by the agent": lambda: self.calls()[-1]["by"] == "agent",
            "sysctls of the host's end": lambda: self.sysctls(veth) == "1 1 1",
            "repair on the host": lambda: bool(self.run(*route)),
            "a look inside the pod": lambda: "route to 0.0.0.0/0" in self.shown(),
            "the pod's own routes are left alone": lambda: not self.run(*inside),
            "ip_forward": lambda: self.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1",
        }
        self.run("ip", "route", "flush", "proto", "155")
        self.run("ip", "-n", netns, "route", "delete", "default")
        self.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        failed: list[str] = []

        def works() -> bool:
            failed[:] = [name for name, step in steps.items() if not step()]
            return not failed

        found_within(PATIENCE, works, pause=0.2)
        self.containerd.delete_pod(guest)
        if self.run("ip", "route", "show", "proto", "155"):
            failed.append("detach")
        return failed

    def calls(self) -> list[dict[str, Any]]:
        """The log of calls."""
        lines = self.run("cat", "/var/log/azvnet/azvnet.log").splitlines()
        return [json.loads(line) for line in lines]

    def sysctls(self, veth: str) -> str:
        names = " ".join(
            f"{each}/conf/{veth}/{name}"
            for each, name in (("ipv4", "proxy_arp"), ("ipv4", "rp_filter"), ("ipv6", "disable_ipv6"))
        )
        return self.run("sh", "-c", f"cd /proc/sys/net; echo $(cat {names})")

    def shown(self) -> str:
        """What ``azvnet status`` in the agent's container says of the attachments."""
        assert self.agent is not None
        pod, agent = self.agent
        answer = json.loads(pod.exec(agent, ["/usr/bin/azvnet", "status", "--output", "json"])[1])
        return json.dumps(answer["attachments"])

    def waits_for_a_signal(self) -> bool:
        """Whether the process that is to stay after uninstalling waits in select(2), by whichever call."""
        script = (
            "for each in /proc/[0-9]*; do grep -qs -e '[-]-stay' $each/cmdline && cat $each/syscall; done"
        )
        calls = {line.split()[0] for line in self.run("sh", "-c", f"{script}; true").splitlines()}
        return bool(calls & {str(Syscall.SELECT.value), str(Syscall.PSELECT6.value)})

    def run(self, *argv: str) -> str:
        return self.node.run(list(argv)).stdout.strip()

    def clear(self) -> None:
        # Agents first: one that may do nothing would not let a pod go.
        for pod in sorted(self.containerd.cri.pods(), key=lambda each: each.namespace != "kube-system"):
            self.containerd.delete_pod(pod)
        self.run("rm", "-rf", "/opt/azvnet", "/opt/cni/bin/azvnet", "/opt/cni/bin/azvnet-ipam", CONFLIST)
        self.run("sh", "-c", "rm -rf /run/azvnet /run/volumes /run/pods /var/log/azvnet/*")


def probe(page: str) -> list[str]:
    return ["/usr/bin/azvnet-probe", page]


def without_capability(spec: PodSpec, container: str, capability: str) -> PodSpec:
    spec.container(container)["securityContext"]["capabilities"]["add"].remove(capability)
    return spec


def test_the_pod_as_the_manifest_has_it_does_all_of_its_work(place: Place, spec: PodSpec) -> None:
    pod, agent = place.install(spec)

    assert place.journey() == []

    assert place.run("ls", "/run/azvnet", "-d", "-l").startswith("drwx------")
    for page in ("healthz", "agentz", "readyz"):
        assert pod.exec(agent, probe(page))[0] == 0
    code, status = pod.exec(agent, ["/usr/bin/azvnet", "status"])
    assert code == 0, status
    code, metrics = pod.exec(agent, probe("metrics"))
    resident = next(
        line for line in metrics.splitlines() if line.startswith("process_resident_memory_bytes ")
    )
    assert float(resident.split()[1]) < 80 * 2**20
    lines = [line.split(" ", 3) for line in pod.log("agent").splitlines()]
    assert all(json.loads(each[3])["by"] == "agent" and each[1] == "stderr" for each in lines)


def test_pods_have_both_families_where_the_conflist_says_so(place: Place, spec: PodSpec) -> None:
    """All of it through the one folder of sysctls that the manifest mounts, forwarding included."""
    data = dict(spec.config_maps["azvnet"])
    conflist = json.loads(data["10-azvnet.conflist"])
    conflist["plugins"][0]["ipam"]["families"] = ["IPv4", "IPv6"]
    data["10-azvnet.conflist"] = json.dumps(conflist)
    place.install(PodSpec(spec.spec, {"azvnet": data}))

    guest = place.containerd.run_pod("dual")

    first, second = guest.ips
    assert first in place.node.pod_addresses
    assert second in place.node.vm.primary_nic.ipv6[1:]
    assert place.calls()[-1]["by"] == "agent"
    route = ["ip", "-6", "route", "show", str(second)]
    assert place.run(*route)
    ping = ["ping", "-6", "-n", "-c1", "-W2", str(second)]
    assert place.neighbour.run(ping, check=False).returncode == 0, "the node forwards IPv6"
    place.run("ip", "-6", "route", "flush", "proto", "155")
    eventually(lambda: place.run(*route), "the agent has put the route back")
    place.containerd.delete_pod(guest)
    assert not place.run(*route)


@pytest.mark.parametrize("capability", ["NET_ADMIN", "SYS_ADMIN"])
def test_without_a_capability_the_agent_attaches_no_pod(capability: str, place: Place, spec: PodSpec) -> None:
    assert set(spec.container("agent")["securityContext"]["capabilities"]["add"]) == {
        "NET_ADMIN",
        "SYS_ADMIN",
    }
    place.install(spec)
    (whole,) = place.pods
    whole.remove()

    pod = place.pod(without_capability(spec, "agent", capability))
    agent = pod.start("agent")
    eventually(lambda: pod.exec(agent, probe("healthz"))[0] == 0, lambda: pod.log("agent"))

    (failed,) = place.journey()
    assert failed.startswith("attach: ")
    assert "not permitted" in failed, failed


def test_a_folder_of_plugins_may_be_another_users_and_only_with_the_capability(
    place: Place, spec: PodSpec
) -> None:
    """Kubespray gives the folder of plugins to a user of its own."""
    assert spec.container("install")["securityContext"]["capabilities"]["add"] == ["DAC_OVERRIDE"]
    place.run("chown", "998:998", "/opt/cni/bin")
    try:
        assert place.pod(copy.deepcopy(spec)).run_to_end("install") == 0
        place.run("rm", "-rf", "/opt/azvnet", "/opt/cni/bin/azvnet", "/opt/cni/bin/azvnet-ipam")
        refused = place.pod(without_capability(copy.deepcopy(spec), "install", "DAC_OVERRIDE"))
        assert refused.run_to_end("install") == 1
        assert "/opt/cni/bin" in refused.log("install")
        assert "Permission denied" in refused.log("install")

        assert place.pod(spec).run_to_end("install") == 0
        removal = PodSpec(podspec.read(UNINSTALL, "DaemonSet")["spec"]["template"]["spec"], {})
        refused = place.pod(without_capability(copy.deepcopy(removal), "uninstall", "DAC_OVERRIDE"))
        assert refused.run_to_end("uninstall") == 1
        assert "Permission denied" in refused.log("uninstall")
        assert place.pod(removal).run_to_end("uninstall") == 0
    finally:
        place.run("chown", "0:0", "/opt/cni/bin")


def without_sysctl_mount(agent: dict[str, Any]) -> None:
    agent["volumeMounts"] = [each for each in agent["volumeMounts"] if each["name"] != "sysctl"]


def without_propagation(agent: dict[str, Any]) -> None:
    (mount,) = (each for each in agent["volumeMounts"] if each["name"] == "netns")
    del mount["mountPropagation"]


def test_without_the_mount_of_sysctls_no_pod_is_attached_that_could_redirect_its_host(
    place: Place, spec: PodSpec
) -> None:
    without_sysctl_mount(spec.container("agent"))
    place.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")  # ... which can't be set either
    place.install(spec)
    (failed,) = place.journey()
    assert failed.startswith("attach: ")
    assert "disable_ipv6 can't be set: Read-only file system" in failed
    assert "/host/proc/sys/net" in failed


def test_without_propagation_of_namespaces_there_is_no_look_inside_pods(place: Place, spec: PodSpec) -> None:
    without_propagation(spec.container("agent"))
    place.install(spec)
    assert place.journey() == ["a look inside the pod"]


def test_a_namespace_that_can_not_be_entered_is_said(place: Place, spec: PodSpec) -> None:
    without_propagation(spec.container("agent"))
    place.install(spec)
    guest = place.containerd.run_pod("unseen")
    assert "HostToContainer" in place.shown()
    place.containerd.delete_pod(guest)


def test_sigterm_ends_the_first_process_at_once_and_calls_go_on_without_it(
    place: Place, spec: PodSpec
) -> None:
    pod, agent = place.install(spec)
    guest = place.containerd.run_pod("guest")
    pod.stop(agent)
    assert place.containerd.cri.container_status(agent)["exit_code"] == 0, "it was not killed after the grace"
    place.containerd.delete_pod(guest)
    assert place.calls()[-1]["by"] != "agent"
    assert place.run("ip", "route", "show", "proto", "155") == ""

    again = pod.start("agent")
    place.agent = pod, again
    eventually(lambda: pod.exec(again, probe("readyz"))[0] == 0, lambda: pod.log("agent"))
    assert place.journey() == []


def test_a_changed_config_map_is_taken_without_a_restart(place: Place, spec: PodSpec) -> None:
    pod, agent = place.install(spec)
    inode = place.run("stat", "--format=%i", CONFLIST)
    data = dict(spec.config_maps["azvnet"])

    settings = {**json.loads(data["agent.json"]), "expected_pods": 100}
    conflist = json.loads(data["10-azvnet.conflist"])
    conflist["plugins"][0]["mtu"] = 1400
    data |= {"agent.json": json.dumps(settings), "10-azvnet.conflist": json.dumps(conflist)}
    podspec.write_config_map(place.node, "config", data)

    eventually(lambda: place.run("cat", CONFLIST) == data["10-azvnet.conflist"], lambda: pod.log("agent"))
    assert place.run("stat", "--format=%i", CONFLIST) != inode
    eventually(lambda: "16 addresses for 100 pods" in pod.exec(agent, probe("readyz"))[1], "it is said")
    assert place.containerd.cri.container_status(agent)["state"] == "running"


def test_addresses_come_from_resource_manager_where_the_values_say_so(place: Place, spec: PodSpec) -> None:
    """The SDK with all that it loads, certificates and names included."""
    data = dict(spec.config_maps["azvnet"])
    conflist = json.loads(data["10-azvnet.conflist"])
    conflist["plugins"][0]["ipam"]["environment"] = "arm"
    settings = {**json.loads(data["agent.json"]), "source": "arm", "arm": {"ca_file": CA_FILE}}
    data |= {"agent.json": json.dumps(settings), "10-azvnet.conflist": json.dumps(conflist)}
    folder = str(Path(CA_FILE).parent)
    spec.spec["volumes"].append({"name": "ca", "hostPath": {"path": folder}})
    spec.container("agent")["volumeMounts"].append({"name": "ca", "mountPath": folder, "readOnly": True})

    pod, agent = place.install(PodSpec(spec.spec, {"azvnet": data}))

    metrics = pod.exec(agent, probe("metrics"))[1]
    assert 'azvnet_source_info{answered="arm",source="arm"} 1.0' in metrics
    assert place.journey() == []


def test_a_conflist_that_names_a_missing_plugin_is_not_written(place: Place, spec: PodSpec) -> None:
    place.run("mv", "/opt/cni/bin/portmap", "/opt/cni/portmap")
    try:
        pod = place.pod(spec)
        assert pod.run_to_end("install") == 0
        agent = pod.start("agent")
        words = "names portmap, and /host/opt/cni/bin does not have it"
        eventually(lambda: words in pod.exec(agent, probe("agentz"))[1], lambda: pod.log("agent"))
        assert place.node.run(["test", "-e", CONFLIST], check=False).returncode == 1
    finally:
        place.run("mv", "/opt/cni/portmap", "/opt/cni/bin/portmap")
    eventually(lambda: pod.exec(agent, probe("agentz"))[0] == 0, lambda: pod.log("agent"))


def test_uninstalling_takes_everything_away_once_nothing_is_used(place: Place, spec: PodSpec) -> None:
    before = files(place)
    pod, agent = place.install(spec)
    guest = place.containerd.run_pod("guest")
    removal = PodSpec(podspec.read(UNINSTALL, "DaemonSet")["spec"]["template"]["spec"], {})

    first = place.pod(removal)
    assert first.run_to_end("uninstall") == 1
    assert "an agent listens at /run/azvnet/agent.sock" in first.log("uninstall")
    pod.stop(agent)
    second = place.pod(removal)
    assert second.run_to_end("uninstall") == 1
    assert "1 attachment is alive on this node" in second.log("uninstall")
    place.containerd.delete_pod(guest)
    third = place.pod(removal)
    assert third.run_to_end("uninstall") == 0, third.log("uninstall")
    assert files(place) == before

    waiting = third.start("wait")
    eventually(place.waits_for_a_signal, lambda: third.log("wait"))
    assert place.containerd.cri.container_status(waiting)["state"] == "running"
    third.stop(waiting)
    assert place.containerd.cri.container_status(waiting)["exit_code"] == 0


@pytest.mark.parametrize("capable", [True, False])
def test_forwarding_goes_off_again_with_azvnet_and_only_with_the_capability(
    place: Place, spec: PodSpec, *, capable: bool
) -> None:
    switch = "/proc/sys/net/ipv4/ip_forward"
    place.run("sh", "-c", f"echo 0 >{switch}")
    pod, agent = place.install(spec)
    assert place.node.run(["cat", switch]).stdout == "1\n"
    pod.stop(agent)
    removal = PodSpec(podspec.read(UNINSTALL, "DaemonSet")["spec"]["template"]["spec"], {})
    if not capable:
        without_capability(removal, "uninstall", "NET_ADMIN")
    done = place.pod(removal)
    assert done.run_to_end("uninstall") == 0, done.log("uninstall")
    assert place.node.run(["cat", switch]).stdout == ("0\n" if capable else "1\n")
    assert ("ip_forward can't be restored: Operation not permitted" in done.log("uninstall")) != capable


def files(place: Place) -> str:
    """What azvnet may have left, and what it works beside."""
    folders = ["/opt", "/etc/cni", "/run/azvnet", "/var/log/azvnet"]
    return place.node.run(["find", *folders, "-printf", "%p %y %m %l\n"], check=False).stdout
