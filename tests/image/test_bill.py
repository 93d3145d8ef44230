"""The bill of materials is true: every file once, with its hash, by who really made it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.image.conftest import IMAGE, ROOT

Json = dict[str, Any]
INSIDE = "usr/share/azvnet/sbom.cdx.json"


@pytest.fixture(scope="module")
def text() -> str:
    return IMAGE.with_suffix(".cdx.json").read_text()


@pytest.fixture(scope="module")
def components(text: str) -> list[Json]:
    loaded: list[Json] = json.loads(text)["components"]
    return loaded


def test_it_is_a_bill_by_the_rules(text: str) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem


def test_the_image_carries_the_same_one(text: str, rootfs: Path) -> None:
    assert (rootfs / INSIDE).read_text() == text


def test_every_file_is_in_it_once_with_its_hash(components: list[Json], rootfs: Path) -> None:
    listed = [
        (file["name"], file["hashes"][0]["content"]) for each in components for file in each["components"]
    ]
    assert [name for name, times in Counter(name for name, _ in listed).items() if times > 1] == []
    real = {
        f"/{path.relative_to(rootfs)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in rootfs.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    del real[f"/{INSIDE}"]
    assert dict(listed) == real


def test_debian_packages_are_those_of_this_machine(components: list[Json]) -> None:
    packages = [each for each in components if each.get("purl", "").startswith("pkg:deb/")]
    names = {each["name"] for each in packages}
    assert {"libc6", "musl-dev", "libssl3", "libsqlite3-0", "zlib1g"} <= names
    for each in packages:
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", each["name"]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert each["version"] == shown
    (glibc,) = (each for each in packages if each["name"] == "libc6")
    assert any(file["name"].endswith("/libc.so.6") for file in glibc["components"])


def test_what_is_linked_statically_is_named(text: str) -> None:
    (own,) = (each for each in json.loads(text)["dependencies"] if each["ref"] == "azvnet:azvnet")
    assert [ref.split("@")[0] for ref in own["dependsOn"]] == ["pkg:deb/debian/musl-dev"]


def test_what_wheels_have_linked_in_is_named(text: str) -> None:
    """OpenSSL is in the image twice: Debian's, and the one in the wheel of ``cryptography``."""
    bill = json.loads(text)
    parts = {each["bom-ref"]: each for each in bill["components"]}
    needs = {each["ref"].split("@")[0]: each["dependsOn"] for each in bill["dependencies"]}
    for wheel, library in (("cryptography", "pkg:generic/openssl"), ("pydantic-core", "pkg:cargo/regex")):
        (found,) = (ref for ref in needs[f"pkg:pypi/{wheel}"] if ref.split("@")[0] == library)
        assert parts[found]["version"]


def test_every_package_of_the_image_is_upgraded_before(components: list[Json]) -> None:
    script = (ROOT / "packaging/upgrade.sh").read_text()
    patterns = script.split("embedded='")[1].split("'")[0].split()
    for each in components:
        if each.get("purl", "").startswith("pkg:deb/"):
            assert any(fnmatchcase(each["name"], pattern) for pattern in patterns), each["name"]


def test_python_distributions_are_those_of_the_lock_with_its_hashes(components: list[Json]) -> None:
    locked: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    name = ""
    for line in (ROOT / "packaging/requirements/runtime.lock").read_text().splitlines():
        if match := re.match(r"([a-z0-9-]+)==([^ ;\\]+)", line):
            name, locked[match[1]] = match[1], match[2]
        hashes.setdefault(name, set()).update(re.findall(r"sha256:([0-9a-f]{64})", line))
    listed = {each["name"]: each for each in components if each.get("purl", "").startswith("pkg:pypi/")}
    assert listed.keys() - {"pyinstaller"} <= locked.keys(), "nothing that is for development alone"
    assert {"azure-identity", "pydantic-core", "pyroute2", "requests"} <= listed.keys()
    for name, each in listed.items():
        if name != "pyinstaller":
            assert each["version"] == locked[name]
            assert {found["value"] for found in each["properties"]} == hashes[name]
        assert each["licenses"], name
        assert each["components"], name


def test_ours_is_what_is_nobody_elses(components: list[Json]) -> None:
    (own,) = (each for each in components if each["bom-ref"] == "azvnet:azvnet")
    names = {file["name"] for file in own["components"]}
    assert {"/usr/lib/azvnet/azvnet", "/usr/lib/azvnet/azvnet-probe", "/etc/nsswitch.conf"} <= names
    for name in names:
        if name.startswith("/usr/lib/azvnet/azvnet-lib/"):
            assert re.match(r"/usr/lib/azvnet/azvnet-lib/(cni_plugin/|conf/|ipam/|MANIFEST$)", name), name
