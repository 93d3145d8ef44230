"""How Azure Resource Manager is reached, as a part of the settings of agent and operator (pydantic).

It must not be imported when the product runs: see ``ipam.validation``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Arm(BaseModel):
    """How Azure Resource Manager is reached; used where the source is ``arm``, and to change NICs."""

    model_config = ConfigDict(extra="forbid")

    credential: Literal["auto", "managed-identity", "workload-identity"] = Field(
        "auto", description="Whose token is used; auto: a workload identity if the environment has one."
    )
    client_id: str = Field(
        "", description="Client id of the workload identity or of a user-assigned managed identity."
    )
    base_url: str = Field("", description="URL of Resource Manager; empty: that of the node's cloud.")
    ca_file: str = Field("", description="PEM file of the CA that signed the endpoint's certificate.")
