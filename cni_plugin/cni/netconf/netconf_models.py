"""The keys of the configuration as pydantic models: what is accepted, what it means, what its default is.

The single source of truth for them. The JSON Schema is generated from it (``azvnet schema``), and so is
``netconf_schema``, which calls validate with (by packaging/compile_models.py): pydantic itself, whose import
takes as long as the rest of a call, is not loaded for one. It must not know what is done with a value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cni_plugin.cni.netconf.spelling import level, lower_keys, seconds

NUMBER = r"^[0-9]+(\.[0-9]+)?$"
MAC = r"^(([0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2})?$"
Seconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(
        seconds, json_schema_input_type=Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=NUMBER)]
    ),
]


class DnsConf(BaseModel):
    """Name resolution as the spec has it; it is reported in the result and changes nothing."""

    model_config = ConfigDict(frozen=True, extra="allow")

    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class NicConf(BaseModel):
    """``ipam.nic``: conditions for the NIC whose addresses pods get. All that are given have to hold.

    A misspelt one is refused: without it pods would get addresses of another NIC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary: bool | None = Field(None, description="Whether it is the machine's primary NIC.")
    link: str = Field(
        "", description="Name of its link on the node, or a pattern with *, ? and [...]: eth[1-9]."
    )
    mac: str = Field(
        "",
        description="Its MAC address.",
        pattern=MAC,
    )


class IpamConf(BaseModel):
    """``ipam`` when its ``type`` is ``azvnet-ipam``."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    type: Literal["azvnet-ipam"] = "azvnet-ipam"
    environment: Literal["auto", "azure", "wireserver", "imds", "fileIpam", "file", "mas", "arm"] = Field(
        "auto", description="Where addresses come from; auto uses what the node offers."
    )
    file: str = Field("/etc/kubernetes/interfaces.json", description="Path of the fileIpam document.")
    cooldown: Seconds = Field(
        30.0,
        description="Seconds before a released address is given out again; shortened when the pool runs low.",
    )
    query_interval: Seconds = Field(
        10.0, alias="queryInterval", description="Minimum number of seconds between two reads of the source."
    )
    ip_address: str = Field(
        "", alias="ipAddress", description="A fixed address for the pod (Azure CNI's key)."
    )
    families: list[Literal["IPv4", "IPv6"]] = Field(
        ["IPv4"],
        min_length=1,
        max_length=2,
        description="A pod gets one address of each of these, or none at all; the first is its primary one.",
    )
    subnet: str = Field("", description="Pods get addresses of the NIC that is in this subnet.")
    nic: NicConf | None = Field(
        None, description="Pods get addresses of the NIC that meets these conditions."
    )
    address_space: str = Field("", alias="addressSpace")
    mode: str = ""


class RuntimeDns(BaseModel):
    """``runtimeConfig.dns``: other names than the netconf's ``dns``, by the capability's convention."""

    model_config = ConfigDict(frozen=True, extra="allow")

    servers: list[str] | None = None
    searches: list[str] | None = None
    options: list[str] | None = None


class RuntimeConfig(BaseModel):
    """``runtimeConfig``: what the runtime passes for the declared capabilities (CONVENTIONS.md)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    ips: list[str] | None = None
    mac: str | None = None
    dns: Annotated[RuntimeDns | None, BeforeValidator(lower_keys)] = None
    portmappings: Any = Field(None, description="Host ports (portMappings), which a later plugin opens.")


class ValidAttachment(BaseModel):
    """One entry of ``cni.dev/valid-attachments``."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    container_id: str = Field(alias="containerID")
    ifname: str


class NetConf(BaseModel):
    """The configuration of one plugin of a network, as libcni passes it."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    cni_version: str = Field("", alias="cniVersion", description="Version of the CNI spec, 0.1.0 to 1.1.0.")
    cni_versions: list[str] = Field(default=[], alias="cniVersions", description="Versions to choose from.")
    name: str = Field(description="Name of the network.")
    type: str = Field("azvnet", description="Name of the plugin's executable.")
    mode: str = Field(
        "transparent", description="The datapath: transparent. bridge and tunnel are treated as transparent."
    )
    master: str = Field(
        "", description="Name of the uplink; by default it is found by the NIC's MAC address."
    )
    mtu: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="MTU of the pod; 0 means that of the uplink."
    )
    ip_masq: bool = Field(
        True, alias="ipMasq", description="Whether pods leave the virtual network with the node's address."
    )
    ipam: dict[str, Any] = Field(
        default={"type": "azvnet-ipam"}, description="Which IPAM plugin, with its configuration."
    )
    dns: DnsConf = Field(default=DnsConf(), description="Reported in the result.")
    strict: bool = Field(False, description="Refuse unknown keys (code 2) instead of warning about them.")
    log_level: Annotated[Literal["off", "error", "warning", "info", "debug"], BeforeValidator(level)] = Field(
        "info", alias="logLevel", description="The least important level that is logged."
    )
    log_file: str = Field(
        "",
        alias="logFile",
        description="Where calls are logged, in /var/log/azvnet; empty means azvnet.log there.",
    )
    args: dict[str, Any] = Field(default={}, description="Free-form arguments; cni.ips is understood.")
    capabilities: dict[str, Any] = Field(
        default={}, description="Capabilities whose values libcni passes in runtimeConfig."
    )
    runtime_config: Annotated[RuntimeConfig, BeforeValidator(lower_keys)] = Field(
        default=RuntimeConfig(), alias="runtimeConfig"
    )
    prev_result: Any = Field(None, alias="prevResult")
    disable_check: bool = Field(False, alias="disableCheck")
    disable_gc: bool = Field(False, alias="disableGC")
    load_only_inlined_plugins: bool = Field(False, alias="loadOnlyInlinedPlugins")
    valid_attachments: list[ValidAttachment] | None = Field(None, alias="cni.dev/valid-attachments")
    attachments: list[ValidAttachment] | None = Field(None, alias="cni.dev/attachments")
