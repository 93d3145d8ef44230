"""Ways a bundle comes onto a node: whatever copies it, it is the same and it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle.places import ROOT, Bundle, is_version_reply, run


def _cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def _tar(source: Path, target: Path) -> None:
    archive = target.with_suffix(".tar")
    subprocess.run(["tar", "-C", source.parent, "-cf", archive, source.name], check=True)
    target.parent.joinpath("out").mkdir()
    subprocess.run(["tar", "-C", target.parent / "out", "-xpf", archive], check=True)
    (target.parent / "out" / source.name).rename(target)


def _image_layer(source: Path, target: Path) -> None:
    """As container images carry files: gzip'd tar, extracted by another implementation."""
    archive = target.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as layer:
        layer.add(source, arcname="opt/azvnet")
    with tarfile.open(archive) as layer:
        layer.extraction_filter = lambda member, _: member  # our own archive, taken as it is
        layer.extractall(target.parent / "layer")
    (target.parent / "layer" / "opt" / "azvnet").rename(target)


def _rename(source: Path, target: Path) -> None:
    _cp(source, target.with_name("first"))
    target.with_name("first").rename(target)


def _check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "packaging/manifest.py", "check", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("copy", [_cp, _tar, _image_layer, _rename])
def test_a_copy_is_the_same_and_runs(
    bundle: Bundle, scratch: Path, copy: Callable[[Path, Path], None]
) -> None:
    target = Bundle(scratch / "node")
    copy(bundle.path, target.path)
    assert _check(target.path).returncode == 0, _check(target.path).stderr
    for program in (target.azvnet, target.ipam, target.python):
        assert is_version_reply(run(program))


def test_links_are_relative_and_stay_in_the_bundle(bundle: Bundle) -> None:
    links = [path for path in bundle.path.rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        assert not link.readlink().is_absolute()
        assert bundle.path.resolve() in link.resolve().parents


def test_a_link_from_elsewhere_runs_with_the_contents_of_the_bundle(bundle: Bundle, scratch: Path) -> None:
    """How /opt/cni/bin holds it when the bundle lives in a directory of its own."""
    for name in ("azvnet", "azvnet-ipam"):
        (scratch / name).symlink_to(bundle.path / name)
        assert is_version_reply(run(scratch / name))


def test_a_relative_path_and_a_deleted_working_directory_do_no_harm(bundle: Bundle, scratch: Path) -> None:
    assert is_version_reply(run("./azvnet-python", cwd=bundle.path))
    gone = scratch / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f'cd "{gone}" && rmdir "{gone}" && exec "{bundle.python}"'],
        env={"CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert is_version_reply(done)


def _lose_a_module(path: Path) -> None:
    (path / "azvnet-lib" / "ipam" / "pool.pyc").unlink()


def _change_a_byte(path: Path) -> None:
    file = path / "azvnet-lib" / "cni_plugin" / "cni" / "contract.pyc"
    file.write_bytes(file.read_bytes()[:-1] + b"!")


def _follow_a_link(path: Path) -> None:
    target = (path / "azvnet-ipam").resolve()
    (path / "azvnet-ipam").unlink()
    shutil.copy2(target, path / "azvnet-ipam")


def _lose_a_mode(path: Path) -> None:
    (path / "azvnet-python").chmod(0o644)


def _add_a_file(path: Path) -> None:
    (path / "azvnet-lib" / "sitecustomize.pyc").write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [_lose_a_module, _change_a_byte, _follow_a_link, _lose_a_mode, _add_a_file]
)
def test_the_manifest_finds_a_bad_copy(bundle: Bundle, scratch: Path, damage: Callable[[Path], None]) -> None:
    target = scratch / "node"
    _cp(bundle.path, target)
    damage(target)
    done = _check(target)
    assert done.returncode == 1
    assert done.stderr
