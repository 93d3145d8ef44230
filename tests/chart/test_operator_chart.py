"""The chart with the operator: what is added, with which rights, and nothing of it in the other modes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipam.operator.settings import Settings
from ipam.provision import exchange
from tests.chart.test_chart import CHART, ROOT, template

MODE = 'agent.provision.mode="operator"'
NODE_MODE = 'agent.provision.mode="node"'
CRD = CHART / "files/azvnetnodes.azvnet.io.yaml"
NAME = "azvnet-operator"
API = "/var/run/secrets/kubernetes.io/serviceaccount"

Object = dict[str, Any]


def rendered(*values: str) -> dict[tuple[str, str], Object]:
    """By kind and name."""
    found = [each for each in yaml.safe_load_all(template(*values).stdout) if each]
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def pod(*values: str) -> Object:
    spec: Object = rendered(MODE, *values)["Deployment", NAME]["spec"]["template"]["spec"]
    return spec


def agent(*values: str) -> Object:
    spec: Object = rendered(*values)["DaemonSet", "azvnet"]["spec"]["template"]["spec"]
    return spec


def settings(*values: str) -> Object:
    loaded: Object = json.loads(rendered(MODE, *values)["ConfigMap", NAME]["data"]["operator.json"])
    return loaded


def rules(role: Object) -> set[tuple[str, str, str]]:
    """What a role grants: verb, group and resource, with its name where only that one is meant."""
    return {
        (verb, group, "/".join([resource, *named]))
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for named in [rule.get("resourceNames", [])]
    }


def test_where_no_nic_grows_there_is_no_role_and_no_token() -> None:
    found = rendered('agent.provision.mode="off"')
    assert {kind for kind, _ in found} == {"ServiceAccount", "ConfigMap", "DaemonSet"}
    text = json.dumps(found["DaemonSet", "azvnet"])
    assert "serviceAccountToken" not in text
    assert "NODE_NAME" not in text


def test_agents_that_write_their_nics_may_see_pods_and_nodes_and_change_nothing() -> None:
    found = rendered(NODE_MODE)
    assert {kind for kind, _ in found} == {
        *("ServiceAccount", "ConfigMap", "DaemonSet", "ClusterRole", "ClusterRoleBinding")
    }
    assert rules(found["ClusterRole", "azvnet"]) == {
        ("list", "", "pods"),
        ("watch", "", "pods"),
        ("get", "", "nodes"),
    }
    (subject,) = found["ClusterRoleBinding", "azvnet"]["subjects"]
    assert (subject["namespace"], subject["name"]) == ("kube-system", "azvnet")


def test_uninstalling_takes_the_role_of_agents_away_as_well() -> None:
    found = rendered(NODE_MODE, "uninstall.enabled=true")
    assert {kind for kind, _ in found} == {"ServiceAccount", "DaemonSet"}


def test_uninstalling_takes_the_operator_away_as_well() -> None:
    assert {kind for kind, _ in rendered(MODE, "uninstall.enabled=true")} == {"ServiceAccount", "DaemonSet"}


def test_nothing_is_said_of_roles_that_there_are() -> None:
    words = "No Role: neither container talks to the API server"
    assert words in template().stdout
    assert words not in template(MODE).stdout
    assert words not in template(NODE_MODE).stdout


def test_the_definition_is_the_one_of_the_product_and_stays_when_the_chart_goes() -> None:
    """Deleting it deletes every AzvnetNode; and Helm neither upgrades nor asks about what is in crds/."""
    shown = rendered(MODE)["CustomResourceDefinition", f"{exchange.PLURAL}.{exchange.GROUP}"]
    assert shown["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert shown == yaml.safe_load(CRD.read_text())
    assert not (CHART / "crds").exists()


@pytest.mark.parametrize("mode", ["node", "operator"])
def test_the_agent_alone_has_the_token_and_knows_its_node(mode: str) -> None:
    spec = agent(f'agent.provision.mode="{mode}"')
    (container,) = spec["containers"]
    (installer,) = spec["initContainers"]
    assert spec["automountServiceAccountToken"] is False
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container[
        "env"
    ]
    (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == API)
    assert mount["readOnly"] is True
    assert API not in {each["mountPath"] for each in installer["volumeMounts"]}
    (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
    assert [list(each) for each in volume["projected"]["sources"]] == [["serviceAccountToken"], ["configMap"]]


def test_further_environment_of_the_agent_stands_beside_its_node() -> None:
    (container,) = agent(MODE, 'extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy"}]')["containers"]
    assert [each["name"] for each in container["env"]] == ["NODE_NAME", "HTTPS_PROXY"]


def test_agents_may_write_nothing_but_azvnetnodes_and_no_status() -> None:
    found = rendered(MODE)
    verbs = ("create", "list", "watch", "update")
    assert rules(found["ClusterRole", "azvnet"]) == {(verb, "azvnet.io", "azvnetnodes") for verb in verbs}
    (subject,) = found["ClusterRoleBinding", "azvnet"]["subjects"]
    assert (subject["namespace"], subject["name"]) == ("kube-system", "azvnet")


def test_the_operator_may_write_no_spec_no_node_and_no_pod() -> None:
    found = rendered(MODE)
    writing = {each for each in rules(found["ClusterRole", NAME]) if each[0] not in {"get", "list", "watch"}}
    assert writing == {("patch", "azvnet.io", "azvnetnodes/status"), ("delete", "azvnet.io", "azvnetnodes")}
    lease = {(verb, "coordination.k8s.io", f"leases/{NAME}") for verb in ("get", "update")}
    assert rules(found["Role", NAME]) == lease | {("create", "coordination.k8s.io", "leases")}
    events = found["Role", f"{NAME}-events"]
    assert events["metadata"]["namespace"] == "default"
    assert rules(events) == {("create", "", "events")}


def test_the_policy_is_about_the_agents_own_account() -> None:
    found = rendered(MODE, 'serviceAccount.name="nodes"')
    policy = found["ValidatingAdmissionPolicy", "azvnet"]["spec"]
    assert policy["failurePolicy"] == "Fail"
    (condition,) = policy["matchConditions"]
    assert condition["expression"].endswith("'system:serviceaccount:kube-system:nodes'")
    binding = found["ValidatingAdmissionPolicyBinding", "azvnet"]["spec"]
    assert binding == {"policyName": "azvnet", "validationActions": ["Deny"]}


def test_the_operator_runs_before_any_pod_has_an_address() -> None:
    spec = pod()
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "Default", "there may be no DNS server yet"
    assert spec["priorityClassName"] == "system-cluster-critical"
    tolerated = {(each["key"], each.get("effect")): each for each in spec["tolerations"]}
    for taint in ("not-ready", "network-unavailable"):
        assert "tolerationSeconds" not in tolerated[f"node.kubernetes.io/{taint}", None]
    assert tolerated["node.kubernetes.io/unreachable", "NoExecute"]["tolerationSeconds"] == 60


def test_the_operator_has_no_rights_on_its_node() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [each for each in spec["volumes"] if "hostPath" in each]


def test_two_replicas_are_on_two_nodes_and_one_of_them_stays() -> None:
    found = rendered(MODE)
    deployment = found["Deployment", NAME]["spec"]
    labels = deployment["selector"]["matchLabels"]
    assert deployment["replicas"] == 2
    assert labels.items() <= deployment["template"]["metadata"]["labels"].items()
    assert found["PodDisruptionBudget", NAME]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget", NAME]["spec"]["maxUnavailable"] == 1
    (port,) = pod()["containers"][0]["ports"]
    assert port["hostPort"] == port["containerPort"], "the scheduler keeps the two apart by it"
    # With as many nodes as replicas there is no place for a third one.
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (spread,) = pod()["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert ("PodDisruptionBudget", NAME) not in rendered(MODE, "operator.replicas=1")


def test_no_workload_of_the_chart_takes_the_pods_of_another() -> None:
    found = rendered(MODE)
    agents = found["DaemonSet", "azvnet"]["spec"]["selector"]["matchLabels"]
    labels = found["Deployment", NAME]["spec"]["template"]["metadata"]["labels"]
    assert not agents.items() <= labels.items()


def test_agent_and_operator_have_a_port_each() -> None:
    (port,) = pod()["containers"][0]["ports"]
    (other,) = agent(MODE, "metrics.enabled=true")["containers"][0]["ports"]
    assert port["hostPort"] != other["hostPort"]


def test_the_kubelet_asks_the_operator_on_the_loopback_of_the_node() -> None:
    spec = pod("operator.port=9700")
    (container,) = spec["containers"]
    assert settings("operator.port=9700")["metrics_address"] == "127.0.0.1:9700"
    for probe, path in (
        ("startupProbe", "healthz"),
        ("livenessProbe", "healthz"),
        ("readinessProbe", "readyz"),
    ):
        get = container[probe]["httpGet"]
        assert (get["host"], get["port"], get["path"]) == ("127.0.0.1", "metrics", f"/{path}")


def test_metrics_are_open_and_scraped_only_where_they_are_asked_for() -> None:
    wanted = [MODE, "metrics.enabled=true", "podMonitor.enabled=true"]
    assert ("PodMonitor", NAME) not in rendered(*wanted)
    found = rendered(*wanted, "operator.metrics.enabled=true", 'podMonitor.labels={"release":"prometheus"}')
    assert settings("operator.metrics.enabled=true")["metrics_address"] == "0.0.0.0:9632"
    for name in ("azvnet", NAME):
        (endpoint,) = found["PodMonitor", name]["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("metrics", "/metrics", "30s")
        assert found["PodMonitor", name]["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    "values",
    [
        [],
        ['operator.arm={"credential":"managed-identity","clientId":"x"}'],
        ['operator.resourceGroups=["nodes"]', "operator.graceSeconds=60.5", 'operator.logLevel="debug"'],
        ["operator.budget.share=1", "operator.workers=8", "operator.leaseSeconds=30"],
    ],
)
def test_the_operator_takes_the_settings_that_are_rendered(values: list[str], tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    path.write_text(json.dumps(settings(*values)))
    assert Settings.read(path).lease.name == NAME


def test_what_the_values_say_of_the_operator_is_in_its_settings() -> None:
    found = Settings.of(
        settings(
            'operator={"budget":{"share":0.25,"firstPollSeconds":70},"workers":9,"resourceGroups":["A"],'
            '"graceSeconds":61,"leaseSeconds":20,"logLevel":"error"}',
            'operator.arm={"clientId":"c","baseUrl":"https://arm","caFile":"/ca"}',
        )
    )
    assert (found.share, found.first_poll, found.workers, found.grace) == (0.25, 70, 9, 61)
    assert (found.resource_groups, found.lease.seconds, found.log_level) == (("a",), 20, "error")
    assert (found.arm.client_id, found.arm.base_url, found.arm.ca_file) == ("c", "https://arm", "/ca")


def test_without_values_the_operators_settings_are_its_own_defaults() -> None:
    ours, chart = Settings.of({}), Settings.of(settings())
    for name in ("arm", "share", "first_poll", "lease", "workers", "resource_groups", "grace", "log_level"):
        assert getattr(chart, name) == getattr(ours, name), name


def test_changed_settings_start_the_operator_again() -> None:
    def annotations(*values: str) -> Object:
        found: Object = rendered(MODE, *values)["Deployment", NAME]["spec"]["template"]["metadata"][
            "annotations"
        ]
        return found

    assert annotations() != annotations("operator.workers=9")
    assert annotations() == annotations('agent.logLevel="debug"')


def test_a_workload_identity_needs_no_webhook() -> None:
    """Its webhook is a pod, which may wait for an address that the operator has to add."""
    identity = '{"credential":"workload-identity","clientId":"client","tenantId":"tenant"}'
    spec = pod(f"operator.arm={identity}")
    (container,) = spec["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert (environment["AZURE_CLIENT_ID"], environment["AZURE_TENANT_ID"]) == ("client", "tenant")
    (volume,) = (each for each in spec["volumes"] if "projected" in each)
    (token,) = (each["serviceAccountToken"] for each in volume["projected"]["sources"])
    assert token["audience"] == "api://AzureADTokenExchange"
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == volume["name"])
    assert environment["AZURE_FEDERATED_TOKEN_FILE"] == f"{mount['mountPath']}/{token['path']}"
    assert "env" not in pod()["containers"][0]


def test_operator_and_product_have_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert pod()["containers"][0]["image"] == f"localhost/azvnet-operator:{version}"
    digest = "sha256:" + "0" * 64
    assert pod(f'operator.image={{"digest":"{digest}"}}')["containers"][0]["image"].endswith(f"@{digest}")


def test_long_names_stay_within_what_kubernetes_takes() -> None:
    for (kind, name), each in rendered(MODE, f'fullnameOverride="{"x" * 63}"').items():
        assert len(name) <= 63 or kind.startswith("Role"), (kind, name)
        for value in each["metadata"].get("labels", {}).values():
            assert len(value) <= 63


@pytest.mark.parametrize(
    ("values", "version", "words"),
    [
        ([], "1.31.9", "agent.provision.mode=operator needs Kubernetes 1.32 or newer, this is v1.31.9"),
        (['operator.arm.credential="workload-identity"'], "1.34.0", "needs operator.arm.clientId and"),
        (["operator.replicas=0"], "1.34.0", "at '/operator/replicas'"),
        (["operator.budget.share=2"], "1.34.0", "at '/operator/budget/share'"),
        (["operator.hostPort=1"], "1.34.0", "additional properties 'hostPort' not allowed"),
    ],
)
def test_what_can_not_work_is_refused_by_its_name(values: list[str], version: str, words: str) -> None:
    done = template(MODE, *values, check=False, version=version)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("version", ["1.32.0", "1.33.0-gke.100", "v1.34.1"])
def test_it_is_for_kubernetes_that_tells_the_node_of_a_token(version: str) -> None:
    assert "ValidatingAdmissionPolicy" in template(MODE, version=version).stdout
