"""Another version of azvnet, made of the built image in a second or two: for upgrades and rollbacks.

It differs where a version differs in any case: the file that says its number, the manifest of the
bundle, and so the folder on the node; as a layer of its own over the built image, so that the rest is
not unpacked again. Owns that layer. Must not know how it is rolled out.
"""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cni_plugin
from integration.cluster.rollout import IMAGE

_CACHE = Path(__file__).parents[2] / ".cache" / "images"
_LIBRARY = "usr/lib/azvnet/azvnet-lib"
_SAYS_NUMBER = "cni_plugin/__init__.pyc"
_MANIFEST = f"{_LIBRARY}/MANIFEST"
_HEADER = 16
"""Bytes of a compiled module before its code (importlib, ``_classify_pyc``)."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version that nodes can be given."""

    number: str
    image: str
    """Repository and tag."""
    archive: Path


def built() -> Version:
    """What ``make image`` built. Raises OSError when there is none."""
    with tarfile.open(IMAGE) as archive:
        image: str = _json(archive, "manifest.json")[0]["RepoTags"][0]
    return Version(cni_plugin.__version__, image, IMAGE)


def another(number: str) -> Version:
    """The built image under another version number. Raises OSError when there is none."""
    base = built()
    image = f"{base.image.rpartition(':')[0]}:{number}"
    with tarfile.open(IMAGE) as archive:
        described = _json(archive, "manifest.json")[0]
        config = _json(archive, described["Config"])
        packed = _bytes(archive, described["Layers"][0])
    path = _CACHE / f"azvnet-{number}-{hashlib.sha256(packed).hexdigest()[:16]}.tar"
    if not path.exists():
        for old in _CACHE.glob(f"azvnet-{number}-*.tar"):
            old.unlink()
        layer = _layer(packed, base.number, number)
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config["history"].append({"created_by": f"version {number}, for tests"})
        config["config"]["Labels"]["org.opencontainers.image.version"] = number
        members = {
            "config.json": json.dumps(config).encode(),
            "base.tar.gz": packed,
            "version.tar": layer,
            "manifest.json": json.dumps(
                [{"Config": "config.json", "RepoTags": [image], "Layers": ["base.tar.gz", "version.tar"]}]
            ).encode(),
        }
        _CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(_tar(members))
        partial.rename(path)
    return Version(number, image, path)


def _layer(packed: bytes, before: str, number: str) -> bytes:
    """The files that differ, as a layer over the packed one."""
    module = f"{_LIBRARY}/{_SAYS_NUMBER}"
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as base:
        found = {m.name: base.extractfile(m) for m in base if m.name in (module, _MANIFEST)}
        contents = {name: file.read() for name, file in found.items() if file is not None}
    source = Path(cni_plugin.__file__).read_text(encoding="utf-8")
    code = compile(source.replace(f'"{before}"', f'"{number}"'), "cni_plugin/__init__.py", "exec")
    changed = contents[module][:_HEADER] + marshal.dumps(code)
    old, new = (hashlib.sha256(each).hexdigest() for each in (contents[module], changed))
    manifest = contents[_MANIFEST].replace(old.encode(), new.encode())
    if changed == contents[module] or manifest == contents[_MANIFEST]:
        raise ValueError(f"{IMAGE} does not say its version where it used to: {module}")
    return _tar({module: changed, _MANIFEST: manifest})


def _tar(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def _json(archive: tarfile.TarFile, name: str) -> Any:
    return json.loads(_bytes(archive, name))


def _bytes(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{IMAGE}: {name} is no file")
    return file.read()
