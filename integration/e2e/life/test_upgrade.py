"""Upgrades, rollbacks and changed settings through the DaemonSet, while pods come and go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.cluster import rollout, versions, wait_until
from integration.e2e.life import agents
from integration.e2e.life.churn import weather
from integration.e2e.life.storm import idle_pod

if TYPE_CHECKING:
    from integration.cluster import Cluster, Node
    from integration.cluster.api import Api
    from integration.cluster.versions import Version
    from integration.e2e.life.churn import Weather

pytestmark = pytest.mark.timeout(600)

NEXT = "9.9.9"
OTHER_MTU = 1400


@pytest.fixture(scope="module")
def following(life: Cluster) -> Version:
    """Another version of the image, on every node."""
    made = versions.another(NEXT)
    life.load_image(made.archive)
    return made


def answering(cluster: Cluster) -> set[tuple[str, str]]:
    """The version of the executable that a runtime calls, and that of the agent, on all nodes."""
    found = set()
    for node in cluster.nodes.values():
        executable = node.run([agents.AZVNET, "--version"]).stdout.split()[-1]
        found.add((executable, str(agents.agent(node).get("version"))))
    return found


def roll_out(cluster: Cluster, manifest: str) -> None:
    """Apply it and wait until every node has it."""
    cluster.apply(manifest)
    cluster.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)


def change_settings(cluster: Cluster, manifest: str) -> None:
    """Apply another ConfigMap. The kubelet brings it into a pod within a minute, or when it looks at the
    pod for another reason: an annotation is one.
    """
    cluster.apply(manifest)
    now = f"azvnet.test/looked-at={hash(manifest)}"
    cluster.kubectl("annotate", "pod", *agents.OF_AGENTS, "--overwrite", now)


def mtu_of_new_pod(outside: Weather, node: str) -> int:
    """The MTU that a pod gets which is made now."""
    name = f"asks-{node}"
    outside.api.create(outside.pods, idle_pod(name, node, app="asks"))
    outside.cluster.kubectl(
        "wait", f"pod/{name}", "--for=condition=Ready", f"--namespace={outside.namespace}", "--timeout=60s"
    )
    address = outside.api.get(f"{outside.pods}/{name}")["status"]["podIP"]
    route = outside.cluster.nodes[node].run(["ip", "-json", "route", "get", address]).stdout
    link = (
        outside.cluster.nodes[node].run(["ip", "-json", "link", "show", json.loads(route)[0]["dev"]]).stdout
    )
    outside.cluster.kubectl("delete", f"pod/{name}", f"--namespace={outside.namespace}")
    return int(json.loads(link)[0]["mtu"])


def test_upgrade_changed_settings_and_rollback_disturb_no_pod(
    installed: Cluster, api: Api, namespace: str, following: Version
) -> None:
    now = versions.built()
    manifest = rollout.MANIFEST.read_text(encoding="utf-8")
    upgraded = manifest.replace(now.image, following.image)
    other_conflist = upgraded.replace('"mode": "transparent",', f'"mode": "transparent", "mtu": {OTHER_MTU},')
    assert len({manifest, upgraded, other_conflist}) == 3
    with weather(installed, api, namespace) as outside:
        roll_out(installed, upgraded)
        assert answering(installed) == {(NEXT, NEXT)}

        change_settings(installed, other_conflist.replace('"log_level": "info"', '"log_level": "debug"'))
        for name, node in installed.nodes.items():
            await_mtu(node, OTHER_MTU)
            assert mtu_of_new_pod(outside, name) == OTHER_MTU
            said = node.run(["cat", "/var/log/azvnet/agent.log"]).stdout
            assert "the settings were reloaded" in said

        roll_out(installed, manifest)
        assert answering(installed) == {(now.number, now.number)}
        for name, node in installed.nodes.items():
            assert mtus(node) == []
            assert mtu_of_new_pod(outside, name) == installed.fabric.mtu


def await_mtu(node: Node, mtu: int) -> None:
    """Wait until the node's conflist says so."""
    wait_until(f"{node.name} has the other conflist", lambda: mtu in mtus(node), patience=30)


def mtus(node: Node) -> list[int]:
    """What the plugins of the node's conflist are told of the MTU."""
    conflist = json.loads(node.run(["cat", agents.CONFLIST]).stdout)
    return [each["mtu"] for each in conflist["plugins"] if "mtu" in each]


def test_chart_takes_over_from_the_manifest_and_upgrades_and_rolls_back_disturbing_no_pod(
    installed: Cluster, api: Api, namespace: str, following: Version
) -> None:
    now = versions.built()
    tag = following.image.rpartition(":")[2]

    def helm(*arguments: str) -> None:
        # helm's own --wait takes a DaemonSet for ready when maxUnavailable of it is not.
        rollout.helm(installed, *arguments)
        installed.wait_available(rollout.WORKLOAD, namespace=rollout.NAMESPACE)

    with weather(installed, api, namespace):
        installed.kubectl("delete", "--wait", f"--filename={rollout.MANIFEST}")
        helm("install", "azvnet", str(rollout.CHART))
        try:
            helm("upgrade", "azvnet", str(rollout.CHART), f"--set=image.tag={tag}")
            assert answering(installed) == {(NEXT, NEXT)}
            helm("rollback", "azvnet")
            assert answering(installed) == {(now.number, now.number)}
        finally:
            rollout.helm(installed, "uninstall", "azvnet", "--wait")
