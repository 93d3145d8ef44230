"""A node whose root is mounted elsewhere, and runtimes that keep their folders in odd places."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.install.forge import Forge, number_of
from tests.install.node import CALL, Node, tree

NAMES = ("prefix", "bin-dir", "conf-dir")
ENTER = 'mkdir -p "$1/proc"; mount --bind /proc "$1/proc"; exec chroot "$1" "$2"'
PLAIN = ("/opt/azvnet", "/opt/cni/bin", "/etc/cni/net.d")


def furnish_plain(root: Path) -> tuple[str, str, str]:
    return PLAIN


def furnish_links_of_an_immutable_system(root: Path) -> tuple[str, str, str]:
    (root / "var" / "opt").mkdir(parents=True)
    (root / "opt").symlink_to("/var/opt")
    (root / "run").symlink_to("/var/run")
    return PLAIN


def furnish_k3s(root: Path) -> tuple[str, str, str]:
    data = root / "var" / "lib" / "rancher" / "k3s" / "data"
    (data / "0123abcd" / "bin").mkdir(parents=True)
    (data / "current").symlink_to("/var/lib/rancher/k3s/data/0123abcd")
    return (
        "/var/lib/rancher/azvnet",
        "/var/lib/rancher/k3s/data/current/bin",
        "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    )


def furnish_microk8s(root: Path) -> tuple[str, str, str]:
    snap = root / "var" / "snap" / "microk8s"
    (snap / "6000" / "opt" / "cni" / "bin").mkdir(parents=True)
    (snap / "current").symlink_to("6000")
    return (
        "/var/snap/microk8s/common/azvnet",
        "/var/snap/microk8s/current/opt/cni/bin",
        "/var/snap/microk8s/current/args/cni-network",
    )


@pytest.mark.parametrize(
    "furnish",
    [furnish_plain, furnish_links_of_an_immutable_system, furnish_k3s, furnish_microk8s],
    ids=["plain", "linked", "k3s", "microk8s"],
)
def test_what_is_installed_under_another_root_works_when_that_is_the_root(
    furnish: object, forge: Forge, tmp_path: Path
) -> None:
    assert callable(furnish)
    root = tmp_path / "host"
    root.mkdir()
    prefix, bin_dir, conf_dir = furnish(root)
    before = tree(root)
    host = Node(root)
    options = [f"--root={root}", f"--prefix={prefix}", f"--bin-dir={bin_dir}", f"--conf-dir={conf_dir}"]

    for _ in range(2):
        bundle = forge.bundle()
        host.install(bundle, *options)
        answer = in_root(root, f"{bin_dir}/azvnet-ipam")
        assert answer == number_of(bundle)
    assert (host_path(root, conf_dir) / "10-azvnet.conflist").exists()
    verified = host.run("verify", *options)
    assert verified.returncode == 0, verified.stdout
    assert str(root) not in verified.stdout

    assert host.run("uninstall", *options).returncode == 0
    assert tree(root) == before


def test_links_that_leave_the_root_stay_inside_it(forge: Forge, tmp_path: Path) -> None:
    root, outside = tmp_path / "host", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "opt").symlink_to(f"../../../../../../../../{outside}")

    Node(root).install(
        forge.bundle(), f"--root={root}", *[f"--{n}={p}" for n, p in zip(NAMES, PLAIN, strict=True)]
    )

    assert list(outside.iterdir()) == []
    assert (root / outside.relative_to("/") / "azvnet" / "current").is_symlink()


def test_links_in_a_circle_are_refused(forge: Forge, node: Node) -> None:
    (node.root / "a").symlink_to("b")
    (node.root / "b").symlink_to("a")

    done = node.run("install", f"--bundle={forge.bundle()}", f"--bin-dir={node.root}/a/bin")

    assert done.returncode == 1
    assert "circle" in done.stderr


def host_path(root: Path, path: str) -> Path:
    """A folder of the host, its absolute links followed inside of it."""
    done = subprocess.run(["realpath", "-m", f"{root}{path}"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def in_root(root: Path, program: str) -> int:
    """What answers when the runtime of that host executes it."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", ENTER, "sh", root, program],
        env={**CALL, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        input=b"",
        capture_output=True,
        timeout=30,
        check=False,
    )
    (root / "proc").rmdir()
    assert done.returncode == 0, done.stderr
    number: int = json.loads(done.stdout)["number"]
    return number
