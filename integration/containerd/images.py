"""Container images without a registry: a docker-archive written with ``tarfile``.

Owns the two images that tests need, ``pause`` (the sandbox) and ``traffic`` (busybox), and where
they are cached. Knows nothing of containerd. The format is Docker's "image save" (manifest.json,
one configuration and one layer for each image), which ``ctr image import`` reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAUSE_IMAGE = "azvnet.test/pause:1"
TRAFFIC_IMAGE = "azvnet.test/traffic:1"

_CACHE = Path(__file__).parents[2] / ".cache" / "images"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ImageError(Exception):
    """A test image could not be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Image:
    """What goes into one single-layer image."""

    name: str
    command: Sequence[str]
    programs: dict[str, Path]
    """Path in the image → program on this machine."""
    links: dict[str, str]
    """Path in the image → what the symbolic link says."""
    folders: Sequence[str] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    """Path in the image → content."""
    entrypoint: Sequence[str] = ()
    aliases: Sequence[str] = ()
    """More names for the same image."""


def image_archive() -> Path:
    """One archive with both images, made when their parts changed. Raises ImageError."""
    return cached_archive("images", [pause(), _traffic()])


def cached_archive(name: str, images: Sequence[Image]) -> Path:
    """The archive of images, made when their parts changed; older ones of that name are removed."""
    with _locked():
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for image in images:
            digest.update(repr(image).encode())
            for program in image.programs.values():
                digest.update(program.read_bytes())
        archive = _CACHE / f"{name}-{digest.hexdigest()[:16]}.tar"
        if not archive.exists():
            for old in _CACHE.glob(f"{name}-*.tar"):
                old.unlink()
            partial = archive.with_suffix(".partial")
            write_archive(partial, images)
            partial.rename(archive)
    return archive


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Let nobody else make an image meanwhile."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_archive(path: Path, images: Sequence[Image]) -> None:
    """Write a docker-archive; the same input gives the same bytes."""
    manifest = []
    with tarfile.open(path, "w") as archive:
        for image in images:
            layer = _layer(image)
            layer_digest = hashlib.sha256(layer).hexdigest()
            config = json.dumps(_config(image, layer_digest), sort_keys=True).encode()
            config_name = hashlib.sha256(config).hexdigest() + ".json"
            layer_name = f"{layer_digest}/layer.tar"
            _add(archive, config_name, config)
            _add(archive, layer_name, layer)
            manifest.append(
                {
                    "Config": config_name,
                    "RepoTags": [image.name, *image.aliases],
                    "Layers": [layer_name],
                }
            )
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(image: Image, layer_digest: str) -> dict[str, object]:
    run = {"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {**run, "Cmd": list(image.command), "Env": ["PATH=/bin:/sbin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created_by": "azvnet tests"}],
    }


def _layer(image: Image) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for folder in sorted({"etc", "tmp", *image.folders}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(entry)
        for name, program in sorted(image.programs.items()):
            _add(layer, name, program.read_bytes(), mode=0o755)
        for name, content_of in sorted(image.files.items()):
            _add(layer, name, content_of)
        for name, target in sorted(image.links.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            layer.addfile(entry)
    return content.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def pause() -> Image:
    """The sandbox's image. Raises ImageError."""
    source = Path(__file__).with_name("pause.c")
    program = _CACHE / f"pause-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise ImageError("no C compiler for the pause image; apt-get install gcc libc6-dev")
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            made = Path(folder) / "pause"
            command = [compiler, "-Os", "-static", "-s", "-Wall", "-Werror", "-o", str(made), str(source)]
            compiled = subprocess.run(command, capture_output=True, text=True, check=False)
            if compiled.returncode:
                raise ImageError(f"pause.c does not compile: {compiled.stderr.strip()}")
            made.rename(program)
    return Image(PAUSE_IMAGE, ["/pause"], {"pause": program}, {})


def _traffic() -> Image:
    program, links = busybox()
    return Image(TRAFFIC_IMAGE, ["/bin/sleep", "86400"], {"bin/busybox": program}, links, ["bin", "www"])


def busybox() -> tuple[Path, dict[str, str]]:
    """The static busybox of this machine, and the links in an image that are its applets.

    Raises ImageError.
    """
    program = shutil.which("busybox")
    if program is None:
        raise ImageError("no busybox for the traffic image; apt-get install busybox-static")
    if b"INTERP" in subprocess.run(["readelf", "-lW", program], capture_output=True, check=False).stdout:
        raise ImageError(f"{program} is linked dynamically; apt-get install busybox-static")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return Path(program), {f"bin/{name}": "busybox" for name in listed if name not in ("busybox", "init")}
