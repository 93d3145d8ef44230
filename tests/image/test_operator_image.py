"""The operator's image: its bundle, what that needs, and a user without rights; and the bill of it."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.image.archive import Archive
from tests.image.conftest import ROOT, unpacked
from tests.image.test_content import LIBRARIES

IMAGE = ROOT / "dist/azvnet-operator-image.tar"
BUNDLE = "usr/lib/azvnet"
USER = 65532
AS_IN_A_POD = (
    'mount --bind "$1" "$1"; mount --bind /proc "$1/proc"; mount -o remount,ro,bind "$1"; cd "$1"; shift; '
    f'exec chroot --userspec={USER}:{USER} --groups={USER} . "$@"'
)


@pytest.fixture(scope="module")
def archive() -> Archive:
    assert IMAGE.exists(), "run: make operator-image"
    return Archive.read(IMAGE)


@pytest.fixture(scope="module")
def rootfs(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(archive, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def members(archive: Archive) -> dict[str, tarfile.TarInfo]:
    with archive.layer() as layer:
        return {member.name: member for member in layer.getmembers()}


@pytest.fixture(scope="module")
def bill(rootfs: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((rootfs / "usr/share/azvnet/sbom.cdx.json").read_text())
    return loaded


def test_it_is_run_by_a_user_without_rights(archive: Archive, rootfs: Path) -> None:
    config = archive.configuration["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/usr/bin/azvnet"]
    assert config["Labels"]["org.opencontainers.image.title"] == "azvnet-operator"
    assert f"azvnet:x:{USER}:{USER}:" in (rootfs / "etc/passwd").read_text()


def test_the_name_of_the_image_is_that_of_the_chart(archive: Archive) -> None:
    version = json.loads((ROOT / "build/operator-image/about.json").read_text())["name"].rpartition(":")[2]
    assert archive.index["manifests"][0]["annotations"]["io.containerd.image.name"] == (
        f"localhost/azvnet-operator:{version}"
    )


def test_there_is_one_program_and_nothing_of_a_node(members: dict[str, tarfile.TarInfo]) -> None:
    programs = {name for name, member in members.items() if member.isfile() and member.mode & 0o111}
    others = {name for name in programs if not name.startswith(f"{BUNDLE}/azvnet-lib/") or ".so" not in name}
    libraries = {name for name in others if re.fullmatch(r"usr/lib/[a-z0-9_]+-linux-gnu/[^/]+", name)}
    assert {Path(name).name for name in libraries} - LIBRARIES == {"ld-linux-x86-64.so.2"}
    assert others - libraries == {f"{BUNDLE}/azvnet-python"}
    assert {name for name in members if name.startswith("usr/bin/")} == {"usr/bin/azvnet"}
    for absent in (
        "host",
        "etc/cni",
        "run/azvnet",
        "var/log",
        f"{BUNDLE}/azvnet-probe",
        f"{BUNDLE}/azvnet-ipam",
    ):
        assert absent not in members


def test_nobody_but_root_may_write_anything(members: dict[str, tarfile.TarInfo]) -> None:
    for name, member in members.items():
        assert (member.uid, member.gid) == (0, 0), name
        assert not member.mode & (stat.S_ISUID | stat.S_ISGID), name
        if name != "tmp" and not member.issym():
            assert not member.mode & 0o022, name
            assert member.mode & 0o004, name


def test_it_runs_as_that_user_with_a_root_that_can_not_be_written(rootfs: Path) -> None:
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--net",
            "sh",
            "-ec",
            AS_IN_A_POD,
            "sh",
            rootfs,
            "/usr/bin/azvnet",
            "operator",
        ],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.startswith("azvnet operator: no kubeconfig, and not in a pod"), done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_bundle_is_as_its_manifest_says(rootfs: Path) -> None:
    check = ["/usr/bin/python3", str(ROOT / "packaging/manifest.py"), "check", str(rootfs / BUNDLE)]
    subprocess.run(check, check=True, timeout=60)


def test_its_bill_is_one_by_the_rules_and_lies_beside_it(rootfs: Path) -> None:
    text = IMAGE.with_suffix(".cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert (rootfs / "usr/share/azvnet/sbom.cdx.json").read_text() == text


def test_every_file_is_in_the_bill_once_with_its_hash(bill: dict[str, Any], rootfs: Path) -> None:
    listed = [
        (file["name"], file["hashes"][0]["content"])
        for each in bill["components"]
        for file in each["components"]
    ]
    real = {
        f"/{path.relative_to(rootfs)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in rootfs.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    del real["/usr/share/azvnet/sbom.cdx.json"]
    assert dict(listed) == real
    assert len(listed) == len(real)


def test_python_distributions_are_those_of_the_operators_lock(bill: dict[str, Any]) -> None:
    lock = (ROOT / "packaging/requirements/operator.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    found = {
        each["name"]: each["version"]
        for each in bill["components"]
        if each.get("purl", "").startswith("pkg:pypi/") and each["name"] != "pyinstaller"
    }
    assert found.items() <= locked.items()
    assert {"kubernetes", "azure-identity", "prometheus-client", "pyyaml"} <= found.keys()
    assert not {"aiohttp", "lxml", "pyroute2"} & found.keys()
    assert all(
        each["licenses"] for each in bill["components"] if each.get("purl", "").startswith("pkg:pypi/")
    )


def test_no_static_library_is_said_to_be_in_it(bill: dict[str, Any]) -> None:
    (own,) = (each for each in bill["dependencies"] if each["ref"] == "azvnet:azvnet")
    assert not own.get("dependsOn")
    assert "musl-dev" not in {each["name"] for each in bill["components"]}
