"""Names of services and pods: CoreDNS is a pod as any other, and all others ask it through its service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.cluster.controlplane import DOMAIN
from integration.e2e import manifests

if TYPE_CHECKING:
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space

LOOKUPS = 500
"""Each from a port of its own, so each is led to a CoreDNS anew."""


def test_pods_of_every_node_find_services_and_pods_by_name(scene: Scene, space: Space) -> None:
    selector = {"app": "named"}
    space.apply(manifests.service("web", selector), manifests.service("headless", selector, clusterIP="None"))
    (named,) = space.ready(manifests.pod("named", "node1"))
    cluster_ip = space.get("service", "web")["spec"]["clusterIP"]
    full = f"{space.name}.svc.{DOMAIN}"
    for pod in (scene.here, scene.there):  # before any lookup: CoreDNS keeps a "no" for 30 s
        space.eventually("kube-proxy has the service", lambda pod=pod: pod.answered(cluster_ip, 80))  # type: ignore[misc]
    space.eventually("names are known", lambda: scene.there.sh(f"dig +short headless.{full}"), patience=60)

    for pod in (scene.here, scene.there):
        assert pod.sh(f"getent hosts web.{full}").split() == [cluster_ip, f"web.{full}"]
        assert pod.sh(f"dig +short +tcp headless.{full}").strip() == named.address
        assert f"headless.{full}." in pod.sh(f"dig +short -x {named.address}").split(".", 1)[1]
        assert pod.http(cluster_ip, 80) == pod.sh(f"curl --silent http://web.{full}/hostname").split()
    assert named.sh("getent hosts web").split()[0] == cluster_ip, "by the search list of its resolv.conf"
    assert named.sh("cat /etc/resolv.conf").splitlines() == [
        f"search {space.name}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}",
        f"nameserver {space.cluster.services.dns[0]}",
        "options ndots:5",
    ]


def test_no_lookup_of_many_is_lost(scene: Scene) -> None:
    """Row 34: lookups that are lost show as steps of seconds; here none may need a second try."""
    name = f"kubernetes.default.svc.{DOMAIN}"
    questions = f'for i in $(seq {LOOKUPS // 2}); do echo "{name} A"; echo "{name} AAAA"; done'
    for pod in (scene.here, scene.there):
        said = pod.sh(f"{questions} >/tmp/names; dig +tries=1 +time=2 -f /tmp/names | grep -c NOERROR")
        assert said.strip() == str(LOOKUPS), pod.name
