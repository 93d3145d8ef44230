"""One image in one archive that every runtime takes: OCI image layout and docker-archive in the same tar.

Owns the formats (OCI Image Format 1.0; ``docker save``). The same entries give the same bytes:
no clock, no owner, no order of a file system. It must not know what is in the image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
COMPRESSION = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or link of the image. Root owns everything."""

    path: str
    """Without a leading slash."""
    mode: int = 0o644
    content: bytes | None = None
    """Content of a file."""
    target: str = ""
    """Target of a symbolic link. Neither content nor target: a directory."""


@dataclass(frozen=True, slots=True)
class Image:
    """The image's name and its configuration."""

    name: str
    """Repository and tag."""
    architecture: str
    """As Go and Docker call it: amd64, arm64."""
    config: Mapping[str, Any]
    """``config`` of the OCI image configuration: entrypoint, labels, ..."""
    created: str
    """RFC 3339."""


def write(path: Path, image: Image, entries: Iterable[Entry], epoch: int) -> str:
    """Write the archive; returns the digest of the image's manifest, by which a registry will know it."""
    layer = layer_of(entries, epoch)
    packed = gzip.compress(layer, COMPRESSION, mtime=0)
    history = [{"created": image.created, "created_by": "packaging/image", "comment": "azvnet"}]
    configuration = {
        "architecture": image.architecture,
        "os": "linux",
        "created": image.created,
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": history,
    }
    config, layers = _json(configuration), [packed]
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": _descriptor(f"{OCI}.config.v1+json", config),
            "layers": [_descriptor(f"{OCI}.layer.v1.tar+gzip", each) for each in layers],
        }
    )
    described = _descriptor(f"{OCI}.manifest.v1+json", manifest)
    described["platform"] = {"architecture": image.architecture, "os": "linux"}
    tag = image.name.rpartition(":")[2]
    described["annotations"] = {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    }
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [described]}
    docker = [
        {
            "Config": _blob(config),
            "RepoTags": [image.name],
            "Layers": [_blob(each) for each in layers],
        }
    ]
    blobs = sorted(((_blob(each), each) for each in (config, manifest, *layers)), key=lambda each: each[0])
    members = [
        ("blobs", None),
        ("blobs/sha256", None),
        *blobs,
        ("index.json", _json(index)),
        ("manifest.json", _json(docker)),
        ("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
    ]
    whole = [Entry(name, 0o755 if content is None else 0o644, content) for name, content in members]
    path.write_bytes(layer_of(whole, epoch))
    return _digest(manifest)


def layer_of(entries: Iterable[Entry], epoch: int) -> bytes:
    """A tar of entries, in the order of their paths, so that a directory comes before what is in it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(entries, key=lambda each: each.path.split("/")):
            member = tarfile.TarInfo(entry.path)
            member.mode, member.mtime = entry.mode, epoch
            if entry.content is not None:
                member.size = len(entry.content)
                tar.addfile(member, io.BytesIO(entry.content))
                continue
            member.type = tarfile.SYMTYPE if entry.target else tarfile.DIRTYPE
            member.linkname = entry.target
            tar.addfile(member)
    return content.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(content: bytes) -> str:
    return f"blobs/{_digest(content).replace(':', '/')}"


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
