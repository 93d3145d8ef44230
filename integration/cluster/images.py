"""The images that a cluster needs beside a node's own: CoreDNS, and what Kubernetes' e2e specs run.

Owns what is in them. They come from no registry: Go programs of `tools.kubernetes`, and programs of
this machine with the libraries that ``ldd`` names, under the names that the specs ask for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

from integration.containerd.images import Image, ImageError, busybox, cached_archive, pause
from integration.tools import kubernetes

COREDNS_IMAGE = "azvnet.test/coredns:1"

_E2E = ("agnhost", "jessie-dnsutils", "busybox")
"""The images of the specs that ours plays. What they run in the others is a shell's command line."""
_REGISTRY = "registry.k8s.io/e2e-test-images"
_CONNTRACK = "registry.k8s.io/build-image/distroless-iptables"
"""Played as well: specs run ``conntrack`` in it."""
_INVALID_STATE = "regression-issue-74839"
"""An image, and its program: a server that answers with a segment that conntrack finds invalid."""

_PROGRAMS = {
    "sh": "dash",
    "nc": "nc.openbsd",
    "dig": "dig",
    "curl": "curl",
    "getent": "getent",
    "wget": "wget",
    "conntrack": "conntrack",
}
"""Name in the image → program of this machine. Busybox has applets of most of these names, but as ``sh`` it
prefers its own applets to programs, its nc and nslookup know fewer options than the specs use, and its wget,
linked statically, crashes beside the libraries of the others.
"""


def coredns() -> Path:
    """The archive with CoreDNS. Raises ToolsError."""
    return cached_archive(
        "coredns",
        [
            Image(
                COREDNS_IMAGE,
                ["-conf", "/etc/coredns/Corefile"],
                {"coredns": kubernetes() / "coredns"},
                {},
                entrypoint=["/coredns"],
            )
        ],
    )


def e2e() -> Path:
    """The archive for Kubernetes' e2e specs, under the names they use. Raises ImageError, ToolsError."""
    names = [name for image in _E2E for name in _named(f"{_REGISTRY}/{image}")] + _named(_CONNTRACK)
    folder = kubernetes()
    shell, applets = busybox()
    programs = {"agnhost": folder / "agnhost", "coredns": folder / "coredns", "bin/busybox": shell}
    for name, source in _PROGRAMS.items():
        programs |= with_libraries(f"bin/{name}", program(source))
    image = Image(
        names[0],
        ["pause"],
        programs,
        {path: target for path, target in applets.items() if path not in programs} | {"agnhost-2": "agnhost"},
        ["bin", "lib", "lib64", "root", "uploads", "var", "var/tmp"],
        files={
            "localhost.crt": (folder / "localhost.crt").read_bytes(),
            "localhost.key": (folder / "localhost.key").read_bytes(),
            "etc/nsswitch.conf": b"hosts: files dns\n",
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
            "etc/group": b"root:x:0:\nuser:x:1000:\n",
            "etc/wgetrc": b"tries = 1\n",  # as busybox's, which the specs expect
        },
        entrypoint=["/agnhost"],
        aliases=names[1:],
    )
    invalid_state = Image(
        _named(f"{_REGISTRY}/{_INVALID_STATE}")[-1],
        [],
        {_INVALID_STATE: folder / _INVALID_STATE},
        {},
        entrypoint=[f"/{_INVALID_STATE}"],
    )
    sandbox = replace(pause(), name=_named("registry.k8s.io/pause")[0])
    return cached_archive("e2e", [image, invalid_state, sandbox])


def e2e_names() -> dict[str, str]:
    """The newest name, with registry and version, of each image that ours plays: ``agnhost``…"""
    return {image: _named(f"{_REGISTRY}/{image}")[-1] for image in _E2E}


@cache
def _listed() -> str:
    asked = [str(kubernetes() / "e2e.test"), "--list-images"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def _named(image: str) -> list[str]:
    """The names with version that the specs give to an image. Raises ImageError."""
    found = sorted(line for line in _listed().split() if line.startswith(f"{image}:"))
    if not found:
        raise ImageError(f"the e2e specs ask for no {image}; they ask for:\n{_listed()}")
    return found


def program(name: str) -> Path:
    """A program of this machine. Raises ImageError."""
    found = shutil.which(name)
    if found is None:
        raise ImageError(f"no {name} on this machine for an image; run: packaging/bootstrap.sh cluster")
    return Path(found)


def with_libraries(name: str, program: Path) -> dict[str, Path]:
    """A program and its libraries, each at the path where the loader looks for it."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    return {name: program} | {path.lstrip("/"): Path(path) for path in libraries}
