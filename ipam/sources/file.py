"""Source ``file``: the JSON document that Azure Stack Hub puts on its nodes (``fileIpam``, ``mas``).

    {"Interfaces": [{"MacAddress": "000D3A6E1825", "IsPrimary": true, "IPSubnets": [
        {"Prefix": "10.0.0.0/16", "IPAddresses": [{"Address": "10.0.0.4", "IsPrimary": true}]}]}]}

Also the way to try the plugin with no cloud at all.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ipam.errors import SourceUnreadable
from ipam.sources import documents_schema
from ipam.sources.documents import SIZE_LIMIT, entries, json_document
from ipam.sources.nic import Entry, builder, listing, not_a_document
from ipam.validation import validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.model import Listing, Nic
    from ipam.sources.models import FileAddress, FileDocument, FileInterface, FileSubnet


_document: Callable[[Any], FileDocument] = validator(documents_schema.FILE_DOCUMENT)
_interface: Callable[[Any], FileInterface] = validator(documents_schema.FILE_INTERFACE)
_subnet: Callable[[Any], FileSubnet] = validator(documents_schema.FILE_SUBNET)
_address: Callable[[Any], FileAddress] = validator(documents_schema.FILE_ADDRESS)


def read(path: str) -> Listing:
    """The listing of the file at ``path``.

    Raises:
        SourceUnreadable: it can't be read, or is not an address document.
    """
    return parse(_content(path), path)


@lru_cache(maxsize=1)
def parse(document: bytes, path: str) -> Listing:
    """The listing that ``document`` means; kept for when the same document is read again."""
    top = json_document(_document, document, "file", path)
    warnings: list[str] = []
    nics = (_nic(each, warnings) for each in entries(_interface, top.interfaces, "an interface", warnings))
    return listing("file", (nic for nic in nics if nic is not None), warnings, document)


def _nic(interface: FileInterface, warnings: list[str]) -> Nic | None:
    nic = builder(interface.mac, interface.primary, warnings)
    if nic is None:
        return None
    for described in entries(_subnet, interface.subnets, f"NIC {nic.mac}: a subnet", warnings):
        subnet = nic.add_subnet(described.prefix)
        if subnet is not None:
            for each in entries(_address, described.addresses, f"NIC {nic.mac}: an address", warnings):
                nic.add(Entry(each.address, own=each.primary), [subnet])
    return nic.nic()


def _content(path: str) -> bytes:
    try:
        # Not blocking: a named pipe that nobody writes to must not stop a pod.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(SIZE_LIMIT + 1) or b""
    except OSError as error:
        raise SourceUnreadable(
            f"source file: {path}: {error.strerror or error}",
            f"Write the node's addresses to {path}, or set `ipam.file` or `ipam.environment`.",
        ) from error
    if len(content) > SIZE_LIMIT:
        raise not_a_document("file", path, f"larger than {SIZE_LIMIT} bytes")
    return content
