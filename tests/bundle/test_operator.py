"""The operator's bundle has what `azvnet operator` needs, and the nodes' bundle nothing of it."""

from __future__ import annotations

import marshal
import re
import subprocess
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.client import models

from tests.bundle.places import ROOT, Bundle, run
from tests.bundle.test_contents import import_in, imported

LOCKS = ROOT / "packaging/requirements"
NODE_BYTES = 62_000_000
"""Of all files; 60.4 MB with Python 3.11 on amd64. What makes a node's bundle larger is a decision."""
OPERATOR_BYTES = 62_000_000
EXPORTS: dict[str, str] = vars(models)["_exports"]
"""The client's types by name, each with its module: loaded when somebody names it."""
OF_THE_OPERATOR = ("cni_plugin/operator", "ipam/operator")
OF_A_NODE = {"cni_plugin.process", "cni_plugin.verbs.version", "ipam.sources.wireserver"}
"""What the operator's modules name and never load: no runtime calls it, and it has no machine's source."""


def size(bundle: Bundle) -> int:
    return sum(path.stat().st_size for path in bundle.files())


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (LOCKS / name).read_text(), re.MULTILINE))


def own_modules(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """The product's modules that are in a bundle, with their sources."""
    for top in ("cni_plugin", "ipam"):
        for compiled in sorted((bundle.contents / top).rglob("*.pyc")):
            path = compiled.relative_to(bundle.contents).with_suffix(".py")
            parts = path.with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ROOT / path


def test_a_nodes_bundle_has_no_module_of_the_operator(bundle: Bundle) -> None:
    assert not [each for each in OF_THE_OPERATOR if (bundle.contents / each).exists()]


def test_a_nodes_bundle_has_no_file_of_what_only_the_operator_needs(bundle: Bundle) -> None:
    """Also what a library would take because it is there, such as aiohttp."""
    names = locked("operator.lock") - locked("runtime.lock")
    assert "kubernetes" in names
    for name in names:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system
        for file in files:
            inside = f"{file}c" if file.suffix == ".py" else str(file)
            assert not (bundle.contents / inside).exists(), file


def test_a_nodes_bundle_is_no_larger_than_it_was_without_the_operator(bundle: Bundle) -> None:
    assert size(bundle) <= NODE_BYTES


def test_a_nodes_bundle_says_in_one_line_where_the_operator_is(bundle: Bundle) -> None:
    done = run(bundle.azvnet, {}, arguments=["operator"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "azvnet operator: not in this bundle; use the image azvnet-operator\n"


def test_the_operators_bundle_is_no_larger_than_it_was(operator_bundle: Bundle) -> None:
    assert size(operator_bundle) <= OPERATOR_BYTES


def test_the_operators_bundle_has_one_program(operator_bundle: Bundle) -> None:
    assert {path.name for path in operator_bundle.path.iterdir()} == {"azvnet", "azvnet-lib", "azvnet-python"}
    assert operator_bundle.azvnet.readlink() == Path("azvnet-python")


def test_every_module_that_the_operator_imports_is_in_its_bundle(operator_bundle: Bundle) -> None:
    own = dict(own_modules(operator_bundle))
    wanted = {name for name in map(str, own) if name.startswith("ipam.operator.")}
    assert wanted == {f"ipam.operator.{path.stem}" for path in (ROOT / "ipam/operator").glob("[a-z]*.py")}
    names = sorted({*own, *imported(own.values())} - OF_A_NODE)
    script = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = import_in(operator_bundle, script)
    assert done.returncode == 0, done.stderr
    assert not OF_A_NODE & own.keys()


def test_every_type_that_the_client_reads_or_writes_is_in_the_operators_bundle(
    operator_bundle: Bundle,
) -> None:
    """They are loaded by their names, when an answer of that type comes."""
    exports = {f"kubernetes.client.models{each}" for each in EXPORTS.values()}
    assert "kubernetes.client.models.v1_lease" in exports
    named = set()
    for compiled in (operator_bundle.contents / "kubernetes/client").rglob("*.pyc"):
        if compiled.name != "__init__.pyc":
            words = set(words_of(marshal.loads(compiled.read_bytes()[16:])))
            named |= {word for word in words if word in EXPORTS}
    assert {"V1Lease", "V1LeaseList", "V1Status"} <= named
    for name in named:
        assert (operator_bundle.contents / f"kubernetes/client/models/{EXPORTS[name][1:]}.pyc").exists(), name
    left_out = [name for name in EXPORTS if name not in named]
    assert len(left_out) > len(named), "most of the client is for others"


def words_of(code: types.CodeType) -> Iterator[str]:
    """Words of the constants and names of compiled code, and of the code in it."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from words_of(each)
        elif isinstance(each, str):
            yield from re.findall(r"\w+", each)


def test_it_has_no_second_client_for_asyncio(operator_bundle: Bundle) -> None:
    assert hasattr(client, "CoordinationV1Api")
    for name in ("kubernetes/aio", "aiohttp", "multidict", "yarl", "pyroute2", "lxml", "cni_plugin/kernel"):
        assert not (operator_bundle.contents / name).exists(), name


@pytest.mark.parametrize("arguments", [[], ["--config", "/nowhere"]])
def test_the_operator_starts_and_says_what_is_missing_in_one_line(
    operator_bundle: Bundle, arguments: list[str]
) -> None:
    done = run(operator_bundle.azvnet, {}, arguments=["operator", *arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("azvnet operator: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "install", "agent"])
def test_other_commands_are_said_to_be_in_the_other_image(operator_bundle: Bundle, command: str) -> None:
    done = run(operator_bundle.azvnet, {}, arguments=[command])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"azvnet {command}: not in the operator's image; use the image azvnet\n"


def test_it_is_the_same_version(bundle: Bundle, operator_bundle: Bundle) -> None:
    said = {run(each.azvnet, {}, arguments=["--version"]).stdout for each in (bundle, operator_bundle)}
    assert len(said) == 1


@pytest.mark.parametrize("name", ["bundle", "operator_bundle"])
def test_a_bundle_is_as_its_manifest_says(name: str, request: pytest.FixtureRequest) -> None:
    found: Bundle = request.getfixturevalue(name)
    check = ["/usr/bin/python3", str(ROOT / "packaging/manifest.py"), "check", str(found.path)]
    subprocess.run(check, check=True, timeout=60)
