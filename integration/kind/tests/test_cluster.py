"""A kind cluster of three nodes made by the recipe of docs/kind.md, as a developer uses it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import pages
from integration.both_ends import carried, told
from integration.cluster import ClusterError, conformance, wait_until
from integration.kind import life
from integration.kind.places import ENVIRONMENT
from integration.kind.tests import ends
from integration.kind.tests.conftest import CLIENT, NODES, WEB, environment, run

if TYPE_CHECKING:
    from integration.kind.cluster import KindCluster

OF_THIS_CLUSTER = tuple(
    (re.compile(pattern, re.MULTILINE), word)
    for pattern, word in (
        (r"\bcoredns-[0-9a-z]+-[0-9a-z]{5}\b", "POD"),
        (r"\bazvnet-(control-plane|worker\d*)\b", "NODE"),
        (r"\b172(\.\d+){3}\b", "ADDRESS"),
        (r"\bazv[0-9a-f]{11}\b", "LINK"),
        (r"^\d+(?=: )|(?<=@if)\d+|(?<=index )\d+|(?<=peer )\d+", "INDEX"),
        (r"\b[0-9a-f]{64}\b", "CONTAINER"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
        (r"\b(?!aa:)[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
        (r"\bfe80::[0-9a-f:]*[0-9a-f](?=/64)", "LINK-LOCAL"),
        (r"─+", "─"),
    )
)
"""What of the walkthrough's output is another cluster's, and what stands for it."""


def unreached(cluster: KindCluster) -> list[str]:
    """Who does not reach whom, or not as itself: from every node pods reach pods, a service by its name, and
    host ports.
    """
    clients, servers = (ends.pods(cluster, name) for name in (CLIENT, WEB))
    assert len({pod.node for pod in clients}) == len({pod.node for pod in servers}) == NODES
    nodes = [_address(node) for node in cluster.get("nodes")["items"]]
    targets = [*(f"{pod.address}:{ends.PORT}" for pod in (*servers, *clients)), f"{WEB}:80"]
    host_ports = [f"{address}:{ends.HOST_PORT}" for address in nodes]
    targets += host_ports
    found = []
    for pod in clients:
        seen = ends.seen_by(cluster, pod, targets)
        found += [
            f"{target} sees {pod} as {seen[target]!r}" for target in targets if seen[target] != pod.address
        ]
    return found


def _address(node: dict[str, dict[str, list[dict[str, str]]]]) -> str:
    addresses = node["status"]["addresses"]
    return next(each["address"] for each in addresses if each["type"] == "InternalIP")


def test_what_is_printed_says_how_to_go_on(printed: str) -> None:
    told = ("kubectl run", "cnitool add", "azvnet status", "azvnet show", "make kind-reload")
    for words in (str(ENVIRONMENT), *told):
        assert words in printed


def test_printed_environment_makes_kubectl_work_in_a_new_shell(cluster: KindCluster) -> None:
    asked = f". {ENVIRONMENT}; kubectl get nodes --output=name; docker ps --format='{{{{.Names}}}}'"
    done = subprocess.run(
        ["sh", "-euc", asked], env=environment(), capture_output=True, text=True, check=True
    )
    names = cluster.node_names()
    assert sorted(done.stdout.split()) == sorted([*names, *(f"node/{name}" for name in names)])


@pytest.mark.usefixtures("pods")
def test_pods_on_all_nodes_reach_pods_services_and_host_ports(cluster: KindCluster) -> None:
    assert unreached(cluster) == []


@pytest.mark.usefixtures("pods")
def test_pods_have_addresses_of_their_own_node(cluster: KindCluster) -> None:
    servers = ends.pods(cluster, WEB)
    for name, document in cluster.documents().items():
        given = {each["Address"] for each in document["Interfaces"][0]["IPSubnets"][0]["IPAddresses"][1:]}
        assert {pod.address for pod in servers if pod.node == name} <= given


@pytest.mark.usefixtures("pods")
def test_show_says_of_a_pod_what_the_kernel_has(cluster: KindCluster) -> None:
    pod = ends.pods(cluster, WEB)[0]
    wait_until("both say the same", lambda: _is_shown(cluster, pod), patience=30)


def _is_shown(cluster: KindCluster, pod: ends.Pod) -> bool:
    """Whether ``azvnet show`` agrees with ``ip`` and Kubernetes; a neighbour may be learned meanwhile."""
    show = ("/opt/cni/bin/azvnet", "show", f"default/{pod.name}", "--output=json")
    (seen,) = json.loads(cluster.on_node(pod.node, *show))["attachments"]
    (address,) = seen["addresses"]
    (nic,) = ends.ip(cluster, pod.node, "link", "show", "dev", "eth0")
    assert address["address"].partition("/")[0] == pod.address
    assert (address["nicMAC"], address["nicLink"]["index"]) == (nic["address"], nic["ifindex"])
    assert seen["paired"]
    in_pod = partial(ends.ip, cluster, pod.node, netns=seen["netns"])
    on_node = partial(ends.ip, cluster, pod.node)
    return told(seen["podEnd"]) == carried(in_pod, "eth0") and told(seen["hostEnd"]) == carried(
        on_node, seen["hostEnd"]["name"]
    )


@pytest.mark.usefixtures("cluster")
def test_walkthrough_on_kind_prints_what_the_page_shows() -> None:
    page = (pages.DOCS / "walkthrough.md").read_text()
    with pages.Shell(environment(), ["bash", "--norc"], (*OF_THIS_CLUSTER, *pages.VARIES)) as shell:
        for each in pages.commands(page.partition("\n## On kind\n")[2]):
            shell.follow(each)


@pytest.mark.usefixtures("pods")
def test_cnitool_works_on_a_node_beside_its_pods(cluster: KindCluster) -> None:
    printed = cluster.change("cnitool on a node")
    assert '"cniVersion"' in printed
    assert "inet " in printed
    assert unreached(cluster) == []


@pytest.mark.usefixtures("pods")
def test_pods_are_reachable_again_after_their_node_restarted(cluster: KindCluster) -> None:
    node = cluster.node_names()[-1]
    before = _restarts(cluster, node)
    cluster.docker.run("docker", "restart", node)
    wait_until(
        "all pods of the node were started again", lambda: _are_back(cluster, node, before), patience=240
    )
    # Pods are Ready before kube-proxy has set up the services of its node.
    with contextlib.suppress(ClusterError):
        wait_until("pods and services are reached", lambda: not unreached(cluster), patience=60)
    assert unreached(cluster) == []
    assert cluster.on_node(node, "cat", "/proc/sys/net/ipv4/conf/eth0/proxy_arp").strip() == "1"


def _restarts(cluster: KindCluster, node: str) -> dict[str, int]:
    """Pods of ours on a node that are Ready, and how often their containers were started again."""
    found = cluster.get("pods", f"--field-selector=spec.nodeName={node}")["items"]
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in found
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])
    }


def _are_back(cluster: KindCluster, node: str, before: dict[str, int]) -> bool:
    now = _restarts(cluster, node)
    return now.keys() == before.keys() and all(now[name] > before[name] for name in now)


@pytest.mark.usefixtures("pods")
def test_changed_build_is_rolled_out_while_pods_keep_running(cluster: KindCluster) -> None:
    before = {pod.name for pod in ends.pods(cluster, WEB)}
    agents = _agents(cluster)
    done = run("reload")
    assert done.returncode == 0, done.stderr
    assert not agents & _agents(cluster)
    assert {pod.name for pod in ends.pods(cluster, WEB)} == before
    assert unreached(cluster) == []


def _agents(cluster: KindCluster) -> set[str]:
    chosen = ("--namespace=kube-system", "--selector=app.kubernetes.io/name=azvnet")
    found = cluster.get("pods", *chosen)["items"]
    return {each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]}


@pytest.mark.usefixtures("pods")
def test_living_cluster_moves_to_imds(cluster: KindCluster) -> None:
    pod = ends.pods(cluster, WEB)[0]
    cluster.change("From IMDS")
    cluster.change("Ready")
    for node in cluster.node_names():
        wait_until("the agent reads IMDS", partial(_reads_imds, cluster, node), patience=60)
    cluster.kubectl("delete", "pod", pod.name)
    cluster.wait_available(f"daemonset/{WEB}")
    assert unreached(cluster) == []


def _reads_imds(cluster: KindCluster, node: str) -> bool:
    page = ("curl", "--silent", "--unix-socket", "/run/azvnet/http.sock", "http://node/metrics")
    return 'azvnet_source_up{source="imds"} 1' in cluster.on_node(node, *page)


@pytest.mark.usefixtures("cluster")
def test_conformance_specs_about_services_pass_in_iptables_mode_as_documented() -> None:
    specs = life.conformance(conformance.SERVICES, lambda _: None)
    assert [f"{spec.name}: {spec.state} {spec.message}" for spec in specs if not spec.passed] == []
    assert len(specs) == 22
    page = conformance.DOCUMENT.read_text(encoding="utf-8")
    assert page == conformance.document(page, "iptables", specs)


def test_nothing_was_written_into_the_home(cluster: KindCluster) -> None:
    assert cluster.kubectl("config", "current-context").stdout.strip() == "kind-azvnet"
    config = Path("~/.kube/config").expanduser()
    assert not config.exists() or "kind-azvnet" not in config.read_text(encoding="utf-8")
