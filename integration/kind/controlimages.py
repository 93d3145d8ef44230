"""The images that kubeadm wants for a control plane, made of our own builds instead of a registry's layers.

Owns what is in them, under the names that kubeadm and the node's containerd ask for.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.images import program, with_libraries
from integration.containerd.images import Image, ImageError, cached_archive, pause
from integration.tools import kind, kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable

_KUBE_PROXY = ("xtables-nft-multi", "nft", "conntrack")
"""What kube-proxy executes."""
_TABLES = tuple(
    f"{family}{what}" for family in ("iptables", "ip6tables") for what in ("", "-save", "-restore")
)


def archive(containerd_configuration: str) -> Path:
    """The archive with all of them, made when a part changed.

    Args:
        containerd_configuration: of the node; it names the image of a pod's sandbox.

    Raises:
        ImageError: kubeadm wants something that is not known here, or a program is missing.
        ToolsError: a program could not be built.
    """
    names = _wanted()
    sandbox = re.search(r'sandbox_image = "(.+)"|sandbox = "(.+)"', containerd_configuration)
    images = [_image(name) for name in names]
    if sandbox:
        images = [_named_also(image, sandbox[1] or sandbox[2]) for image in images]
    return cached_archive("kind", images)


def version() -> str:
    """Of Kubernetes, as kubeadm says it: ``v1.34.2``."""
    return _kubeadm("version", "--output=short").strip()


def _wanted() -> list[str]:
    return _kubeadm("config", "images", "list", f"--kubernetes-version={version()}").split()


def _kubeadm(*arguments: str) -> str:
    done = subprocess.run([str(kind() / "kubeadm"), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _image(name: str) -> Image:
    short = name.rpartition("/")[2].partition(":")[0]
    if short not in _CONTENT:
        raise ImageError(f"kubeadm wants the image {name}, which nobody knows how to make")
    return _CONTENT[short](name, short)


def _single(name: str, short: str) -> Image:
    return Image(name, [f"/bin/{short}"], {f"bin/{short}": kubernetes() / short}, {})


def _coredns(name: str, _: str) -> Image:
    return Image(name, [], {"coredns": kubernetes() / "coredns"}, {}, entrypoint=["/coredns"])


def _pause(name: str, _: str) -> Image:
    return replace(pause(), name=name)


def _kube_proxy(name: str, _: str) -> Image:
    """With iptables as Debian has it: its extensions are libraries that nothing is linked with."""
    programs = {"usr/local/bin/kube-proxy": kubernetes() / "kube-proxy"}
    for each in _KUBE_PROXY:
        programs |= with_libraries(f"sbin/{each}", program(each))
    extensions = sorted(Path("/usr/lib").glob("*-linux-gnu/xtables/*.so"))
    for extension in extensions:
        programs |= with_libraries(str(extension).lstrip("/"), extension)
    links = {f"sbin/{table}": "xtables-nft-multi" for table in _TABLES}
    return Image(name, ["/usr/local/bin/kube-proxy"], programs, links, ["run"])


def _named_also(image: Image, sandbox: str) -> Image:
    if image.name.rpartition(":")[0] != sandbox.rpartition(":")[0] or image.name == sandbox:
        return image
    return replace(image, aliases=[*image.aliases, sandbox])


_CONTENT: dict[str, Callable[[str, str], Image]] = {
    "kube-apiserver": _single,
    "kube-controller-manager": _single,
    "kube-scheduler": _single,
    "etcd": _single,
    "coredns": _coredns,
    "pause": _pause,
    "kube-proxy": _kube_proxy,
}
"""How each is made, by the last part of its name."""
