"""The address documents as pydantic models: what a reader takes from each.

The single source of truth for that. ``documents_schema``, which readers use, is generated from them by
packaging/compile_models.py, so that no reader has to load pydantic. Lists hold ``Any``: each entry is
validated by itself, so that a bad one does not affect the others.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of a document; keys that nobody reads are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileDocument(Part):
    """Source ``file``."""

    interfaces: list[Any] = Field(alias="Interfaces")


class FileInterface(Part):
    """A NIC in it."""

    mac: str = Field(alias="MacAddress")
    primary: bool = Field(alias="IsPrimary", default=False)
    subnets: list[Any] = Field(alias="IPSubnets", default=[])


class FileSubnet(Part):
    """A subnet of a NIC in it."""

    prefix: str = Field(alias="Prefix")
    addresses: list[Any] = Field(alias="IPAddresses", default=[])


class FileAddress(Part):
    """An address of a subnet in it."""

    address: str = Field(alias="Address")
    primary: bool = Field(alias="IsPrimary", default=False)


class ImdsNetwork(Part):
    """Source ``imds``: the section ``network``."""

    interfaces: list[Any] = Field(alias="interface")


class ImdsFamily(Part):
    """The addresses of one family of a NIC in it."""

    addresses: list[Any] = Field(alias="ipAddress", default=[])
    subnets: list[Any] = Field(alias="subnet", default=[])


class ImdsInterface(Part):
    """A NIC in it."""

    mac: str = Field(alias="macAddress")
    ipv4: ImdsFamily = ImdsFamily()
    ipv6: ImdsFamily = ImdsFamily()


class ImdsSubnet(Part):
    """A subnet of a NIC in it."""

    address: str
    prefix: str | int


class ImdsAddress(Part):
    """An address of a NIC in it."""

    private: str = Field(alias="privateIpAddress")
    public: Any = Field(alias="publicIpAddress", default="")


class ImdsFrontends(Part):
    """What is in it; load balancing rules are not read."""

    addresses: list[Any] = Field(alias="publicIpAddresses", default=[])


class ImdsLoadBalancer(Part):
    """The document ``loadbalancer``."""

    inner: ImdsFrontends = Field(alias="loadbalancer")


class ImdsFrontend(Part):
    """An address with a public one of its own."""

    private: str = Field(alias="privateIpAddress")


class ImdsCompute(Part):
    """The section ``compute``."""

    environment: str = Field(alias="azEnvironment", default="AzurePublicCloud")
    resource_id: str = Field(alias="resourceId", default="")
    vm_id: str = Field(alias="vmId", default="")
    location: str = ""
