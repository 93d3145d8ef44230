"""From a container: whether the node's own C library is new enough, which a trial there can't tell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.install.forge import Forge, seal
from tests.install.node import Node, tree

LIBRARIES = {
    "debian": "usr/lib/x86_64-linux-gnu",
    "fedora": "usr/lib64",
    "not merged": "lib64",
}


def own_libc() -> Path:
    """This machine's."""
    listed = subprocess.run(["ldd", "/bin/ls"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libc\.so\.6 => (\S+)", listed)
    assert found
    return Path(found[1])


def node_with_glibc(tmp_path: Path, folder: str, version: str) -> Node:
    """A root with a library that says to be of this version, and another architecture's before it."""
    root = tmp_path / "host"
    (root / "usr/lib/i386-linux-gnu").mkdir(parents=True)
    (root / folder).mkdir(parents=True)
    content = own_libc().read_bytes()
    own = re.search(rb"GNU C Library [^\0\n]* version (\d+\.\d+)", content)
    assert own
    said = own[0][: -len(own[1])] + version.encode().ljust(len(own[1]))
    (root / folder / "libc.so.6").write_bytes(content.replace(own[0], said))
    foreign = bytearray(content)
    foreign[18:20] = (3).to_bytes(2, "little")  # e_machine of i386
    (root / "usr/lib/i386-linux-gnu/libc.so.6").write_bytes(bytes(foreign).replace(own[1], b"1.00"))
    return Node(root)


def bundle_that_needs(forge: Forge, version: str) -> Path:
    bundle = forge.bundle()
    library = bundle / "azvnet-lib" / "libneeds.so.1"
    library.write_bytes(b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.4\0GLIBC_" + version.encode() + b"\0")
    return seal(bundle)


def places(node: Node) -> list[str]:
    return [f"--root={node.root}", "--prefix=/opt/azvnet", "--bin-dir=/opt/cni/bin", "--no-conflist"]


@pytest.mark.parametrize("folder", LIBRARIES.values(), ids=LIBRARIES)
def test_a_node_whose_c_library_is_too_old_is_refused_and_left_as_it_was(
    folder: str, forge: Forge, tmp_path: Path
) -> None:
    node = node_with_glibc(tmp_path, folder, "2.31")
    before = tree(node.root)

    done = node.run("install", f"--bundle={bundle_that_needs(forge, '2.35')}", *places(node))

    assert done.returncode == 1
    assert f"the node's C library is glibc 2.31 (/{folder}/libc.so.6), the bundle needs 2.35" in done.stderr
    assert tree(node.root) == before


@pytest.mark.parametrize("version", ["2.35", "2.36", "3.1"])
def test_one_that_is_new_enough_is_taken_without_a_word(version: str, forge: Forge, tmp_path: Path) -> None:
    node = node_with_glibc(tmp_path, "usr/lib64", version)

    said = node.install(bundle_that_needs(forge, "2.35"), *places(node))

    assert "C library" not in said
    assert "note" not in said


def test_where_it_can_not_be_seen_that_is_said(forge: Forge, tmp_path: Path) -> None:
    root = tmp_path / "host"
    root.mkdir()

    said = Node(root).install(bundle_that_needs(forge, "2.35"), *places(Node(root)))

    assert "note: cannot find libc.so.6 under" in said


def test_the_real_bundle_knows_what_it_needs(tmp_path: Path) -> None:
    from cni_plugin.install.bundle import Bundle
    from cni_plugin.install.libc import _numbers_needed
    from integration.plugins import bundle

    assert max(_numbers_needed(Bundle.read(bundle()))) <= (2, 35)
    assert max(_numbers_needed(Bundle.read(bundle()))) >= (2, 30)
