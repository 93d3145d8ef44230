"""``azvnet verify`` finds whatever is not as it was installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_plugin.install.network import DEFAULT
from tests.install.forge import Forge
from tests.install.node import Node, tree

Harm = Callable[[Node, Path], object]


def change(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def bend(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


HARM: dict[str, tuple[Harm, str]] = {
    "content": (
        lambda node, at: change(at / "azvnet-lib/deep/file"),
        "deep/file: has different content",
    ),
    "mode": (lambda node, at: (at / "azvnet-python").chmod(0o777), "has mode 0777 instead of 0755"),
    "owner": (lambda node, at: os.chown(at / "azvnet-lib/version", 1, 0), "belongs to 1:0"),
    "owner of a link": (
        lambda node, at: os.chown(at / "azvnet-ipam", 0, 1, follow_symlinks=False),
        "azvnet-ipam: belongs to 0:1",
    ),
    "file lost": (lambda node, at: (at / "azvnet-lib/deep/file").unlink(), "deep/file: is missing"),
    "file too many": (
        lambda node, at: (at / "azvnet-lib/more").touch(),
        "more: not of this version",
    ),
    "link inside": (lambda node, at: bend(at / "azvnet-ipam", "azvnet-python"), "leads to azvnet-python"),
    "manifest": (lambda node, at: (at / "azvnet-lib/MANIFEST").unlink(), "is not a bundle"),
    "folder": (lambda node, at: (node.prefix / "versions").chmod(0o777), "others besides root can write"),
    "current": (lambda node, at: (node.prefix / "current").unlink(), "does not lead to a version"),
    "current elsewhere": (
        lambda node, at: bend(node.prefix / "current", "/etc"),
        "does not lead to a version",
    ),
    "name lost": (lambda node, at: (node.bin_dir / "azvnet").unlink(), "bin/azvnet: is missing"),
    "name bent": (lambda node, at: bend(node.bin_dir / "azvnet-ipam", "/bin/true"), "leads to /bin/true"),
    "conflist lost": (lambda node, at: node.conflist.unlink(), "10-azvnet.conflist: is missing"),
    "conflist garbled": (lambda node, at: node.conflist.write_bytes(DEFAULT[:50]), "is not valid JSON"),
    "conflist invalid": (
        lambda node, at: node.conflist.write_bytes(DEFAULT.replace(b"transparent", b"opaque")),
        "would fail every pod",
    ),
    "conflist delegates to azvnet": (
        lambda node, at: node.conflist.write_bytes(DEFAULT.replace(b'"azvnet-ipam"', b'"azvnet"')),
        "this plugin itself",
    ),
    "record": (
        lambda node, at: (node.prefix / "installed.json").write_text("{"),
        "can't be read",
    ),
}


@pytest.mark.parametrize("case", HARM)
def test_each_thing_that_is_wrong_has_a_line_with_its_remedy(case: str, forge: Forge, node: Node) -> None:
    harm, words = HARM[case]
    node.install(forge.bundle())
    (current,) = node.versions.values()
    assert node.run("verify").returncode == 0
    harm(node, current)
    before = tree(node.root)

    done = node.run("verify")

    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong: ")]
    assert any(words in line for line in wrong), done.stdout
    assert tree(node.root) == before


def test_a_conflist_that_is_preferred_is_named_and_no_error(forge: Forge, node: Node) -> None:
    node.install(forge.bundle())
    (node.conf_dir / "00-multus.conf").write_text("{}")

    done = node.run("verify")

    assert done.returncode == 0
    assert "00-multus.conf" in done.stdout


def test_an_empty_node_is_not_whole(node: Node) -> None:
    done = node.run("verify")

    assert done.returncode == 1
    assert "Run azvnet install" in done.stdout
