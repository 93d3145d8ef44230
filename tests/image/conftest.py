"""The built images, read and unpacked."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.image.archive import Archive

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "dist/azvnet-image.tar"


@pytest.fixture(scope="session")
def archive() -> Archive:
    assert IMAGE.exists(), "run: make image"
    return Archive.read(IMAGE)


@pytest.fixture(scope="session")
def rootfs(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in it, as a folder."""
    return unpacked(archive, tmp_path_factory.mktemp("image"))


def unpacked(archive: Archive, place: Path) -> Path:
    """What is in an image, as a folder in that place."""
    folder = place / "rootfs"
    folder.mkdir(mode=0o755)
    unpack = ["tar", "--extract", "--gzip", "--same-permissions", f"--directory={folder}"]
    subprocess.run(unpack, input=archive.blob(archive.manifest["layers"][0]), check=True)
    return folder


@pytest.fixture(scope="session")
def members(archive: Archive) -> dict[str, tarfile.TarInfo]:
    """Its files, folders and links by path."""
    with archive.layer() as layer:
        return {member.name: member for member in layer.getmembers()}


@pytest.fixture(scope="session")
def about() -> dict[str, str]:
    """What the build said of it."""
    loaded: dict[str, str] = json.loads((ROOT / "build/image/about.json").read_text())
    return loaded
