"""kind's node image without a registry: what kind's base image and `kind build node-image` do, by hand.

Owns the layout of a node's root. The steps are those of images/base/Dockerfile and pkg/build/nodeimage of
sigs.k8s.io/kind. It stays in our Docker's data, and is made again when a part of it changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster import images
from integration.cluster.node import KERNEL_SETTINGS
from integration.kind import controlimages, debian
from integration.kind.places import CACHE, KindError
from integration.tools import containerd, kind, kubernetes, tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.kind.docker import Docker

REPOSITORY = "azvnet.test/kind-node"
_BASE = "azvnet.test/kind-base:1"
_BUILDER = "azvnet-kind-build"
_TREE = CACHE / "root"
_CONTAINERD_SECONDS = 60.0

_ENABLED = ("kubelet", "containerd", "undo-mount-hacks")
_UNWANTED = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/basic.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "etc/systemd/system/*.wants/*",
    # They set the whole machine's memory and kernel settings.
    "usr/lib/sysctl.d/*",
)
_WHOLE_MACHINE = {**KERNEL_SETTINGS, "fs/file-max": "9223372036854775807", "fs/nr_open": "1048576"}
"""What the kubelet and systemd set; a node finds each as it wants it, in a file of its own."""


def tag() -> str:
    """The image's name, with a hash over all that it is made of."""
    parts = [debian.key(), *(folder.name for folder in (kind(), kubernetes(), containerd(), tools()))]
    own = [Path(module.__file__ or "") for module in (controlimages, images)] + [Path(__file__)]
    digest = hashlib.sha256(repr(parts).encode() + b"".join(path.read_bytes() for path in own))
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def exists(docker: Docker) -> bool:
    """Whether it is there already."""
    return not docker.run("docker", "image", "inspect", tag(), check=False).returncode


def archives() -> list[Path]:
    """The images that a node has from the beginning, made when a part of them changed.

    Raises:
        ImageError, ToolsError: the message says what failed.
    """
    settings = (kind() / "files/etc/containerd/config.toml").read_text(encoding="utf-8")
    return [controlimages.archive(settings), images.e2e()]


def make(docker: Docker, progress: Callable[[str], None]) -> None:
    """Make it, in place of an older one.

    Raises:
        KindError, ImageError, ToolsError: the message says what failed.
    """
    progress("the images of Kubernetes' control plane")
    loaded = archives()
    progress("kind's node image")
    for old in docker.run("docker", "images", "--quiet", REPOSITORY).stdout.split():
        docker.run("docker", "rmi", "--force", old)
    try:
        _lay_out()
        with subprocess.Popen(["tar", "-C", str(_TREE), "-c", "."], stdout=subprocess.PIPE) as packed:
            docker.run("docker", "import", "--change=ENV container=docker", "-", _BASE, stdin=packed.stdout)
        _load_images(docker, loaded)
    finally:
        shutil.rmtree(_TREE, ignore_errors=True)


def _lay_out() -> None:
    """The root of a node, in a folder."""
    shutil.rmtree(_TREE, ignore_errors=True)  # of a run that was killed
    _TREE.mkdir(parents=True)
    done = subprocess.run(
        ["tar", "-C", str(_TREE), "-xpf", str(debian.archive())], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise KindError(f"unpacking the node's root: {done.stderr.strip()}")
    _add_files_of_kind()
    _set_up_systemd()
    _add_programs()
    _configure_containerd()
    _hold_kernel_settings()


def _add_files_of_kind() -> None:
    source = kind() / "files"
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file():
            to = _TREE / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            to.chmod(0o755 if to.parent.name == "bin" else 0o644)
    (_TREE / "kind/version").write_text(controlimages.version(), encoding="utf-8")
    (_TREE / "etc/kubernetes/manifests").mkdir(parents=True)


def _set_up_systemd() -> None:
    for pattern in _UNWANTED:
        for path in _TREE.glob(pattern):
            path.unlink()
    with (_TREE / "etc/systemd/journald.conf").open("a", encoding="utf-8") as settings:
        settings.write("ReadKMsg=no\n")
    units = _TREE / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in _ENABLED:
        (wanted / f"{unit}.service").symlink_to(f"/etc/systemd/system/{unit}.service")
    # It registers formats for the whole machine.
    (units / "systemd-binfmt.service").symlink_to("/dev/null")
    init = _TREE / "sbin/init"
    init.unlink(missing_ok=True)
    init.symlink_to("/lib/systemd/systemd")


def _add_programs() -> None:
    placed = {
        "usr/local/bin": [containerd() / name for name in ("containerd", "containerd-shim-runc-v2", "ctr")],
        "usr/bin": [kubernetes() / "kubelet", kubernetes() / "kubectl", kind() / "kubeadm"],
        # What kind's own image has; azvnet puts itself beside them.
        "opt/cni/bin": [tools() / name for name in ("host-local", "loopback", "portmap", "ptp")],
    }
    for folder, programs in placed.items():
        (_TREE / folder).mkdir(parents=True, exist_ok=True)
        for each in programs:
            shutil.copy(each, _TREE / folder)


def _configure_containerd() -> None:
    asked = subprocess.run(
        [str(containerd() / "ctr"), "oci", "spec"], capture_output=True, text=True, check=True
    )
    spec = json.loads(asked.stdout)
    spec["hooks"] = {"createContainer": [{"path": "/kind/bin/mount-product-files.sh"}]}
    spec["process"].pop("rlimits", None)
    folder = _TREE / "etc/containerd"
    (folder / "cri-base.json").write_text(json.dumps(spec), encoding="utf-8")
    # Without CAP_SYS_RESOURCE no score can be lowered, and runc dies before it says so.
    _replace(folder / "config.toml", "restrict_oom_score_adj = false", "restrict_oom_score_adj = true")


def _hold_kernel_settings() -> None:
    own = _TREE / "kind/sysctl"
    own.mkdir()
    mounts = []
    for name, value in _WHOLE_MACHINE.items():
        file = name.replace("/", "-")
        (own / file).write_text(value + "\n", encoding="ascii")
        mounts.append(f"mount --bind /kind/sysctl/{file} /proc/sys/{name}\n")
    entrypoint = _TREE / "usr/local/bin/entrypoint"
    _replace(entrypoint, '\nexec "$@"', f'\n{"".join(mounts)}exec "$@"')


def _replace(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    if content.count(old) != 1:
        raise KindError(
            f"kind's {path.name} has not exactly one {old.strip()!r}: a new kind needs a look here"
        )
    path.write_text(content.replace(old, new), encoding="utf-8")


def _load_images(docker: Docker, archives: list[Path]) -> None:
    """Put the images into the store of the node's containerd, as `kind build node-image` does."""
    docker.run("docker", "rm", "--force", "--volumes", _BUILDER, check=False)
    started = ["docker", "run", "--detach", f"--name={_BUILDER}", "--privileged", "--entrypoint=sleep"]
    started += [
        "--stop-signal=SIGRTMIN+3",
        "--security-opt=seccomp=unconfined",
        "--tmpfs=/run",
        "--tmpfs=/tmp",
    ]
    docker.run(*started, _BASE, "infinity")
    try:
        docker.run("docker", "exec", "--detach", _BUILDER, "containerd")
        deadline = time.monotonic() + _CONTAINERD_SECONDS
        while docker.run("docker", "exec", _BUILDER, "ctr", "version", check=False).returncode:
            if time.monotonic() > deadline:
                raise KindError("containerd does not start in the node image")
            time.sleep(0.1)
        importing = ["docker", "exec", "--interactive", _BUILDER, "ctr", "--namespace=k8s.io", "images"]
        importing += [
            "import",
            "--label=io.cri-containerd.pinned=pinned",
            "--no-unpack",
            "--all-platforms",
            "--digests",
            "-",
        ]
        for archive in archives:
            with archive.open("rb") as content:
                docker.run(*importing, stdin=content)
        entry = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        docker.run("docker", "commit", f"--change={entry}", "--change=CMD []", _BUILDER, tag())
    finally:
        docker.run("docker", "rm", "--force", "--volumes", _BUILDER, check=False)
        with contextlib.suppress(KindError):
            docker.run("docker", "rmi", "--no-prune", _BASE)
