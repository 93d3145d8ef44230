"""The files of ip-masq-agent: which destinations see pods' own addresses.

Owns their format and how several are merged, as Azure's ip-masq-agent-v2 does it: networks united, booleans
ORed. They are YAML or JSON; of YAML what such a file consists of: keys at the left with a word, a list in
brackets, or lines with a dash. It must not know what the networks are used for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from glob import glob
from ipaddress import ip_network
from pathlib import Path

from ipam.model import IPNetwork
from ipam.quoting import one_line, quoted
from ipam.value import Value

MOST_NETWORKS_OF_FILE = 64
"""As in ip-masq-agent."""
LARGEST_BYTES = 1 << 17
CIDRS, LINK_LOCAL, LINK_LOCAL_V6 = "nonMasqueradeCIDRs", "masqLinkLocal", "masqLinkLocalIPv6"
BOOLEANS = {"true": True, "false": False}


class IpMasqError(Exception):
    """A file can't be read or is not valid; names it."""


class IpMasq(Value):
    """What the files say together."""

    networks: tuple[IPNetwork, ...] | None = None
    """None: no file names any."""
    link_local: bool = False
    link_local_v6: bool = False


def read_ip_masq(pattern: str) -> IpMasq:
    """What the files that match a pattern say; nothing where there are none.

    Raises:
        IpMasqError: one of them is not valid, or can't be read.
    """
    networks: list[IPNetwork] | None = None
    link_local = link_local_v6 = False
    for path in sorted(glob(pattern)):  # noqa: PTH207 - the pattern is absolute
        try:
            with Path(path).open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
            found = _decoded(content)
            named = found.get(CIDRS)
            if named is not None:
                networks = [*(networks or ()), *_networks(named)]
            link_local |= _boolean(found, LINK_LOCAL)
            link_local_v6 |= _boolean(found, LINK_LOCAL_V6)
        except OSError as error:
            raise IpMasqError(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise IpMasqError(
                f"{path} is not valid, the rules stay as they are: {one_line(str(error))}"
            ) from error
    return IpMasq(None if networks is None else tuple(networks), link_local, link_local_v6)


def _decoded(content: bytes) -> dict[str, object]:
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it is larger than {LARGEST_BYTES} bytes")
    text = content.decode()
    if text.lstrip().startswith("{"):
        found: dict[str, object] = json.loads(text)
        return found
    return _yaml(text.splitlines())


def _yaml(lines: Iterable[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    items: list[object] | None = None
    for number, raw in enumerate(lines, 1):
        line = (" " + raw).split(" #")[0].rstrip()[1:]
        word = line.strip()
        if not word or word in {"---", "..."}:
            continue
        if word.startswith("- ") and items is not None:
            items.append(_scalar(word[2:]))
            continue
        key, colon, value = line.partition(":")
        if not colon or key != key.strip() or (value and not value.startswith(" ")):
            raise ValueError(f"line {number} is neither a key nor an entry of a list: {quoted(word)}")
        value = value.strip()
        items = None
        if value.startswith("["):
            if not value.endswith("]"):
                raise ValueError(f"line {number}: the list does not end there")
            found[key] = [_scalar(each) for each in value[1:-1].split(",") if each.strip()]
        elif value:
            found[key] = _scalar(value)
        else:
            items = []
            found[key] = items
    return found


def _scalar(text: str) -> object:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return BOOLEANS.get(text, text)


def _networks(named: object) -> list[IPNetwork]:
    if not isinstance(named, list):
        raise ValueError(f"{CIDRS} is not a list")  # noqa: TRY004 - of the document, not of a call
    if len(named) > MOST_NETWORKS_OF_FILE:
        raise ValueError(f"{CIDRS} has {len(named)} entries, more than {MOST_NETWORKS_OF_FILE}")
    return networks_of(named, CIDRS)


def networks_of(named: Iterable[object], where: str) -> list[IPNetwork]:
    """The networks of a list of CIDRs.

    Raises:
        ValueError: an entry is not a network, or has host bits set; names ``where`` it is.
    """
    found: list[IPNetwork] = []
    for each in named:
        try:
            network = ip_network(each) if isinstance(each, str) and "/" in each else None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if network is None:
            raise ValueError(f"{where}: {quoted(str(each))} is not a network such as 10.1.0.0/16")
        found.append(network)
    return found


def _boolean(found: Mapping[str, object], key: str) -> bool:
    value = found.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {quoted(str(value))}, neither true nor false")  # noqa: TRY004 - as above
    return value
