"""The agent's settings as pydantic models: the single source of truth for keys, values and defaults.

The schema with which the agent reads a file is compiled from them at build time (``settings_schema``,
packaging/compile_models.py). It must not be imported when the product runs: pydantic takes 6 MiB and 75
ms.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ipam.sources.arm_settings_models import Arm

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FilePath = Annotated[str, Field(min_length=1)]


class Conflist(BaseModel):
    """The conflist that announces the node's network to the runtime: written last, when that is true."""

    model_config = ConfigDict(extra="forbid")

    source: FilePath = Field(description="The conflist to install.")
    destination: FilePath = Field(
        "/etc/cni/net.d/10-azvnet.conflist", description="Where the runtime looks for it."
    )
    bin_dir: FilePath | None = Field(
        None, description="The plugin directory; the conflist is not written before its plugins are there."
    )


class Masquerade(BaseModel):
    """Which of pods' packets leave with the node's address; ``ipMasq`` of the netconf switches it off."""

    model_config = ConfigDict(extra="forbid")

    non_masquerade_cidrs: list[str] = Field(
        [], description="Destinations that see pods' own addresses, in addition to the virtual network."
    )
    link_local: bool = Field(True, description="Whether pods reach 169.254.0.0/16 with the node's address.")
    random_fully: bool = Field(False, description="Whether the kernel chooses source ports at random.")
    file: str = Field(
        "/etc/config/ip-masq*", description="Files of ip-masq-agent, as a pattern; empty: none is read."
    )


class Platform(BaseModel):
    """Services of the platform that pods may use, with the node's address."""

    model_config = ConfigDict(extra="forbid")

    imds: Literal["closed", "open"] = Field(
        "closed", description="The metadata service: open, every pod gets tokens of the node's identities."
    )
    wireserver: Literal["closed", "open"] = Field(
        "closed", description="TCP ports 80 and 32526 of 168.63.129.16: open, every pod reads node secrets."
    )


class KubernetesApi(BaseModel):
    """How the API server of the cluster is reached, in the modes ``node`` and ``operator``."""

    model_config = ConfigDict(extra="forbid")

    server: str = Field(
        "", description="URL of the API server; empty: that of the cluster that the pod is in."
    )
    token_file: FilePath = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        description="The token of the agent's service account; read for every request.",
    )
    ca_file: str = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        description="PEM file of the CA that signed the API server's certificate; empty: any public one.",
    )


class NicProvision(BaseModel):
    """Growing and shrinking the NIC's IP configurations; sizes are numbers of addresses."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["off", "node", "operator"] = Field(
        "off",
        description="Who does it: nobody, each node's agent with its own identity in Azure, or the operator "
        "of the cluster.",
    )
    minimum: int = Field(0, ge=0, description="The pool never gets fewer addresses.")
    batch: int = Field(16, ge=1, description="Each step is a multiple of this.")
    low: int = Field(8, ge=0, description="The pool grows when fewer addresses are free.")
    high: int = Field(24, ge=1, description="The pool shrinks when more addresses are free.")
    maximum: int = Field(250, ge=1, le=4080, description="The pool never gets more addresses.")
    shrink_after_seconds: Seconds = Field(
        600.0, description="Seconds for which too many have to be free before some are removed."
    )
    prefixes: bool = Field(False, description="Whether to add /28 blocks instead of single addresses.")
    subnet: str = Field("", description="Name or id of the subnet that the NIC has to be in; empty: any.")
    dry_run: bool = Field(False, description="Only log what would be done.")
    node_name: str = Field(
        "",
        max_length=253,
        description="Name of the Kubernetes node; empty: NODE_NAME in the environment, else the host's name.",
    )
    api: KubernetesApi = KubernetesApi()


class Settings(BaseModel):
    """Everything an operator may want to change."""

    model_config = ConfigDict(extra="forbid")

    source: Literal["auto", "wireserver", "imds", "file", "arm"] = Field(
        "auto", description="Where addresses come from until the first call, whose netconf then decides."
    )
    file: str = Field(
        "/etc/kubernetes/interfaces.json", description="Path of the fileIpam document; empty: none is read."
    )
    refresh_seconds: Seconds = Field(30.0, description="Seconds between two reads of the source.")
    reconcile_seconds: Seconds = Field(10.0, description="Seconds between two checks of the pods' endpoints.")
    reclaim_seconds: Seconds = Field(
        60.0,
        description="Seconds between the two checks after which an address without an endpoint is freed.",
    )
    metrics_address: str = Field(
        "",
        description="address:port of the pages; only /metrics unless it is a loopback address; empty: none.",
    )
    log_level: Literal["off", "error", "warning", "info", "debug"] = "info"
    log_file: FilePath = "/var/log/azvnet/agent.log"
    expected_pods: int = Field(
        0,
        ge=0,
        description="Pods with an address of their own that may run here; a smaller pool causes a warning.",
    )
    conflist: Conflist | None = Field(
        None, description="The conflist that the agent installs once an address can be given."
    )
    arm: Arm = Arm()
    masquerade: Masquerade = Masquerade()
    platform: Platform = Platform()
    provision: NicProvision = NicProvision()
