"""The operator's settings: a JSON file, all of it optional.

Owns reading it and the message for an invalid one. Its keys are declared in ``settings_models``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipam.operator import settings_schema
from ipam.settings_file import checked, settings_in
from ipam.sources import ArmConfig
from ipam.validation import validator
from ipam.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.operator import settings_models


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
            SettingsError: it has an unknown key or an impossible value; names it.
        """
        read = checked(document, _read)
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
            SettingsError: it can't be read, is not valid JSON, or has an unknown key or an impossible value.
        """
        return cls.of({}) if path is None else settings_in(path, cls.of)


_read: Callable[[object], settings_models.Settings] = validator(settings_schema.SETTINGS)
