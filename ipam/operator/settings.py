"""The operator's settings: a JSON file, all of it optional.

Owns reading it and the message for an invalid one. Its keys are declared in ``settings_models``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipam.operator import settings_schema
from ipam.sources import ArmConfig
from ipam.validation import ValidationError, validator
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.operator import settings_models


class OperatorSettingsError(Exception):
    """The file can't be read, or has an unknown key or an impossible value; says which."""


class LeaseSettings(Value):
    """The Lease by which one of several operators leads."""

    name: str
    namespace: str
    """Empty: the pod's own, or that of the kubeconfig."""
    seconds: float


class Settings(Value):
    """``settings_models`` says what each is."""

    arm: ArmConfig
    share: float
    first_poll: float
    lease: LeaseSettings
    workers: int
    resource_groups: tuple[str, ...]
    """In lower case."""
    grace: float
    kubeconfig: str
    metrics_address: str
    log_level: str

    @classmethod
    def of(cls, document: object) -> Settings:
        """The settings of a decoded document.

        Raises:
            OperatorSettingsError: it has an unknown key or an impossible value; names it.
        """
        if not isinstance(document, dict):
            raise OperatorSettingsError(f"it holds a JSON {type(document).__name__}, not an object")
        try:
            read = _read(document)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise OperatorSettingsError(f"{where}: {problem['msg']}") from error
        return cls(
            ArmConfig(read.arm.credential, read.arm.client_id, read.arm.base_url, read.arm.ca_file),
            read.budget.share,
            read.budget.first_poll_seconds,
            LeaseSettings(read.lease.name, read.lease.namespace, read.lease.seconds),
            read.workers,
            tuple(each.casefold() for each in read.resource_groups),
            read.grace_seconds,
            read.kubeconfig,
            read.metrics_address,
            read.log_level,
        )

    @classmethod
    def read(cls, path: Path | None) -> Settings:
        """The settings of a file; the defaults without one.

        Raises:
            OperatorSettingsError: it can't be read, is not valid JSON, or has an unknown key or an
                impossible value.
        """
        if path is None:
            return cls.of({})
        try:
            document: Any = json.loads(path.read_bytes())
            return cls.of(document)
        except OSError as error:
            raise OperatorSettingsError(f"cannot read {path}: {error.strerror}") from error
        except OperatorSettingsError as error:
            raise OperatorSettingsError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise OperatorSettingsError(f"{path} is not valid JSON: {error}") from error


_read: Callable[[object], settings_models.Settings] = validator(settings_schema.SETTINGS)
