"""What the kubelet does with a pod's network: probes, and the streams of kubectl into the pod."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import subprocess
from typing import TYPE_CHECKING

from integration.e2e import manifests
from integration.e2e.ends import HTTP, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.e2e.ends import Pod
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space

GATE = "azvnet.test/gate"


def test_probes_of_all_kinds_reach_a_pod_and_tell_when_nobody_listens(space: Space) -> None:
    probed = manifests.agnhost(
        startupProbe={"httpGet": {"path": "/healthz", "port": HTTP}, "periodSeconds": 1},
        readinessProbe={"tcpSocket": {"port": HTTP}, "periodSeconds": 1},
        livenessProbe={"exec": {"command": ["true"]}, "periodSeconds": 1},
    )
    grpc = {
        **manifests.agnhost("grpc"),
        "args": ["grpc-health-checking", "--port=5000", "--http-port=8082"],
        "readinessProbe": {"grpc": {"port": 5000}, "periodSeconds": 1},
    }
    deaf = manifests.agnhost(readinessProbe={"tcpSocket": {"port": 9}, "periodSeconds": 1})
    space.apply(manifests.pod("deaf", "node1", deaf))
    (pod,) = space.ready(manifests.pod("probed", "node2", probed, grpc))
    refused = space.eventually(
        "an event tells of the probe that failed",
        lambda: [e["message"] for e in events(space, "deaf") if e["reason"] == "Unhealthy"],
    )
    address = space.pod("deaf").address
    assert f"dial tcp {address}:9: connect: connection refused" in refused[0]
    assert not space.is_ready("deaf")
    assert [each["restartCount"] for each in containers(space, pod.name)] == [0, 0]


def test_pod_keeps_address_and_connections_when_its_container_is_restarted(
    scene: Scene, space: Space
) -> None:
    neighbour = manifests.agnhost("neighbour", http=9090, udp=9091)
    (before,) = space.ready(manifests.pod("restarted", "node1", manifests.agnhost(), neighbour))
    with contextlib.suppress(Unanswered):
        scene.outside.get(before.address, HTTP, "exit?code=1")
    space.eventually(
        "its container was started again",
        lambda: containers(space, "restarted")[0]["restartCount"] == 1 and space.is_ready("restarted"),
    )
    after = space.pod("restarted")
    assert after.address == before.address
    assert scene.there.http(after.address, HTTP) == ["restarted"]
    assert scene.there.http(after.address, 9090) == ["restarted"]


def test_pod_gets_requests_of_its_service_when_its_readiness_gate_opens(scene: Scene, space: Space) -> None:
    gated = manifests.pod("gated", "node1", readinessGates=[{"conditionType": GATE}])
    space.apply(gated, manifests.service("gated", {"app": "gated"}))
    space.wait("condition=ContainersReady", "pod/gated")
    assert not space.is_ready("gated")
    address = space.get("service", "gated")["spec"]["clusterIP"]
    assert scene.there.answered(address, 80) == []

    patch = f'{{"status": {{"conditions": [{{"type": "{GATE}", "status": "True"}}]}}}}'
    space.kubectl("patch", "pod/gated", "--subresource=status", f"--patch={patch}")
    space.wait("condition=Ready", "pod/gated")
    space.eventually("its service answers", lambda: scene.there.answered(address, 80) == ["gated"])


def test_exec_and_logs_are_of_the_pod(scene: Scene) -> None:
    for pod in scene.pods:
        shell = [
            "exec",
            "--stdin",
            f"pod/{pod.name}",
            "--",
            "sh",
            "-c",
            "cat; hostname; ip -4 addr show eth0",
        ]
        said = scene.space.cluster.kubectl(f"--namespace={scene.space.name}", *shell, input="typed\n").stdout
        assert said.startswith(f"typed\n{pod.name}\n")
        assert f"inet {pod.address}/" in said
        scene.outside.get(pod.address, HTTP, f"echo?msg=logged-by-{pod.name}")
        assert f"msg=logged-by-{pod.name}" in scene.space.kubectl("logs", f"pod/{pod.name}").stdout


def test_files_are_copied_into_a_pod_and_out_of_it(scene: Scene, tmp_path: Path) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(bytes(range(256)) * 4096)
    for pod in (scene.here, scene.there):
        scene.space.kubectl("cp", str(sent), f"{pod.name}:/tmp/copied")
        digest = pod.sh("md5sum </tmp/copied").split()[0]
        assert digest == hashlib.md5(sent.read_bytes()).hexdigest()
        scene.space.kubectl("cp", f"{pod.name}:/tmp/copied", str(got))
        assert got.read_bytes() == sent.read_bytes()
        pod.sh("rm /tmp/copied")


def test_ports_are_forwarded_to_pods_of_every_node(scene: Scene) -> None:
    for pod in (scene.here, scene.there):
        with (
            forwarded(scene.space, pod) as port,
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection,
        ):
            connection.request("GET", "/hostname")
            assert connection.getresponse().read().decode() == pod.name


@contextlib.contextmanager
def forwarded(space: Space, pod: Pod) -> Iterator[int]:
    """A port of this machine's loopback that kubectl forwards into a pod."""
    cluster = space.cluster
    command = [str(cluster.tools / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", "port-forward"]
    command += [f"--cache-dir={cluster.kubeconfig.parent / 'kubectl'}"]  # the home has nothing of ours
    command += [f"--namespace={space.name}", f"pod/{pod.name}", f":{HTTP}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, said
            yield int(found[1])
        finally:
            process.kill()


def events(space: Space, name: str) -> list[dict[str, str]]:
    """Events about an object."""
    return list(space.get("events", f"--field-selector=involvedObject.name={name}")["items"])


def containers(space: Space, name: str) -> list[dict[str, int]]:
    """What the kubelet says of a pod's containers, in the order of the manifest."""
    said = space.get("pod", name)
    by_name = {each["name"]: each for each in said["status"]["containerStatuses"]}
    return [by_name[each["name"]] for each in said["spec"]["containers"]]
