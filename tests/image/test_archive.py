"""The archive is what runtimes and registries take, and the same whenever and wherever it is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.archive import Archive
from tests.image.conftest import IMAGE, ROOT
from tests.install.forge import seal

BUILD = ROOT / "packaging/image/build.sh"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def build(output: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build into a place of the test's own; the built image stays as it is."""
    return subprocess.run(
        [BUILD, "--output", output, *arguments],
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_it_is_the_same_from_a_copy_of_the_bundle_elsewhere_at_another_time(tmp_path: Path) -> None:
    copied = tmp_path / "another place" / "bundle"
    shutil.copytree(ROOT / "dist/azvnet", copied, symlinks=True)
    for path in copied.rglob("*.pyc"):
        os.utime(path, (1e9, 1e9))

    done = build(
        tmp_path / "again.tar",
        "--bundle",
        copied,
        TZ="Pacific/Auckland",
        LANG="tr_TR.UTF-8",
        PYTHONHASHSEED="7",
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.tar").read_bytes() == IMAGE.read_bytes()
    assert (tmp_path / "again.cdx.json").read_bytes() == IMAGE.with_suffix(".cdx.json").read_bytes()


def test_nothing_is_built_again_while_no_input_has_changed() -> None:
    before = IMAGE.stat()
    done = subprocess.run([BUILD], capture_output=True, text=True, timeout=110, check=True)
    assert "is up to date" in done.stdout
    assert IMAGE.stat().st_mtime_ns == before.st_mtime_ns


def test_the_name_and_the_revision_are_the_builders_choice(tmp_path: Path, archive: Archive) -> None:
    name = "registry.example:5000/team/azvnet:1.2.3-rc.1"
    done = build(tmp_path / "named.tar", "--name", name, "--revision", "0123abcd")
    assert done.returncode == 0, done.stderr
    named = Archive.read(tmp_path / "named.tar")
    assert json.loads(named.files["manifest.json"])[0]["RepoTags"] == [name]
    assert named.index["manifests"][0]["annotations"]["io.containerd.image.name"] == name
    assert named.configuration["config"]["Labels"]["org.opencontainers.image.revision"] == "0123abcd"
    assert "org.opencontainers.image.revision" not in archive.configuration["config"]["Labels"]


def test_both_formats_lead_to_the_same_image(archive: Archive, about: dict[str, str]) -> None:
    (docker,) = json.loads(archive.files["manifest.json"])
    (described,) = archive.index["manifests"]
    name = f"localhost/azvnet:{VERSION}"
    assert docker["RepoTags"] == [name]
    assert described["annotations"]["io.containerd.image.name"] == name
    assert json.loads(archive.files[docker["Config"]]) == archive.configuration
    assert archive.files[docker["Layers"][0]] == archive.blob(archive.manifest["layers"][0])
    assert json.loads(archive.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert about["digest"] == described["digest"]
    assert len(archive.files) == 3 + 3, "three blobs, and three files that lead to them"


def test_it_says_what_it_is(archive: Archive) -> None:
    config = archive.configuration
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert (config["os"], config["architecture"]) == ("linux", machine)
    assert archive.index["manifests"][0]["platform"] == {"os": "linux", "architecture": machine}
    assert config["config"]["Entrypoint"] == ["/usr/bin/azvnet"]
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "azvnet"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.search(r"\blibc6=\S+", labels["azvnet.base.packages"])


def test_nothing_in_it_is_of_this_machine_or_of_now(
    archive: Archive, members: dict[str, tarfile.TarInfo]
) -> None:
    assert {member.mtime for member in members.values()} == {315532800}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members.values()} == {
        (0, 0, "", "")
    }
    with archive.layer() as layer:
        text = b"".join(
            file.read()
            for member in layer.getmembers()
            if member.isfile() and (file := layer.extractfile(member))
        )
    assert str(ROOT).encode() not in text


def stray(bundle: Path) -> None:
    (bundle / "azvnet-lib/stray.pyc").write_text("?")


def stray_and_sealed(bundle: Path) -> None:
    stray(bundle)
    seal(bundle)


def no_program(bundle: Path) -> None:
    (bundle / "azvnet-python").write_text("#!/bin/sh")
    seal(bundle)


def no_library(bundle: Path) -> None:
    (bundle / "azvnet-lib/libz.so.1").unlink()


def no_manifest(bundle: Path) -> None:
    (bundle / "azvnet-lib/MANIFEST").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (stray, "is not as its manifest says, not expected:"),
        (stray_and_sealed, "not known where stray.pyc of the bundle comes from"),
        (no_program, "is not an ELF program for"),
        (no_library, "is not as its manifest says, missing or changed:"),
        (no_manifest, "is not as its manifest says"),
    ],
)
def test_a_bundle_that_is_not_right_gives_no_image(
    spoil: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(ROOT / "dist/azvnet", copied, symlinks=True)
    spoil(copied)

    done = build(tmp_path / "never.tar", "--bundle", copied)

    assert done.returncode == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == [copied]
