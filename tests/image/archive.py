"""An image archive, read by its own words: OCI image layout and docker-archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Archive:
    """The members of an archive by name."""

    files: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> Archive:
        with tarfile.open(path) as tar:
            found = {member.name: tar.extractfile(member) for member in tar.getmembers() if member.isfile()}
            return cls({name: file.read() for name, file in found.items() if file is not None})

    @property
    def index(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.files["index.json"])
        return loaded

    @property
    def manifest(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.blob(self.index["manifests"][0]))
        return loaded

    @property
    def configuration(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.blob(self.manifest["config"]))
        return loaded

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """What a descriptor leads to, and that it is what it says."""
        algorithm, _, digest = descriptor["digest"].partition(":")
        content = self.files[f"blobs/{algorithm}/{digest}"]
        assert hashlib.new(algorithm, content).hexdigest() == digest
        assert len(content) == descriptor["size"]
        return content

    def layer(self) -> tarfile.TarFile:
        (descriptor,) = self.manifest["layers"]
        unpacked = gzip.decompress(self.blob(descriptor))
        (expected,) = self.configuration["rootfs"]["diff_ids"]
        assert expected == f"sha256:{hashlib.sha256(unpacked).hexdigest()}"
        return tarfile.open(fileobj=io.BytesIO(unpacked))
