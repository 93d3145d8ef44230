"""Packages that are not the newest of their release are named before they go into an image."""

from __future__ import annotations

import pytest
from azvnet_image.newest import compare

POLICY = """\
libssl3:
  Installed: 3.0.19-1~deb12u2
  Candidate: 3.0.22-1~deb12u2
  Version table:
     3.0.22-1~deb12u2 500
        500 http://mirror.example/debian-security bookworm-security/main amd64 Packages
     3.0.20-1~deb12u2 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
 *** 3.0.19-1~deb12u2 100
        100 /var/lib/dpkg/status
zlib1g:
  Installed: 1:1.2.13.dfsg-1
  Candidate: 1:1.2.13.dfsg-1
  Version table:
 *** 1:1.2.13.dfsg-1 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
libbz2-1.0:
  Installed: 1.0.9-1
  Candidate: 1.0.9-1
  Version table:
 *** 1.0.9-1 100
        100 /var/lib/dpkg/status
     1.0.8-5+b1 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
libffi8:
  Installed: 3.4.4-1
  Candidate: 3.4.4-1
  Version table:
 *** 3.4.4-1 100
        100 /var/lib/dpkg/status
"""


@pytest.mark.parametrize(
    ("name", "version", "problem"),
    [
        ("zlib1g", "1:1.2.13.dfsg-1", ""),
        ("libssl3", "3.0.19-1~deb12u2", "libssl3 3.0.19-1~deb12u2: 3.0.22-1~deb12u2 is offered"),
        ("libbz2-1.0", "1.0.9-1", "libbz2-1.0 1.0.9-1: is not what the sources of apt offer"),
        ("libffi8", "3.4.4-1", "libffi8 3.4.4-1: apt has no source that offers it (apt-get update)"),
        ("libuuid1", "2.38", "libuuid1 2.38: apt has no source that offers it (apt-get update)"),
    ],
)
def test_only_the_newest_that_a_source_offers_is_good(name: str, version: str, problem: str) -> None:
    assert list(compare({name: version}, POLICY)) == ([problem] if problem else [])
