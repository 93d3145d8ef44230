"""Which CNI versions are supported, and which one a netconf asks for.

Owns the list and the negotiation (CNI spec 1.1.0, "Version considerations"). It must not import
anything heavy: the thin start answers VERSION with it.
"""

from __future__ import annotations

from functools import cache

from cni_plugin.cni.errors import IncompatibleVersion, InvalidNetconf
from ipam.quoting import one_line, quoted

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = SUPPORTED[-1]

FIRST_WITH = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""Verbs that were added to the spec later, with the version that added them."""


def negotiate(netconf: dict[str, object]) -> str:
    """The version to use for this netconf.

    ``cniVersion`` if it is supported, else the highest of ``cniVersions`` that is.
    Neither key means 0.1.0, as the spec says.

    Raises:
        IncompatibleVersion: none of the versions is supported.
        InvalidNetconf: a version is not a string of the form ``X.Y.Z``.
    """
    asked = netconf.get("cniVersion")
    offered = netconf.get("cniVersions")
    if offered is None:
        offered = []
    if not isinstance(offered, list):
        raise InvalidNetconf(
            "cniVersions must be a list of version strings", 'Write it as ["1.0.0", "1.1.0"].'
        )
    for version in [*([] if asked in (None, "") else [asked]), *offered]:
        _well_formed(version)
    if asked in SUPPORTED:
        return str(asked)
    known = [version for version in SUPPORTED if version in offered]
    if known:
        return known[-1]
    if asked in (None, "") and not offered:
        return SUPPORTED[0]
    raise IncompatibleVersion(
        f"incompatible CNI version: the configuration asks for {one_line(str(asked or offered))}",
        f"Supported are {', '.join(SUPPORTED)}: set cniVersion of the network configuration to one of them.",
    )


def answered(netconf: dict[str, object]) -> str:
    """The version that VERSION answers with: the configuration's own, supported or not.

    Raises:
        InvalidNetconf: it is not a string of the form ``X.Y.Z``.
    """
    asked = netconf.get("cniVersion", CURRENT)
    _well_formed(asked)
    return str(asked)


def require_verb(verb: str, version: str) -> None:
    """Refuse a verb that the version does not have.

    Raises:
        IncompatibleVersion: CHECK below 0.4.0, GC and STATUS below 1.1.0.
    """
    first = FIRST_WITH.get(verb)
    if first is not None and SUPPORTED.index(version) < SUPPORTED.index(first):
        raise IncompatibleVersion(
            f"{verb} needs CNI version {first} or later, the configuration has {version}",
            f"Set cniVersion of the network configuration to {first} or later.",
        )


@cache
def at_least(version: str, other: str) -> bool:
    """Whether ``version`` is ``other`` or later; both must be supported ones."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def _well_formed(version: object) -> None:
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidNetconf(
            f"malformed CNI version {quoted(version)}",
            f"A version is three numbers; supported are {', '.join(SUPPORTED)}.",
        )
