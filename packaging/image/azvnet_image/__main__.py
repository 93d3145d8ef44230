"""The command line: puts the image of a bundle together. ``packaging/image/build.sh`` calls it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

from azvnet_image import archive, newest
from azvnet_image.content import NODE, OPERATOR, ROOT, content
from azvnet_image.debian import ImageError, Package, distribution

SWITCH = "AZVNET_OLD_PACKAGES"
"""Variable that allows packages which are not the newest."""
DEFAULT_EPOCH = 315532800
"""As packaging/build.sh: 1980-01-01."""


def main() -> int:
    """The command line."""
    options = _arguments()
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    version = str(project["version"])
    layout = OPERATOR if options.operator else NODE
    name = options.name or f"localhost/{layout.title}:{version}"
    bundle = options.bundle or ROOT / "dist" / layout.title
    output = options.output or ROOT / "dist" / f"{layout.title}-image.tar"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", DEFAULT_EPOCH))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    try:
        _require_whole(bundle)
        what = content(bundle, layout, name.rpartition(":")[0], version, created)
        _require_newest(what.base)
    except ImageError as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    labels = {
        "org.opencontainers.image.title": layout.title,
        "org.opencontainers.image.description": str(project["description"]),
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": str(project["license"]),
        "azvnet.base": f"{distribution().get('ID')}-{distribution().get('VERSION_ID')}",
        "azvnet.base.packages": " ".join(f"{each.name}={each.version}" for each in what.base),
    }
    if options.revision:
        labels["org.opencontainers.image.revision"] = options.revision
    config = {
        "Entrypoint": ["/usr/bin/azvnet"],
        "Cmd": ["--help"],
        "Env": ["PATH=/usr/bin"],
        "User": layout.user,
        "WorkingDir": "/",
        "Labels": labels,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    image = archive.Image(name, what.architecture, config, created)
    digest = archive.write(partial, image, what.entries, epoch)
    output.with_suffix(".cdx.json").write_bytes(what.sbom)
    partial.rename(output)
    size = sum(len(entry.content or b"") for entry in what.entries)
    packed = output.stat().st_size
    about = {
        "name": name,
        "digest": digest,
        "architecture": what.architecture,
        "unpacked": size,
        "packed": packed,
    }
    if options.about:
        options.about.write_text(json.dumps(about) + "\n")
    sys.stdout.write(
        f"image: {output}: {name} for {what.architecture}\n"
        f"image: {size / 1e6:.0f} MB, {packed / 1e6:.0f} MB packed, {digest}\n"
    )
    return 0


def _require_whole(bundle: Path) -> None:
    """Raises ImageError: the bundle is not as its manifest says."""
    check = [sys.executable, "-I", str(ROOT / "packaging/manifest.py"), "check", str(bundle)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it has none"]
        raise ImageError(f"{bundle} is not as its manifest says, {said[-1]}: make build")


def _require_newest(packages: Iterable[Package]) -> None:
    """Raises ImageError: a package is not the newest of its release, and older ones are not allowed."""
    lines = newest.outdated(packages)
    for line in lines:
        sys.stderr.write(f"image: {line}\n")
    if lines and not os.environ.get(SWITCH):
        raise ImageError(
            f"{len(lines)} packages are not the newest of this release: run packaging/upgrade.sh as root and "
            f"make build again, or set {SWITCH}=1"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packaging/image/build.sh", description=__doc__)
    parser.add_argument("--operator", action="store_true", help="the operator's image instead of the nodes'")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="(default dist/azvnet)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="(default dist/azvnet-image.tar)")
    parser.add_argument("--name", default="", help="repository and tag (default localhost/azvnet:VERSION)")
    parser.add_argument("--revision", default="", help="revision of the sources, for the image's label")
    parser.add_argument("--about", type=Path, metavar="FILE", help="where to write name and digest, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
