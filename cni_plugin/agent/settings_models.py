"""The operator's settings as pydantic models: the one truth about their keys, values and defaults.

What the agent reads a file with is made of them beforehand (``settings_schema``, packaging/
compile_models.py). It must not be imported when the product runs: pydantic takes 6 MiB and 75 ms.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FilePath = Annotated[str, Field(min_length=1)]


class Conflist(BaseModel):
    """The conflist that tells the runtime that this node has a network: written last, when that is true."""

    model_config = ConfigDict(extra="forbid")

    source: FilePath = Field(description="The conflist to install.")
    destination: FilePath = Field(
        "/etc/cni/net.d/10-azvnet.conflist", description="Where the runtime looks for it."
    )
    bin_dir: FilePath | None = Field(
        None, description="Where plugins are: what the conflist names has to be there before it is written."
    )


class Arm(BaseModel):
    """How Azure Resource Manager is reached; used where the source is ``arm``."""

    model_config = ConfigDict(extra="forbid")

    credential: Literal["auto", "managed-identity", "workload-identity"] = "auto"
    client_id: str = Field("", description="Of a user-assigned managed identity.")
    base_url: str = Field("", description="Instead of the cloud's own endpoint.")
    ca_file: str = Field("", description="CA that signed the endpoint's certificate.")


class Settings(BaseModel):
    """Everything an operator may want to change."""

    model_config = ConfigDict(extra="forbid")

    source: Literal["auto", "wireserver", "imds", "file", "arm"] = Field(
        "auto", description="Where addresses come from before the first call; then its netconf decides."
    )
    file: str = Field(
        "/etc/kubernetes/interfaces.json", description="Path of the fileIpam document; empty: none is read."
    )
    refresh_seconds: Seconds = Field(30.0, description="Between two reads of the source.")
    reconcile_seconds: Seconds = Field(10.0, description="Between two looks at what pods have.")
    reclaim_seconds: Seconds = Field(
        60.0, description="Between the two looks after which an address without an endpoint is freed."
    )
    metrics_address: str = Field(
        "",
        description="address:port for the pages; beyond the loopback /metrics alone. Empty: no port.",
    )
    log_level: Literal["off", "error", "warning", "info", "debug"] = "info"
    log_file: FilePath = "/var/log/azvnet/agent.log"
    expected_pods: int = Field(
        0,
        ge=0,
        description="Pods with an address of their own that may run here; less is warned of.",
    )
    conflist: Conflist | None = Field(None, description="Installed when an address can be given.")
    arm: Arm = Arm()
