"""The role, the Bicep and the Terraform of conf/azure say what the emulator enforces, and fit together.

Both are parsed with their grammars, and resources and arguments are compared with those that Azure and the
provider document. Types are not checked: that takes the Bicep compiler, which is published for .NET only, or
the provider, a build of its own with all SDKs of Azure.
"""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from lark.exceptions import UnexpectedInput
from pycep import BicepParser

from integration.fabric import armroles

ROOT = Path(__file__).parents[2]
AZURE = ROOT / "conf/azure"
BICEP = AZURE / "bicep"
TERRAFORM = AZURE / "terraform"
PAGES = [ROOT / "docs/provisioning.md", ROOT / "docs/kubernetes.md"]
UNIFORM = {
    f"{armroles.INSTANCE}/read",
    f"{armroles.INSTANCE}/write",
    f"{armroles.INSTANCE_NIC}/read",
}
ROLES = {"role.json": armroles.NIC_WRITER, "role-uniform.json": armroles.NIC_WRITER | UNIFORM}
SUBJECT = "system:serviceaccount:{}:{}"
AUDIENCE = "api://AzureADTokenExchange"

RESOURCES = {
    "Microsoft.Authorization/roleDefinitions@2022-04-01",
    "Microsoft.Authorization/roleAssignments@2022-04-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31",
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31",
}
"""Types with API versions of Azure's template reference."""

ARGUMENTS = {
    "azurerm_role_definition": {"name", "description", "scope", "assignable_scopes", "permissions"},
    "azurerm_user_assigned_identity": {"name", "resource_group_name", "location"},
    "azurerm_federated_identity_credential": {
        "name",
        "resource_group_name",
        "parent_id",
        "issuer",
        "subject",
        "audience",
    },
    "azurerm_role_assignment": {"scope", "role_definition_id", "principal_id", "principal_type"},
}
"""Arguments of the provider's documentation, version 4."""
META = {"count", "for_each"}

Json = dict[str, Any]


@pytest.mark.parametrize("name", ROLES)
def test_a_role_has_the_actions_with_which_the_emulator_lets_azvnet_work_and_no_other(name: str) -> None:
    role = json.loads((AZURE / name).read_text())
    assert set(role["Actions"]) == ROLES[name]
    assert len(role["Actions"]) == len(set(role["Actions"]))
    assert role.keys() == {"Name", "Description", "Actions", "AssignableScopes"}
    assert not [each for each in role["Actions"] if "*" in each]


def test_the_role_of_the_page_is_that_of_the_file() -> None:
    (shown,) = re.findall(r"```json\n(\{\n.*?)```", PAGES[0].read_text(), re.DOTALL)
    assert json.loads(shown) == json.loads((AZURE / "role.json").read_text())


def plain(path: Path) -> str:
    """A Bicep file without comments and descriptions."""
    text = re.sub(r"^ *//.*$", "", path.read_text(), flags=re.MULTILINE)
    return re.sub(r"^@description\('.*'\)$", "", text, flags=re.MULTILINE)


@cache
def bicep(path: Path) -> Json:
    """A Bicep file, parsed."""
    found: Json = dict(BicepParser().parse(file_path=path))
    return found


def params(path: Path) -> dict[str, bool]:
    """The parameters of a Bicep file, and whether each has a default."""
    return {name: each["default"] is not None for name, each in bicep(path)["parameters"].items()}


BICEPS = sorted(BICEP.glob("*.bicep"))


@pytest.mark.parametrize("path", BICEPS, ids=lambda path: path.name)
def test_a_bicep_file_is_what_the_grammar_allows_and_the_parser_reads_all_of_it(path: Path) -> None:
    kinds = {"param": "parameters", "var": "variables", "resource": "resources", "module": "modules"}
    declared = re.findall(r"^(param|var|resource|module|output) (\w+)", plain(path), re.MULTILINE)
    for kind, section in {**kinds, "output": "outputs"}.items():
        assert list(bicep(path).get(section, {})) == [name for each, name in declared if each == kind]


def test_the_parser_refuses_what_is_not_bicep(tmp_path: Path) -> None:
    """Or the test before says nothing."""
    path = tmp_path / "broken.bicep"
    path.write_text((BICEP / "identity.bicep").read_text().replace(" = {", " = ", 1))
    with pytest.raises(UnexpectedInput):
        bicep(path)


@pytest.mark.parametrize("path", BICEPS, ids=lambda path: path.name)
def test_every_parameter_of_a_bicep_file_is_used(path: Path) -> None:
    text = plain(path)
    for name in params(path):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, name


def test_bicep_makes_the_resources_that_azure_documents() -> None:
    made = [each for path in BICEPS for each in bicep(path)["resources"].values()]
    types = [f"{each['type']}@{each['api_version']}" for each in made]
    assert set(types) == RESOURCES
    assert len(types) == len(RESOURCES)


def test_every_module_of_bicep_is_given_its_parameters() -> None:
    modules = bicep(BICEP / "main.bicep")["modules"].values()
    assert {each["detail"]["path"] for each in modules} == {path.name for path in BICEPS} - {"main.bicep"}
    for each in modules:
        body = each["config"].get("config", each["config"])  # that of a loop is within it
        assert body["params"].keys() == params(BICEP / each["detail"]["path"]).keys()


def test_what_bicep_takes_from_a_module_is_one_of_its_outputs() -> None:
    taken = set(re.findall(r"\bidentity\.outputs\.(\w+)", plain(BICEP / "main.bicep")))
    assert taken == bicep(BICEP / "identity.bicep")["outputs"].keys()


def test_bicep_and_terraform_read_the_roles_of_the_files() -> None:
    text = plain(BICEP / "main.bicep")
    assert {(BICEP / each).resolve() for each in re.findall(r"loadJsonContent\('([^']+)'\)", text)} == {
        AZURE / each for each in ROLES
    }
    assert "actions: union(role.Actions, joins)" in text
    (locals_,) = blocks("main.tf", "locals")
    assert '${var.uniform ? "role-uniform" : "role"}.json' in locals_["role"]
    assert "${path.module}/../" in locals_["role"]
    for permissions in resources()["azurerm_role_definition"]["permissions"]:
        assert permissions["actions"] == "${distinct(concat(local.role.Actions, var.joins))}"
    text += (TERRAFORM / "main.tf").read_text()
    assert "Microsoft.Network/" not in text, "no action beside those of the files"


@cache
def parsed(name: str) -> Json:
    with (TERRAFORM / name).open() as file:
        found: Json = hcl2.load(file)
    return found


def blocks(name: str, kind: str) -> list[Json]:
    """Blocks of a Terraform file without labels."""
    return [{key: value for key, value in each.items() if key[:2] != "__"} for each in parsed(name)[kind]]


def labelled(name: str, kind: str) -> dict[str, Json]:
    """Blocks with one label."""
    return {json.loads(label): body for each in blocks(name, kind) for label, body in each.items()}


def resources() -> dict[str, Json]:
    """By type; there is one of each."""
    return {
        json.loads(kind): {key: value for key, value in body.items() if key[:2] != "__"}
        for each in blocks("main.tf", "resource")
        for kind, named in each.items()
        for name, body in named.items()
        if name[:2] != "__"
    }


def test_terraform_gives_the_arguments_that_its_provider_documents() -> None:
    found = resources()
    assert found.keys() == ARGUMENTS.keys()
    for kind, body in found.items():
        assert body.keys() - META == ARGUMENTS[kind], kind
    (needed,) = blocks("main.tf", "terraform")
    assert json.loads(needed["required_providers"][0]["azurerm"]["version"]) == "~> 4.0"


def test_terraform_uses_every_variable_and_declares_every_one_it_uses() -> None:
    text = "".join((TERRAFORM / name).read_text() for name in ("main.tf", "outputs.tf"))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == labelled("variables.tf", "variable").keys()


def test_terraform_refers_to_resources_that_it_makes() -> None:
    text = "".join((TERRAFORM / name).read_text() for name in ("main.tf", "outputs.tf"))
    made = {f"{kind}.{name}" for kind, name in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE)}
    assert set(re.findall(r"\b(azurerm_\w+\.\w+)\.", text)) <= made


def test_both_trust_the_service_account_of_the_chart() -> None:
    values = yaml.safe_load((ROOT / "packaging/helm/azvnet/values.yaml").read_text())
    assert values["operator"]["serviceAccount"]["name"] == ""
    credential = resources()["azurerm_federated_identity_credential"]
    assert json.loads(credential["subject"]) == SUBJECT.format("${var.namespace}", "${var.service_account}")
    assert [json.loads(each) for each in credential["audience"]] == [AUDIENCE]
    variables = labelled("variables.tf", "variable")
    assert json.loads(variables["service_account"]["default"]) == "azvnet-operator"
    assert json.loads(variables["namespace"]["default"]) == "kube-system"
    text = plain(BICEP / "identity.bicep")
    assert f"'{SUBJECT.format('${namespace}', '${serviceAccount}')}'" in text
    assert f"'{AUDIENCE}'" in text
    main = (BICEP / "main.bicep").read_text()
    assert "param serviceAccount string = 'azvnet-operator'" in main
    assert "param namespace string = 'kube-system'" in main


def test_without_an_issuer_there_is_no_federated_credential() -> None:
    """For provision.mode node: the identity is a machine's."""
    assert resources()["azurerm_federated_identity_credential"]["count"] == '${var.issuer == "" ? 0 : 1}'
    assert "= if (!empty(issuer)) {" in plain(BICEP / "identity.bicep")


def shown(program: str) -> list[list[str]]:
    """The commands of the pages that call a program, as words."""
    blocks = [
        block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for words in map(shlex.split, lines) if words[:1] == [program]]


def test_the_page_gives_bicep_what_it_needs() -> None:
    (command,) = (each for each in shown("az") if each[1] == "deployment")
    file = ROOT / command[command.index("--template-file") + 1]
    given = {each.partition("=")[0] for each in command[command.index("--parameters") + 1 :]}
    declared = params(file)
    assert {name for name, optional in declared.items() if not optional} <= given <= declared.keys()


def test_the_page_gives_terraform_what_it_needs() -> None:
    (command,) = (each for each in shown("terraform") if "apply" in each)
    given = {command[at + 1].partition("=")[0] for at, word in enumerate(command) if word == "-var"}
    variables = labelled("variables.tf", "variable")
    assert {name for name, each in variables.items() if "default" not in each} <= given <= variables.keys()
    assert f"-chdir={TERRAFORM.relative_to(ROOT)}" in command


def test_the_pages_commands_of_az_trust_the_service_account_of_the_chart() -> None:
    (command,) = (each for each in shown("az") if each[1:3] == ["identity", "federated-credential"])
    assert command[command.index("--subject") + 1] == SUBJECT.format("kube-system", "azvnet-operator")
    assert command[command.index("--audiences") + 1] == AUDIENCE
