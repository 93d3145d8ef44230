"""A machine is a node good enough for a container runtime: own namespaces, own folders, own boots."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.fabric.holder import KEPT
from integration.fabric.machine import MachineError, ProgramFailed
from integration.tests.fabric.packets import pod, reaches
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.fabric import Fabric


@pytest.mark.parametrize("folder", [*KEPT, "/run"])
def test_the_folders_of_a_node_are_empty_writable_and_its_own(fabric: Fabric, folder: str) -> None:
    one, two = fabric.nodes["node1"], fabric.nodes["node2"]
    assert set(one.run(["ls", "-A", folder]).stdout.split()) <= {"lock", "netns"}
    one.run(["touch", f"{folder}/mark"])
    assert two.run(["test", "-e", f"{folder}/mark"], check=False).returncode == 1
    assert not (Path(folder) / "mark").exists()
    one.run(["rm", f"{folder}/mark"])


def test_what_a_node_writes_in_etc_stays_in_it_and_what_it_reads_is_the_machines(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    node.run(["tee", "/etc/azvnet-test"], input="x")
    assert not Path("/etc/azvnet-test").exists()
    assert node.run(["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_text(encoding="utf-8")


def test_resolver_hosts_and_name_are_those_of_an_azure_vm(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    assert "nameserver 168.63.129.16" in node.run(["cat", "/etc/resolv.conf"]).stdout
    assert node.run(["hostname"]).stdout.strip() == "node1"
    found = node.run(["getent", "hosts", "node2", "management.azure.com"]).stdout
    assert str(fabric.nodes["node2"].primary_ip) in found
    assert "198.51.100.10" in found


def test_sysfs_shows_the_links_of_the_node_and_the_cgroups_are_there(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    assert set(node.run(["ls", "/sys/class/net"]).stdout.split()) == {"eth0", "lo"}
    assert node.run(["ls", "/sys/fs/cgroup"]).stdout.split() == sorted(
        p.name for p in Path("/sys/fs/cgroup").iterdir()
    )


def test_mounts_of_a_node_propagate_inside_it_and_not_outside(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    assert "shared:" in node.run(["grep", " / / ", "/proc/self/mountinfo"]).stdout
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    # A mount made in a namespace of its own that shares with the node arrives in the node.
    script = "mkdir -p /run/p && mount -t tmpfs p /run/p"
    node.run(["unshare", "-m", "--propagation", "unchanged", "sh", "-c", script])
    assert " /run/p " in node.run(["cat", "/proc/self/mountinfo"]).stdout
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before
    node.run(["umount", "/run/p"])


def test_a_container_runtime_can_make_named_namespaces_inside(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    with pod(node, "named", node.pod_addresses[0]):
        assert node.run(["ls", "/run/netns"]).stdout.split() == ["named"]
        assert not Path("/run/netns/named").exists()


def test_own_tmp_only_where_it_was_asked_for(
    fabric: Fabric, make_fabric: Callable[..., Fabric], tmp_path: Path
) -> None:
    (tmp_path / "seen").touch()
    assert fabric.nodes["node1"].run(["ls", str(tmp_path)]).stdout.split() == ["seen"]
    alone = make_fabric(nodes=1, own_tmp=True).nodes["node1"]
    assert alone.run(["ls", "-A", "/tmp"]).stdout == ""


def test_a_program_gets_exactly_its_environment_and_input(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    done = node.run(["sh", "-c", "env; cat"], env={"CNI_COMMAND": "ADD", "PATH": "/usr/bin:/bin"}, input="in")
    assert {line for line in done.stdout.split("\n") if not line.startswith(("PWD=", "_=", "SHLVL="))} == {
        "CNI_COMMAND=ADD",
        "PATH=/usr/bin:/bin",
        "in",
    }


def test_a_failed_program_says_where_and_what(fabric: Fabric) -> None:
    with pytest.raises(ProgramFailed, match=r"in node1: .*exit status 3.*sorry"):
        fabric.nodes["node1"].run(["sh", "-c", "echo sorry >&2; exit 3"])


def test_a_program_that_takes_too_long_is_killed(fabric: Fabric) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        fabric.nodes["node1"].run(["sleep", "60"], timeout=0.2)


def test_the_pid_of_a_program_is_its_own_so_signals_reach_it(fabric: Fabric) -> None:
    node = fabric.nodes["node1"]
    with node.popen(["sleep", "60"]) as process:
        try:
            # The kernel tells the starter that exec succeeded a moment before it changes the name.
            name = Path(f"/proc/{process.pid}/comm")
            eventually(lambda: name.read_text(encoding="ascii") == "sleep\n", "it is the program")
            os.kill(process.pid, signal.SIGSTOP)
            os.kill(process.pid, signal.SIGCONT)
        finally:
            process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_this_process_is_not_moved_by_entering_machines(fabric: Fabric) -> None:
    kinds = [Path(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "uts", "pid")]
    own = [kind.readlink() for kind in kinds]
    fabric.nodes["node1"].run(["true"])
    assert [kind.readlink() for kind in kinds] == own


def test_a_reboot_renews_run_network_and_boot_id_and_keeps_the_disk(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1)
    node = fabric.nodes["node1"]
    address, host = node.pod_addresses[0], fabric.vnet_hosts["vm1"]
    node.run(["sh", "-c", "touch /run/gone /etc/cni/net.d/kept; echo kept > /etc/kept"])
    daemon = node.popen(["sleep", "600"])
    boot_id = node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    with contextlib.suppress(ProgramFailed), pod(node, "near", address):
        node.reboot()
    assert daemon.wait(5) == -signal.SIGKILL
    assert node.run(["ls", "/run"]).stdout.split() == ["lock"]
    assert node.run(["ls", "/etc/cni/net.d"]).stdout.split() == ["kept"]
    assert node.run(["cat", "/etc/kept"]).stdout == "kept\n"
    after = node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    assert boot_id != after == node.boot_id
    assert node.run(["sh", "-c", "cat $AZVNET_BOOT_ID_FILE"]).stdout.strip() == after
    assert node.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    assert reaches(node, host.primary_ip)
    with pod(node, "near", address):
        assert reaches(host, address)


def test_a_halted_machine_is_silent_and_keeps_its_addresses_until_it_boots(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=2)
    node, other = fabric.nodes["node1"], fabric.nodes["node2"]
    fabric.halt("node1")
    assert not reaches(other, node.primary_ip, wait="0.3")
    fabric.add_addresses("node1", 1)
    fabric.boot("node1")
    assert reaches(other, node.primary_ip)
    with pod(node, "near", node.pod_addresses[-1]):
        assert reaches(other, node.pod_addresses[-1])


def test_the_authority_is_in_the_systems_list_once_also_after_a_reboot(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1)
    fabric.reboot("node1")
    node = fabric.nodes["node1"]
    script = 'test ! -e $0 || grep -cF "$(sed -n 2p /etc/azure-fabric/ca.pem)" $0'
    assert node.run(["sh", "-c", script, "/etc/ssl/certs/ca-certificates.crt"]).stdout in ("1\n", "")


def test_boot_ids_of_nodes_differ_from_each_other_and_from_this_machines(fabric: Fabric) -> None:
    ids = {m.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout for m in fabric.machines.values()}
    own = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    assert len(ids | {own}) == len(fabric.machines) + 1


def test_a_machine_that_is_off_says_so(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1)
    fabric.down()
    with pytest.raises(MachineError, match="node1 is not running"):
        fabric.nodes["node1"].run(["true"])


def test_several_fabrics_live_side_by_side_with_the_same_addresses(
    make_fabric: Callable[..., Fabric],
) -> None:
    one, two = make_fabric(nodes=1), make_fabric(nodes=1)
    assert one.nodes["node1"].primary_ip == two.nodes["node1"].primary_ip
    assert one.nodes["node1"].uplink_mac != two.nodes["node1"].uplink_mac
    one.fault("imds", hang=True)
    for fabric in (one, two):
        assert reaches(fabric.vnet_hosts["vm1"], fabric.nodes["node1"].primary_ip)


def test_two_fabrics_cannot_have_one_name(make_fabric: Callable[..., Fabric]) -> None:
    from integration.fabric.records import FabricExists

    fabric = make_fabric(nodes=0)
    with pytest.raises(FabricExists, match=fabric.name):
        make_fabric(nodes=0, name=fabric.name)
    assert reaches(fabric.vnet_hosts["vm1"], fabric.vnet_hosts["vm1"].primary_ip)


@pytest.fixture
def accelerated(make_fabric: Callable[..., Fabric]) -> Fabric:
    return make_fabric(nodes=1, accelerated=True)


def links_with(fabric: Fabric, mac: str) -> dict[str, bool]:
    """The links of node1 that carry the MAC, and whether they are enslaved."""
    import json

    listed = json.loads(fabric.nodes["node1"].run(["ip", "-json", "link"]).stdout)
    return {link["ifname"]: "master" in link for link in listed if link.get("address") == mac}


def test_a_vf_has_the_mac_of_the_nic_and_is_enslaved_to_eth0(accelerated: Fabric) -> None:
    mac = accelerated.nodes["node1"].uplink_mac
    assert links_with(accelerated, mac) == {"eth0": False}
    accelerated.add_vf("node1", "eth1")
    assert links_with(accelerated, mac) == {"eth0": False, "eth1": True}
    accelerated.rename_vf("node1", "enP30832s1")
    assert links_with(accelerated, mac) == {"eth0": False, "enP30832s1": True}
    accelerated.remove_vf("node1")
    assert links_with(accelerated, mac) == {"eth0": False}


def test_traffic_goes_on_while_a_vf_comes_and_goes(accelerated: Fabric) -> None:
    node, host = accelerated.nodes["node1"], accelerated.vnet_hosts["vm1"]
    address = node.pod_addresses[0]
    with pod(node, "near", address):
        for change in (accelerated.add_vf, accelerated.remove_vf, accelerated.add_vf):
            change("node1")
            assert reaches(host, address)
            assert reaches(node, host.primary_ip, netns="near")
    assert accelerated.drop_counters().spoofed_total == 0


def test_a_vf_that_is_gone_after_a_reboot_can_come_again(accelerated: Fabric) -> None:
    accelerated.add_vf("node1")
    accelerated.reboot("node1")
    assert links_with(accelerated, accelerated.nodes["node1"].uplink_mac) == {"eth0": False}
    accelerated.add_vf("node1")
    assert reaches(accelerated.nodes["node1"], accelerated.vnet_hosts["vm1"].primary_ip)


def test_every_node_nic_is_there_and_works(make_fabric: Callable[..., Fabric]) -> None:
    fabric = make_fabric(nodes=1, nics=2, addresses=1)
    node = fabric.nodes["node1"]
    assert node.run(["cat", "/sys/class/net/eth1/address"]).stdout.strip() == node.nics[1].mac
    assert reaches(node, fabric.vnet_hosts["vm1"].primary_ip, source="eth1")


def test_sysctls_of_a_node_are_those_of_a_fresh_vm_or_as_asked_for(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=1, sysctls={"net/ipv4/conf/all/rp_filter": 1})
    read = fabric.nodes["node1"].run(["sysctl", "-n", "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter"])
    assert read.stdout.split() == ["0", "1"]


def test_nodes_with_as_many_addresses_as_a_nic_has_come_and_go(
    make_fabric: Callable[..., Fabric],
) -> None:
    fabric = make_fabric(nodes=2, addresses=255)
    assert len(fabric.nodes["node2"].pod_addresses) == 255
    fabric.down()
