"""The operator's settings of the agent: a JSON file, all of it optional.

Owns the keys, their defaults and the message for a file that is not valid. What concerns a pod is not here:
that is in the netconf of its call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Seen = tuple[int, int, int]
"""Inode, time of the last change and size of a file."""


class SettingsError(Exception):
    """The file can't be read, or has a key or value that is none; says which."""


class Conflist(BaseModel):
    """The conflist that tells the runtime that this node has a network: written last, when that is true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path = Field(description="The conflist to install.")
    destination: Path = Field(
        default=Path("/etc/cni/net.d/10-azvnet.conflist"), description="Where the runtime looks for it."
    )
    bin_dir: Path | None = Field(
        None, description="Where plugins are: what the conflist names has to be there before it is written."
    )


class Arm(BaseModel):
    """How Azure Resource Manager is reached; used where the source is ``arm``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    credential: Literal["auto", "managed-identity", "workload-identity"] = "auto"
    client_id: str = Field("", description="Of a user-assigned managed identity.")
    base_url: str = Field("", description="Instead of the cloud's own endpoint.")
    ca_file: str = Field("", description="CA that signed the endpoint's certificate.")


class Settings(BaseModel):
    """Everything an operator may want to change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["auto", "wireserver", "imds", "file", "arm"] = Field(
        "auto", description="Where addresses come from before the first call; then its netconf decides."
    )
    file: str = Field("/etc/kubernetes/interfaces.json", description="Path of the fileIpam document.")
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
    log_file: Path = Path("/var/log/azvnet/agent.log")
    expected_pods: int = Field(
        0, ge=0, description="Pods with an address of their own that may run here; a smaller pool is told of."
    )
    conflist: Conflist | None = Field(None, description="Installed when an address can be given.")
    arm: Arm = Arm()

    _path: Path | None = PrivateAttr(None)
    _seen: Seen | None = PrivateAttr(None)

    @classmethod
    def read(cls, path: Path | None) -> Settings:
        """The settings of a file; the defaults without one.

        Raises:
            SettingsError: it can't be read, is no JSON, or has an unknown key or an impossible value.
        """
        if path is None:
            return cls()
        seen = _seen(path)
        try:
            settings = cls.model_validate(json.loads(path.read_bytes()))
        except OSError as error:
            raise SettingsError(f"{path} can't be read: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise SettingsError(f"{path}: {where}: {problem['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path} is no JSON: {error}") from error
        settings._path, settings._seen = path, seen  # noqa: SLF001 - of this class
        return settings

    @property
    def path(self) -> Path | None:
        """The file they were read from; None: they are the defaults."""
        return self._path

    def changed(self) -> bool:
        """Whether the file was written or replaced since it was looked at. One that is gone changes nothing:
        its successor may be on its way.
        """
        seen = _seen(self._path)
        return seen is not None and seen != self._seen

    def read_again(self) -> Settings:
        """The settings as the file has them now.

        Raises:
            SettingsError: as ``read``.
        """
        self._seen = _seen(self._path)
        return Settings.read(self._path)


def _seen(path: Path | None) -> Seen | None:
    """What tells one state of a file from another; None where there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None
