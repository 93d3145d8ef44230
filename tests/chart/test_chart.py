"""The chart renders what is meant, refuses what is not, and the plain manifests are what it comes to."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_plugin.agent.settings import Settings
from cni_plugin.cni.netconf import parse_netconf
from integration.tools import kubernetes
from ipam.provision.plan import Sizes

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "packaging/helm/azvnet"
CONF = ROOT / "conf/10-azvnet.conflist"

Object = dict[str, Any]


def template(*values: str, check: bool = True, version: str = "1.34.0") -> subprocess.CompletedProcess[str]:
    command = [str(kubernetes() / "helm"), "template", "azvnet", str(CHART), "--namespace", "kube-system"]
    command += ["--kube-version", version, *(part for each in values for part in ("--set-json", each))]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=check)


def objects(*values: str) -> dict[str, Object]:
    """What is rendered, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(template(*values).stdout) if each}


def pod(*values: str) -> Object:
    spec: Object = objects(*values)["DaemonSet"]["spec"]["template"]["spec"]
    return spec


def settings(*values: str) -> Object:
    loaded: Object = json.loads(objects(*values)["ConfigMap"]["data"]["agent.json"])
    return loaded


def conflist(*values: str) -> Object:
    loaded: Object = json.loads(objects(*values)["ConfigMap"]["data"]["10-azvnet.conflist"])
    return loaded


def test_the_plain_manifests_are_what_the_chart_comes_to() -> None:
    done = subprocess.run(
        [ROOT / "packaging/kubernetes/render.sh", "--check"],
        env={"PATH": "/usr/bin:/bin", "HELM": str(kubernetes() / "helm")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_chart_and_product_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert pod()["containers"][0]["image"] == f"localhost/azvnet:{version}"


def test_every_value_has_a_place_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}


@pytest.mark.parametrize(
    "values",
    [
        [],
        ['network.source="file"'],
        ['network.source="arm"', 'agent.arm.clientId="x"'],
        ["metrics.enabled=true"],
        ["agent.expectedPods=30", 'agent.logLevel="debug"'],
        ['network.source="imds"', 'agent.provision.mode="node"', "agent.provision.prefixes=true"],
    ],
)
def test_the_agent_takes_the_settings_that_are_rendered(values: list[str], tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(settings(*values)))
    assert Settings.read(path).conflist is not None


def test_what_the_values_say_of_the_nic_s_growth_is_in_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    sizes = '{"mode":"node","minimum":1,"batch":2,"low":3,"high":9,"maximum":30,"shrinkAfterSeconds":5.5}'
    path.write_text(json.dumps(settings(f"agent.provision={sizes}", 'agent.provision.subnet="pods"')))
    provision = Settings.read(path).provision
    assert provision is not None
    assert provision.sizes == Sizes(1, 2, 3, 9, 30, 5.5)
    assert provision.subnet == "pods"


def test_the_conflist_is_the_shipped_one_without_a_file_that_an_agent_in_a_pod_would_not_see() -> None:
    shipped = json.loads(CONF.read_text())
    rendered = conflist()
    ipam = rendered["plugins"][0]["ipam"]
    assert (ipam.pop("file"), ipam.pop("cooldown")) == ("", 30)
    assert rendered == shipped


def test_what_the_values_say_of_the_network_is_in_the_conflist() -> None:
    rendered = conflist(
        'network={"name":"n","source":"file","file":"/etc/a/b.json","mtu":1400,"master":"eth1","portmap":false,'
        '"plugins":[{"type":"bandwidth"}]}'
    )
    first, second = rendered["plugins"]
    assert (rendered["name"], first["mtu"], first["master"]) == ("n", 1400, "eth1")
    assert (first["ipam"]["environment"], first["ipam"]["file"]) == ("file", "/etc/a/b.json")
    assert second == {"type": "bandwidth"}


def test_families_of_pods_are_in_the_conflist_where_they_are_not_ipv4_alone() -> None:
    assert "families" not in conflist()["plugins"][0]["ipam"]
    rendered = conflist('network.families=["IPv4","IPv6"]')
    assert rendered["plugins"][0]["ipam"]["families"] == ["IPv4", "IPv6"]


def test_the_nic_of_pods_is_in_the_conflist_where_the_values_name_it() -> None:
    assert not {"nic", "subnet"} & conflist()["plugins"][0]["ipam"].keys()
    rendered = conflist('network={"subnet":"10.20.0.0/16","nic":{"primary":false,"link":"eth[1-9]"}}')
    ipam = rendered["plugins"][0]["ipam"]
    assert (ipam["subnet"], ipam["nic"]) == ("10.20.0.0/16", {"primary": False, "link": "eth[1-9]"})
    parsed = parse_netconf({**rendered["plugins"][0], "name": "n", "cniVersion": "1.0.0"}).our_ipam
    assert parsed.nic is not None
    assert (parsed.nic.primary, parsed.nic.link, parsed.nic.mac) == (False, "eth[1-9]", "")


def test_the_folder_of_the_address_document_is_mounted_where_it_is_read() -> None:
    spec = pod('network.source="file"', 'network.file="/etc/addresses/list.json"')
    mounts = {each["mountPath"]: each for each in spec["containers"][0]["volumeMounts"]}
    assert mounts["/etc/addresses"]["readOnly"] is True
    assert settings('network.source="file"')["file"] == "/etc/kubernetes/interfaces.json"


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    rendered = objects()
    assert rendered.keys() == {"ServiceAccount", "ConfigMap", "DaemonSet"}, "no Role of any kind"
    assert rendered["ServiceAccount"]["automountServiceAccountToken"] is False
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["hostNetwork"] is True
    assert "hostPID" not in spec
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        context = container["securityContext"]
        assert "privileged" not in context
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
    paths = {each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each}
    assert not paths & {"/", "/etc", "/run", "/var", "/opt"}


def test_it_runs_everywhere_and_before_everything() -> None:
    spec = pod()
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["terminationGracePeriodSeconds"] == 30


def test_metrics_have_a_port_and_a_monitor_only_where_they_are_asked_for() -> None:
    assert "ports" not in pod()["containers"][0]
    assert "metrics_address" not in settings()
    wanted = ["metrics.enabled=true", "metrics.port=9000", "podMonitor.enabled=true"]
    assert settings(*wanted)["metrics_address"] == "0.0.0.0:9000"
    assert objects(*wanted)["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


def test_other_folders_reach_every_place_where_they_matter() -> None:
    text = template(
        'node={"prefix":"/var/lib/azvnet","binDir":"/var/lib/rancher/k3s/data/cni","confDir":"/k3s/net.d"}'
    ).stdout
    spec = yaml.safe_load_all(text)
    (daemonset,) = (each for each in spec if each and each["kind"] == "DaemonSet")
    pod_spec = daemonset["spec"]["template"]["spec"]
    paths = {each["hostPath"]["path"] for each in pod_spec["volumes"] if "hostPath" in each}
    assert {"/var/lib/azvnet", "/var/lib/rancher/k3s/data/cni", "/k3s/net.d"} <= paths
    assert not {"/opt/azvnet", "/opt/cni/bin", "/etc/cni/net.d"} & paths
    assert "--bin-dir=/var/lib/rancher/k3s/data/cni" in pod_spec["initContainers"][0]["args"]


def test_uninstalling_takes_the_place_of_the_agent() -> None:
    rendered = objects("uninstall.enabled=true")
    assert rendered.keys() == {"ServiceAccount", "DaemonSet"}
    container = rendered["DaemonSet"]["spec"]["template"]["spec"]["initContainers"][0]
    assert container["args"][0] == "uninstall"
    assert "--force" not in container["args"]
    forced = objects("uninstall.enabled=true", "uninstall.force=true")["DaemonSet"]
    assert "--force" in forced["spec"]["template"]["spec"]["initContainers"][0]["args"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('agent.logLevel="loud"', "at '/agent/logLevel': value must be one of 'off', 'error'"),
        ('network.source="dhcp"', "at '/network/source': value must be one of 'auto', 'imds'"),
        ('network.families=["IPv5"]', "at '/network/families/0': value must be one of 'IPv4', 'IPv6'"),
        ('network.nic={"name":"eth1"}', "at '/network/nic': additional properties 'name' not allowed"),
        ('network.subnet="nodes"', "at '/network/subnet': 'nodes' does not match"),
        ('node.binDir="opt/cni/bin"', "at '/node/binDir': 'opt/cni/bin' does not match"),
        ('node.prefix="/"', "at '/node/prefix'"),
        ('node.prefix="/opt/../etc"', "at '/node/prefix'"),
        ("node.keep=0", "at '/node/keep'"),
        ("metrics.port=99999", "at '/metrics/port': maximum"),
        ("agent.refreshSeconds=0", "at '/agent/refreshSeconds'"),
        ('image.digest="sha256:12"', "at '/image/digest'"),
        ('imgae.tag="1"', "additional properties 'imgae' not allowed"),
        ('agent.provision.mode="cloud"', "at '/agent/provision/mode': value must be one of 'off', 'node'"),
        ('agent.loglevel="info"', "additional properties 'loglevel' not allowed"),
        ('network.conflist={"name":"x"}', "missing properties 'cniVersion', 'plugins'"),
        ("podMonitor.enabled=true", "podMonitor.enabled needs metrics.enabled"),
        (
            'network.conflist={"cniVersion":"1.0.0","name":"x","plugins":[{"type":"ptp"}]}',
            "none of its plugins is azvnet",
        ),
    ],
)
def test_a_value_that_can_not_be_is_refused_by_its_name(value: str, words: str) -> None:
    done = template(value, check=False)
    assert done.returncode != 0
    assert words in done.stderr
