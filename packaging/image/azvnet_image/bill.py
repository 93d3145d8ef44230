"""The bill of materials: CycloneDX 1.6, every file of the image with who made it.

Owns the document. The same image gives the same bytes. It must not look at files by itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from azvnet_image import debian
from azvnet_image.archive import Entry
from azvnet_image.debian import Package

SPECIFICATION = "1.6"
LOCK = Path(__file__).resolve().parents[3] / "packaging/requirements/dev.lock"
_LOCKED = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the bill is for."""

    name: str
    """Name of the image, without its tag."""
    version: str
    """Version of the product."""
    created: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Paths of the image by who made them; all the others are the project's own."""

    distributions: Mapping[str, list[str]]
    packages: Mapping[Package, list[str]]
    static: list[Package]
    """Those linked into the project's own files."""


def write(subject: Subject, files: Mapping[str, Entry], shares: Shares) -> bytes:
    """The whole bill.

    Raises:
        KeyError: a Python distribution is not in the lock.
    """
    distribution, locked = debian.distribution(), read_lock(LOCK)
    taken = {path for each in (*shares.distributions.values(), *shares.packages.values()) for path in each}
    rest = sorted(files.keys() - taken)
    parts = [
        *(
            _of_distribution(name, locked, [files[each] for each in paths])
            for name, paths in shares.distributions.items()
        ),
        *(
            _of_package(package, distribution, [files[each] for each in paths])
            for package, paths in shares.packages.items()
        ),
        _own("azvnet", subject.version, [files[each] for each in rest]),
    ]
    inside = {name: list(_inside_wheel(name)) for name in shares.distributions}
    parts += {str(each["bom-ref"]): each for found in inside.values() for each in found}.values()
    parts.sort(key=lambda each: str(each["bom-ref"]))
    static = [_of_package(each, distribution, ())["bom-ref"] for each in shares.static]
    depends = {"azvnet:image": [each["bom-ref"] for each in parts], "azvnet:azvnet": static}
    for name, found in inside.items():
        if found:
            depends[f"pkg:pypi/{name}@{locked[name][0]}"] = [each["bom-ref"] for each in found]
    image = {
        "type": "container",
        "bom-ref": "azvnet:image",
        "name": subject.name,
        "version": subject.version,
    }
    bill: Json = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {"timestamp": subject.created, "component": image},
        "components": parts,
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(depends.items())],
    }
    digest = hashlib.sha256(json.dumps(bill, sort_keys=True).encode()).hexdigest()
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}"
    return json.dumps(bill, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def read_lock(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and allowed hashes of each distribution of a lock file."""
    locked: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if match := _LOCKED.match(line):
            name = match[1]
            locked[name] = (match[2], [])
        if name:
            locked[name][1].extend(_HASH.findall(line))
    return locked


def _own(name: str, version: str, files: Iterable[Entry]) -> Json:
    """The component of the project itself."""
    return _component("application", f"azvnet:{name}", name, version, files) | {
        "licenses": [{"license": {"id": "Apache-2.0"}}]
    }


def _of_package(package: Package, distribution: Mapping[str, str], files: Iterable[Entry]) -> Json:
    """The component of a Debian package."""
    vendor = distribution.get("ID", "debian")
    release = f"{vendor}-{distribution.get('VERSION_ID', '')}"
    version = quote(package.version, safe="")
    purl = f"pkg:deb/{vendor}/{package.name}@{version}?arch={package.architecture}&distro={release}"
    component = _component("library", purl, package.name, package.version, files)
    return component | {"purl": purl, "properties": [{"name": "azvnet:source", "value": package.source}]}


def _of_distribution(name: str, locked: Mapping[str, tuple[str, list[str]]], files: Iterable[Entry]) -> Json:
    """The component of a Python distribution, with the hashes that the lock allows.

    Raises:
        KeyError: the lock does not have it.
    """
    version, hashes = locked[name]
    purl = f"pkg:pypi/{name}@{version}"
    return _component("library", purl, name, version, files) | {
        "purl": purl,
        "licenses": _licences(name),
        "properties": [{"name": "azvnet:lock:sha256", "value": each} for each in hashes],
    }


def _inside_wheel(name: str) -> Iterator[Json]:
    """What a wheel has linked into its libraries, as its own bills say (PEP 770)."""
    for file in metadata.files(name) or ():
        if file.parent.name == "sboms" and file.name.endswith(".json"):
            for each in json.loads(file.read_text()).get("components", ()):
                ref = str(each.get("purl") or each["bom-ref"])
                part = _component("library", ref, str(each["name"]), str(each.get("version", "")), ())
                licences = {"licenses": each["licenses"]} if each.get("licenses") else {}
                yield part | licences | ({"purl": ref} if "purl" in each else {})


def _licences(name: str) -> list[Json]:
    """As a Python distribution declares them."""
    about = metadata.metadata(name).json
    if expression := about.get("license_expression"):
        return [{"expression": expression}]
    text = str(about.get("license", ""))
    if text and "\n" not in text:
        return [{"license": {"name": text}}]
    declared = [str(each) for each in about.get("classifier", ()) if str(each).startswith("License ::")]
    return [{"license": {"name": each.rpartition(" :: ")[2]}} for each in declared]


def _component(kind: str, ref: str, name: str, version: str, files: Iterable[Entry]) -> Json:
    return {
        "type": kind,
        "bom-ref": ref,
        "name": name,
        "version": version,
        "components": [_file(each) for each in files if each.content is not None],
    }


def _file(entry: Entry) -> Json:
    digest = hashlib.sha256(entry.content or b"").hexdigest()
    return {"type": "file", "name": f"/{entry.path}", "hashes": [{"alg": "SHA-256", "content": digest}]}
