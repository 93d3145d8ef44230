"""What an installation puts where, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cni_plugin.install.network import DEFAULT
from tests.install.forge import MANIFEST, Forge, number_of
from tests.install.node import Node, tree


def test_a_fresh_node_gets_versions_names_and_a_conflist(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    number = number_of(bundle)

    node.install(bundle)

    assert node.number() == node.number("azvnet-ipam") == number
    assert node.versions[number].name.startswith(f"9.{number}-")
    assert tree(node.versions[number]) == tree(bundle)
    assert node.conflist.read_bytes() == DEFAULT
    assert stat.S_IMODE(node.conflist.stat().st_mode) == 0o644
    assert not node.left_overs()


def test_a_node_without_any_of_the_folders_gets_them_readable_for_all(forge: Forge, tmp_path: Path) -> None:
    node = Node(tmp_path / "bare")
    node.root.mkdir()
    node.install(forge.bundle())  # with umask 077

    for folder in (node.prefix, node.prefix / "versions", node.bin_dir, node.conf_dir, node.bin_dir.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755, folder


def test_the_same_bundle_again_changes_nothing_and_says_so(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    node.install(bundle)
    before = {path: path.lstat().st_ino for path in node.root.rglob("*")}

    said = node.install(bundle)

    assert "nothing to do" in said
    assert {path: path.lstat().st_ino for path in node.root.rglob("*")} == before


def test_what_a_careless_copy_did_to_links_and_modes_is_right_again(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    good = tree(bundle)
    careless = bundle.with_name(f"{bundle.name}-copied")
    shutil.copytree(bundle, careless, symlinks=False)
    for path in careless.rglob("*"):
        path.chmod(0o777)
        os.chown(path, 1000, 1000)

    node.install(careless)

    assert tree(node.versions[number_of(bundle)]) == good


def test_a_damaged_version_is_replaced_by_a_whole_one(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    node.install(bundle)
    (node.versions[number_of(bundle)] / "azvnet-lib" / "again").unlink()

    node.install(bundle)

    assert node.number() == number_of(bundle)
    assert node.run("verify").returncode == 0


def test_names_that_somebody_removed_or_bent_are_put_back(forge: Forge, node: Node) -> None:
    bundle = forge.bundle()
    node.install(bundle)
    (node.bin_dir / "azvnet").unlink()
    (node.bin_dir / "azvnet-ipam").unlink()
    (node.bin_dir / "azvnet-ipam").symlink_to(node.prefix / "azvnet-ipam")

    assert "nothing to do" not in node.install(bundle)

    assert node.number() == node.number("azvnet-ipam") == number_of(bundle)


def test_as_many_versions_stay_as_were_asked_for(forge: Forge, node: Node) -> None:
    bundles = [forge.bundle() for _ in range(5)]
    for bundle in bundles:
        node.install(bundle, "--keep=3")
        node.let_rest()

    assert set(node.versions) == {number_of(bundle) for bundle in bundles[2:]}


def test_a_version_that_was_left_a_moment_ago_stays(forge: Forge, node: Node) -> None:
    first, second = forge.bundle(), forge.bundle()
    node.install(first)
    node.install(second, "--keep=1")

    assert set(node.versions) == {number_of(first), number_of(second)}


def test_a_version_that_a_process_runs_from_stays_until_it_ends(forge: Forge, node: Node) -> None:
    first, second = forge.bundle(), forge.bundle()
    node.install(first)
    with agent(node):
        node.install(second)
        node.let_rest()
        node.install(second, "--keep=1")
        assert set(node.versions) == {number_of(first), number_of(second)}

    node.install(second, "--keep=1")

    assert set(node.versions) == {number_of(second)}


def test_rollback_goes_back_to_what_was_current_and_forth_again(forge: Forge, node: Node) -> None:
    first, second = forge.bundle(), forge.bundle()
    node.install(first)
    node.install(second)

    for expected in (first, second, first):
        assert node.run("install", "--rollback").returncode == 0
        assert node.number() == number_of(expected)


def test_rollback_takes_no_version_that_never_was_current_or_is_damaged(forge: Forge, node: Node) -> None:
    first, second, third = forge.bundle(), forge.bundle(), forge.bundle()
    for bundle in (first, second):
        node.install(bundle)
    stray = node.versions[number_of(second)].with_name("9.999-abc")
    shutil.copytree(third, stray, symlinks=True)
    os.utime(stray, (0, 0))

    assert node.run("install", "--rollback").returncode == 0
    assert node.number() == number_of(first)

    (node.versions[number_of(second)] / MANIFEST).write_text("")
    done = node.run("install", "--rollback")
    assert done.returncode == 1
    assert "no other intact version" in done.stderr
    assert node.number() == number_of(first)


def test_another_plugins_conflist_is_never_overwritten(forge: Forge, node: Node) -> None:
    node.conflist.write_text('{"name": "other", "plugins": [{"type": "ptp"}]}')
    before = tree(node.root / "etc"), tree(node.bin_dir)

    done = node.run("install", f"--bundle={forge.bundle()}")

    assert done.returncode == 1
    assert "is not azvnet's" in done.stderr
    assert (tree(node.root / "etc"), tree(node.bin_dir)) == before


def test_conflists_that_the_runtime_prefers_and_plugins_that_are_missing_are_named(
    forge: Forge, node: Node
) -> None:
    (node.conf_dir / "05-cilium.conflist").write_text("{}")
    (node.bin_dir / "portmap").unlink()

    said = node.install(forge.bundle())

    assert "prefers" in said
    assert "05-cilium.conflist" in said
    assert "87-podman" not in said
    assert "portmap" in said
    assert (node.conf_dir / "05-cilium.conflist").read_text() == "{}"


def test_a_conflist_that_an_operator_changed_stays_unless_another_is_given(
    forge: Forge, node: Node, tmp_path: Path
) -> None:
    node.install(forge.bundle())
    changed = DEFAULT.replace(b'"transparent"', b'"transparent", "mtu": 1400')
    node.conflist.write_bytes(changed)

    node.install(forge.bundle())
    assert node.conflist.read_bytes() == changed

    given = tmp_path / "given"
    given.write_bytes(DEFAULT)
    node.install(forge.bundle(), f"--conflist={given}")
    assert node.conflist.read_bytes() == DEFAULT


def test_an_equal_conflist_keeps_its_inode(forge: Forge, node: Node, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(DEFAULT)
    node.install(forge.bundle(), f"--conflist={given}")
    before = node.conflist.stat().st_ino

    node.install(forge.bundle(), f"--conflist={given}")

    assert node.conflist.stat().st_ino == before


def test_a_conflist_that_would_fail_every_pod_is_refused_before_anything_is_changed(
    forge: Forge, node: Node, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_bytes(DEFAULT.replace(b'"transparent"', b'"no-such-mode"'))
    first = forge.bundle()
    node.install(first)

    done = node.run("install", f"--bundle={forge.bundle()}", f"--conflist={given}")

    assert done.returncode == 1
    assert "would fail every pod" in done.stderr
    assert node.number() == number_of(first)


def test_no_conflist_means_none(forge: Forge, node: Node) -> None:
    node.install(forge.bundle(), "--no-conflist")

    assert not node.conflist.exists()
    assert node.run("verify").returncode == 0


@contextmanager
def agent(node: Node) -> Iterator[None]:
    """A process that runs from the current version."""
    process = subprocess.Popen([node.bin_dir / "azvnet", "agent"])
    try:
        while Path(f"/proc/{process.pid}/exe").readlink().name != "azvnet-python":
            assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait()
