"""Source ``file``: the JSON document that Azure Stack Hub puts on its nodes (``fileIpam``, ``mas``).

    {"Interfaces": [{"MacAddress": "000D3A6E1825", "IsPrimary": true, "IPSubnets": [
        {"Prefix": "10.0.0.0/16", "IPAddresses": [{"Address": "10.0.0.4", "IsPrimary": true}]}]}]}

Also the way to try the plugin with no cloud at all.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ipam.errors import SourceUnreadable
from ipam.sources.nic import Entry, builder, listing, not_a_document

if TYPE_CHECKING:
    from ipam.model import Listing, Nic

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes; 256 addresses take 20 KiB."""


class _Document(BaseModel):
    # Lists hold Any, each entry is validated by itself: a bad one must not spoil the others.
    model_config = ConfigDict(extra="ignore", frozen=True)
    interfaces: list[Any] = Field(alias="Interfaces")


class _Interface(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    mac: str = Field(alias="MacAddress")
    primary: bool = Field(alias="IsPrimary", default=False)
    subnets: list[Any] = Field(alias="IPSubnets", default=[])


class _Subnet(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    prefix: str = Field(alias="Prefix")
    addresses: list[Any] = Field(alias="IPAddresses", default=[])


class _Address(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    address: str = Field(alias="Address")
    primary: bool = Field(alias="IsPrimary", default=False)


def read(path: str) -> Listing:
    """The listing of the file at ``path``.

    Raises:
        SourceUnreadable: it can't be read, or is no such document.
    """
    return parse(_content(path), path)


@lru_cache(maxsize=1)
def parse(document: bytes, path: str) -> Listing:
    """The listing that ``document`` means; kept for when the same document is read again."""
    try:
        top = _Document.model_validate(json.loads(document))
    except (ValidationError, ValueError, RecursionError) as error:
        raise not_a_document("file", path, brief(error)) from error
    warnings: list[str] = []
    nics = [_nic(raw, warnings) for raw in top.interfaces]
    return listing("file", [nic for nic in nics if nic is not None], warnings)


def _nic(raw: object, warnings: list[str]) -> Nic | None:
    try:
        interface = _Interface.model_validate(raw)
    except ValidationError as error:
        warnings.append(f"an interface: {brief(error)}")
        return None
    nic = builder(interface.mac, interface.primary, warnings)
    if nic is None:
        return None
    for raw_subnet in interface.subnets:
        try:
            described = _Subnet.model_validate(raw_subnet)
        except ValidationError as error:
            warnings.append(f"NIC {nic.mac}: a subnet: {brief(error)}")
            continue
        subnet = nic.add_subnet(described.prefix)
        if subnet is None:
            continue
        for raw_address in described.addresses:
            try:
                address = _Address.model_validate(raw_address)
            except ValidationError as error:
                warnings.append(f"NIC {nic.mac}: an address: {brief(error)}")
                continue
            nic.add(Entry(address.address, own=address.primary), [subnet])
    return nic.nic()


def brief(error: Exception) -> str:
    """One line of a validation error."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        return f"{where}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _content(path: str) -> bytes:
    try:
        # Not blocking: a named pipe nobody writes to must not stop a pod.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SourceUnreadable(
            f"source file: {path}: {error.strerror or error}",
            f"Write the node's addresses to {path}, or set `ipam.file` or `ipam.environment`.",
        ) from error
    if len(content) > SIZE_LIMIT:
        raise not_a_document("file", path, f"larger than {SIZE_LIMIT} bytes")
    return content or b""
