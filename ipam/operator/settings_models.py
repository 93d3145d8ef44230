"""The operator's settings as pydantic models: the single source of truth for keys, values and defaults.

The schema with which a file is read is compiled from them at build time (``settings_schema``,
packaging/compile_models.py). It must not be imported when the product runs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ipam.sources.arm_settings_models import Arm

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Lease(BaseModel):
    """The Lease by which one of several operators leads."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("azvnet-operator", min_length=1, description="Its name.")
    namespace: str = Field("", description="Its namespace; empty: the pod's own, or that of the kubeconfig.")
    seconds: float = Field(
        15.0,
        ge=1,
        le=300,
        description="Seconds after the last renewal until another operator may lead.",
    )


class Budget(BaseModel):
    """Requests to Azure Resource Manager, for each subscription and region."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(0.5, gt=0, le=1, description="Share of Azure's published limits that is used.")
    first_poll_seconds: float = Field(
        50.0,
        ge=0,
        le=300,
        description="Seconds from a write to the first poll of its operation; most operations take longer.",
    )


class Settings(BaseModel):
    """Everything about the operator that may be changed."""

    model_config = ConfigDict(extra="forbid")

    arm: Arm = Arm()
    budget: Budget = Budget()
    lease: Lease = Lease()
    workers: int = Field(512, ge=1, le=2000, description="NICs that are worked on at the same time.")
    resource_groups: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="Resource groups whose machines are served; empty: all that the identity may change."
    )
    grace_seconds: Seconds = Field(
        600.0,
        description="Seconds that a Node must have been gone before its IP configurations are removed.",
    )
    kubeconfig: str = Field("", description="Path of a kubeconfig; empty: the service account of the pod.")
    metrics_address: str = Field(
        "", description="address:port of /metrics, /healthz and /readyz; empty: there are none."
    )
    log_level: Literal["off", "error", "warning", "info", "debug"] = "info"
