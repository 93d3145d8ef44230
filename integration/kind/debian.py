"""The root file system of a kind node: packages of this machine's distribution, put together by mmdebstrap.

Owns which packages. Must not know Kubernetes. kind's base image is made of the same packages
(images/base/Dockerfile of sigs.k8s.io/kind), less those for storage that nothing here uses.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

from integration.kind.places import CACHE, LOGS, KindError

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = (
    "bash",
    "ca-certificates",
    "conntrack",
    "curl",
    "ethtool",
    "hostname",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "kmod",
    "libseccomp2",
    "mount",
    "nftables",
    "procps",
    "runc",
    "systemd",
    "util-linux",
)
_LOG = LOGS / "mmdebstrap.log"
_TEMPORARY = CACHE / "tmp"
_OPTIONS = (
    "--quiet",
    "--mode=root",
    "--variant=essential",
    "--skip=check/empty,check/qemu",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--aptopt=APT::Install-Recommends "false"',
    f"--include={','.join(PACKAGES)}",
)
# Ends with the process that started it, also by kill -9, and mounts nothing on this machine.
_ALONE = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")


def key() -> str:
    """Changes when another archive would be made."""
    return hashlib.sha256(repr((_suite(), _OPTIONS)).encode()).hexdigest()[:12]


def made() -> bool:
    """Whether the archive is there already."""
    return _archive().exists()


def archive() -> Path:
    """The root as a tar archive; a minute of work the first time. Raises KindError."""
    path = _archive()
    if not path.exists():
        shutil.rmtree(_TEMPORARY, ignore_errors=True)  # of a run that was killed
        for each in (_TEMPORARY, LOGS):
            each.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob("root-*.tar"):
            old.unlink()
        partial = _TEMPORARY / "root.tar"
        command = [*_ALONE, "nice", "mmdebstrap", *_OPTIONS, _suite(), str(partial)]
        with _LOG.open("w", encoding="utf-8") as log:
            environment = {**os.environ, "TMPDIR": str(_TEMPORARY)}
            code = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            ).returncode
        if code:
            tail = "\n".join(_LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            raise KindError(f"mmdebstrap ended with code {code}; its log: {_LOG}\n{tail}")
        partial.rename(path)
        shutil.rmtree(_TEMPORARY, ignore_errors=True)
    return path


def _archive() -> Path:
    return CACHE / f"root-{key()}.tar"


def _suite() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]
