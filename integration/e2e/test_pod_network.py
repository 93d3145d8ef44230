"""Who reaches whom without any service between: pods, nodes, hosts of the virtual network.

Every answer names who asked. In a virtual network that is the pod's own address, everywhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from integration.e2e.ends import End, Pod, Unanswered, address_of

if TYPE_CHECKING:
    from integration.e2e.scene import Scene

PACKET = 1472
"""Bytes of a ping that fill a packet of 1500 bytes."""


def talk(asker: End, server: End) -> str:
    """Ask over TCP and UDP; what is wrong, or nothing."""
    try:
        names = asker.http(server.address, server.http_port) + asker.udp(server.address, server.udp_port)
        clients = asker.http(server.address, server.http_port, "clientip")
        clients += asker.udp(server.address, server.udp_port, "clientip")
    except Unanswered as error:
        return str(error)
    wrong = [f"{name} answered" for name in names if name != server.name]
    expected = {asker.address, "127.0.0.1"} if asker.address == server.address else {asker.address}
    wrong += [f"saw {client}" for client in clients if address_of(client) not in expected]
    return f"{asker.name} -> {server.name}: {', '.join(wrong)}" if wrong else ""


def test_everybody_reaches_everybody_under_its_own_address(scene: Scene) -> None:
    pairs = [(asker, server) for asker in scene.askers for server in scene.servers]
    with ThreadPoolExecutor(8) as pool:
        wrong = [said for said in pool.map(lambda pair: talk(*pair), pairs) if said]
    assert wrong == []
    counters = scene.space.cluster.fabric.drop_counters()
    assert (counters.spoofed_total, counters.platform_total) == (0, 0)


def test_pods_have_addresses_of_the_nic_and_host_pods_that_of_the_node(scene: Scene) -> None:
    cluster = scene.space.cluster
    for pod in scene.pods:
        owned = [str(address) for address in cluster.nodes[pod.node].machine.pod_addresses]
        assert pod.address in owned
    assert scene.host_pod.address == scene.node1.address


def test_packets_of_the_full_size_and_fragmented_ones_pass_between_nodes(scene: Scene) -> None:
    assert " mtu 1500 " in scene.here.sh("ip link show dev eth0")
    targets = (scene.there, scene.beside, scene.node1, scene.node2, scene.outside)
    for size in (PACKET, 8000):
        for target in targets:
            said = scene.here.sh(f"ping -c 2 -i 0.1 -W 2 -s {size} {target.address}")
            assert "2 packets received" in said, f"{size} bytes to {target.name}: {said}"


def test_a_megabyte_arrives_whole_both_ways(scene: Scene) -> None:
    make = "head -c 1048576 /dev/urandom >/tmp/blob; md5sum </tmp/blob"
    for source, sink in ((scene.here, scene.there), (scene.there, scene.here), (scene.beside, scene.here)):
        assert isinstance(sink, Pod)
        sent = source.sh(make).split()[0]
        upload = f"curl --silent --max-time 20 -F file=@/tmp/blob http://{sink.address}:8080/upload"
        assert '"output"' in source.sh(upload)
        got = sink.sh("f=$(ls -t /uploads/* | head -n 1); md5sum <$f; rm $f; rm -f /tmp/blob").split()[0]
        assert got == sent, f"{source.name} -> {sink.name}"


def test_node_and_pod_ping_each_other(scene: Scene) -> None:
    assert "1 packets received" in scene.here.sh(f"ping -c 1 -W 2 {scene.node1.address}")
    assert "1 packets received" in scene.node1.sh(f"busybox ping -c 1 -W 2 {scene.here.address}")
