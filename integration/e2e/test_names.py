"""Names of services and pods: CoreDNS is a pod as any other, and all others ask it through its service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration import dnscache
from integration.cluster.controlplane import DOMAIN
from integration.cluster.images import COREDNS_IMAGE
from integration.e2e import manifests

if TYPE_CHECKING:
    from integration.e2e.scene import Scene
    from integration.e2e.space import Space

LOOKUPS = 500
"""Each from a port of its own, so each is led to a CoreDNS anew."""
CACHE = "169.254.20.10"


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


def test_a_dns_cache_on_the_node_answers_its_pods(scene: Scene, space: Space) -> None:
    """As NodeLocal DNSCache: CoreDNS in the node's own network, at a link-local address whose packets are not
    tracked. It asks the cluster's DNS.
    """
    node = scene.node1.machine
    upstream = space.cluster.services.dns[0]
    corefile = f". {{\n  errors\n  cache 30\n  forward . {upstream}\n}}\n"
    rules = list(dnscache.rules([CACHE]))
    node.run(["ip", "-batch", "-"], input="\n".join(dnscache.link([CACHE])) + "\n")
    try:
        for rule in rules:
            node.run(rule)
        space.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "cache"},
                "data": {"Corefile": corefile},
            }
        )
        space.ready(manifests.pod("cache", "node1", _cache(), hostNetwork=True, volumes=[_VOLUME]))
        config = {"nameservers": [CACHE]}
        (pod,) = space.ready(manifests.pod("asks", "node1", dnsPolicy="None", dnsConfig=config))
        own = space.cluster.services.api_server[0]
        full = f"kubernetes.default.svc.{DOMAIN}"
        space.eventually("the cache answers", lambda: own in pod.sh(f"dig +short {full}"))
        assert pod.sh(f"dig +short +tcp {full}").strip() == own
        assert pod.sh(f"getent hosts {full}").split()[0] == own
        met = node.run(["iptables", "-w", "-t", "raw", "-nvxL", "PREROUTING"]).stdout.splitlines()
        assert all(int(line.split()[0]) > 0 for line in met if CACHE in line), "over UDP and over TCP"
    finally:
        for rule in rules:
            node.run(["-D" if word == "-A" else word for word in rule], check=False)
        node.run(["ip", "link", "delete", dnscache.LINK], check=False)


_VOLUME = {"name": "config", "configMap": {"name": "cache"}}


def _cache() -> manifests.Manifest:
    return {
        "name": "main",
        "image": COREDNS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
