"""Whether packages of this machine are the newest that its release offers.

A library that goes into bundle and image stays as it is until the next release of azvnet: one that lacks
published fixes must not go in unnoticed. Owns asking apt. It must not know what the packages are for.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping

from azvnet_image.debian import ImageError, Package

STATUS = "/var/lib/dpkg/status"
"""Where apt says that a version comes from when no source offers it: from being installed."""


def outdated(packages: Iterable[Package]) -> list[str]:
    """What is wrong with the versions of packages, a line each; empty: every one is the newest.

    Raises:
        ImageError: apt can't be asked.
    """
    installed = {package.name: package.version for package in packages}
    try:
        done = subprocess.run(
            ["apt-cache", "policy", *sorted(installed)],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImageError(f"apt-cache can't say which packages are the newest: {error}") from error
    return list(compare(installed, done.stdout))


def compare(installed: Mapping[str, str], policy: str) -> Iterable[str]:
    """The same for versions by package and the text of ``apt-cache policy`` (apt-cache(8))."""
    candidates, offered = _read(policy)
    for name, version in sorted(installed.items()):
        candidate = candidates.get(name, "(none)")
        if not offered.get(name):
            yield f"{name} {version}: apt has no source that offers it (apt-get update)"
        elif candidate != version:
            yield f"{name} {version}: {candidate} is offered"
        elif version not in offered[name]:
            yield f"{name} {version}: is not what the sources of apt offer"


def _read(policy: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """By package: the version that apt would install, and all that some source offers."""
    candidates: dict[str, str] = {}
    offered: dict[str, set[str]] = {}
    name = version = ""
    for line in policy.splitlines():
        words = line.removeprefix(" ***").split()
        if not line.startswith(" "):
            name = line.rstrip(":").partition(":")[0]
        elif words[0] == "Candidate:":
            candidates[name] = words[1]
        elif line[:5] in {" *** ", "     "} and line[5] != " ":
            version = words[0]
        elif line[:6].isspace() and words[1] != STATUS:
            offered.setdefault(name, set()).add(version)
    return candidates, offered
