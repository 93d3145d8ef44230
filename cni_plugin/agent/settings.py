"""The settings of the agent, written by the node's administrator: a JSON file, all of it optional.

Owns reading it, noticing changes, and the message for an invalid one. Its keys are declared in
``settings_models``. What concerns a pod is not here but in the netconf of its call.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.agent import settings_schema
from cni_plugin.agent.ip_masq_files import networks_of
from ipam.model import IPNetwork
from ipam.settings_file import SettingsError, checked, settings_in
from ipam.sources import ArmConfig
from ipam.validation import validator
from ipam.value import Value, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugin.agent import settings_models
    from ipam.provision.plan import Sizes

Seen = tuple[int, int, int]
"""Inode, time of the last change and size of a file."""


class Conflist(Value):
    """A conflist to install, and where the runtime looks for it."""

    source: Path
    destination: Path
    bin_dir: Path | None = None
    """Directory of its plugins; None: it is not checked whether they exist."""


class OutboundSettings(Value):
    """What the operator says of packets that leave the virtual network."""

    non_masquerade: tuple[IPNetwork, ...]
    link_local: bool
    random_fully: bool
    file: str
    imds: bool
    """Open to pods."""
    wireserver: bool
    """Open to pods."""


class ApiSettings(Value):
    """How the API server of the cluster is reached."""

    server: str
    """Empty: as the environment says."""
    token_file: Path
    ca_file: str


class ProvisionSettings(Value):
    """What the operator says of a NIC whose IP configurations follow demand."""

    by_cluster: bool
    """The operator of the cluster writes the NIC, and not the agent."""
    sizes: Sizes
    subnet: str
    dry_run: bool
    node_name: str
    """Empty: as the environment says."""
    api: ApiSettings


class Settings(Value):
    """Everything an operator may want to change; ``settings_models`` says what each is."""

    source: str
    file: str
    refresh_seconds: float
    reconcile_seconds: float
    reclaim_seconds: float
    metrics_address: str
    log_level: str
    log_file: Path
    expected_pods: int
    conflist: Conflist | None
    arm: ArmConfig
    outbound: OutboundSettings
    provision: ProvisionSettings | None = None
    """None: nobody changes the NIC."""
    path: Path | None = None
    """The file they were read from; None: they are the defaults."""
    seen: Seen | None = None
    """The state of the file when it was read."""

    @classmethod
    def of(cls, document: object) -> Settings:
        """The settings of a decoded document.

        Raises:
            SettingsError: it has an unknown key or an impossible value; names it.
        """
        read = checked(document, _read)
        if read.source == "file" and not read.file:
            raise SettingsError("file: source is file, and no file is set")
        return cls(
            source=read.source,
            file=read.file,
            refresh_seconds=read.refresh_seconds,
            reconcile_seconds=read.reconcile_seconds,
            reclaim_seconds=read.reclaim_seconds,
            metrics_address=read.metrics_address,
            log_level=read.log_level,
            log_file=Path(read.log_file),
            expected_pods=read.expected_pods,
            conflist=_conflist(read.conflist) if read.conflist else None,
            arm=ArmConfig(read.arm.credential, read.arm.client_id, read.arm.base_url, read.arm.ca_file),
            outbound=_outbound(read),
            provision=_provision(read) if read.provision.mode != "off" else None,
        )

    @classmethod
    def read(cls, path: Path | None) -> Settings:
        """The settings of a file; the defaults without one.

        Raises:
            SettingsError: it can't be read, is not valid JSON, or has an unknown key or an impossible value.
        """
        if path is None:
            return cls.of({})
        seen = _seen(path)
        return replace(settings_in(path, cls.of), path=path, seen=seen)


def _conflist(read: settings_models.Conflist) -> Conflist:
    return Conflist(
        Path(read.source), Path(read.destination), None if read.bin_dir is None else Path(read.bin_dir)
    )


def _outbound(read: settings_models.Settings) -> OutboundSettings:
    masquerade, platform = read.masquerade, read.platform
    try:
        networks = networks_of(masquerade.non_masquerade_cidrs, "masquerade.non_masquerade_cidrs")
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return OutboundSettings(
        tuple(networks),
        masquerade.link_local,
        masquerade.random_fully,
        masquerade.file,
        imds=platform.imds == "open",
        wireserver=platform.wireserver == "open",
    )


def _provision(read: settings_models.Settings) -> ProvisionSettings:
    from ipam.provision import plan

    if read.source == "file":
        raise SettingsError("provision.mode: the file of source file would not list what is added to the NIC")
    wanted = read.provision
    sizes = plan.Sizes(
        minimum=wanted.minimum,
        batch=wanted.batch,
        low=wanted.low,
        high=wanted.high,
        maximum=wanted.maximum,
        shrink_after=wanted.shrink_after_seconds,
        prefixes=wanted.prefixes,
    )
    if impossible := plan.problem(sizes):
        raise SettingsError(f"provision.{impossible}")
    api = wanted.api
    return ProvisionSettings(
        by_cluster=wanted.mode == "operator",
        sizes=sizes,
        subnet=wanted.subnet,
        dry_run=wanted.dry_run,
        node_name=wanted.node_name,
        api=ApiSettings(api.server, Path(api.token_file), api.ca_file),
    )


class SettingsFile:
    """The file as last seen, to notice changes."""

    def __init__(self, settings: Settings) -> None:
        self._path, self._seen = settings.path, settings.seen

    def changed(self) -> bool:
        """Whether the file was written or replaced since it was last seen. A missing file is not a
        change: it may be about to be replaced.
        """
        seen = _seen(self._path)
        return seen is not None and seen != self._seen

    def read(self) -> Settings:
        """The settings as the file has them now. Raises SettingsError: as ``Settings.read``."""
        self._seen = _seen(self._path)
        return Settings.read(self._path)


def _seen(path: Path | None) -> Seen | None:
    """What identifies one state of a file; None if there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None


_read: Callable[[object], settings_models.Settings] = validator(settings_schema.SETTINGS)
