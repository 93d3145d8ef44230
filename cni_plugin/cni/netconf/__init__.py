"""The network configuration that arrives on stdin: reading and refusing it.

Owns which keys of the spec and of Azure CNI have an effect here, and the messages for what is refused. The
keys are declared in ``netconf_models``. It must not know what is done with a value.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cni_plugin import log
from cni_plugin.cni import strict_json
from cni_plugin.cni.errors import DecodingFailure, InvalidNetconf, UnsupportedField
from cni_plugin.cni.netconf import netconf_schema
from cni_plugin.cni.netconf.spelling import without_nulls
from cni_plugin.cni.versions import negotiate
from ipam.quoting import LONGEST_VALUE, one_line, quoted
from ipam.validation import Read, ValidationError, validator, with_field

if TYPE_CHECKING:
    from cni_plugin.cni.netconf.netconf_models import IpamConf as DeclaredIpam
    from cni_plugin.cni.netconf.netconf_models import NetConf as DeclaredNetConf
else:  # the engine fills these in as pydantic fills in its models, so they have the models' attributes
    DeclaredIpam = DeclaredNetConf = Read


MOST_NAMED = 10
"""Unknown keys that are named in warnings."""
OUR_PLUGIN = "azvnet"
OUR_IPAM = "azvnet-ipam"
NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")

ENVIRONMENTS = {
    "auto": "auto",
    "azure": "wireserver",
    "wireserver": "wireserver",
    "imds": "imds",
    "fileIpam": "file",
    "file": "file",
    "mas": "file",
    "arm": "arm",
}
"""``ipam.environment`` as written, to the name of the source."""

VERSIONS = {"IPv4": 4, "IPv6": 6}
"""``ipam.families`` as written (as Kubernetes' ``ipFamilies``), to the IP version."""

NO_EFFECT = {
    "bridge": "pods are routed, without a bridge",
    "adapterName": "it is for Windows",
    "infraVnetAddressSpace": "multitenancy is not supported",
    "ipv6Mode": "IPv6 addresses come from the NIC, not from a node's podCIDR",
    "serviceCidrs": "services are routed by kube-proxy",
    "vnetCidrs": "source arm lists them, or the agent's masquerade.non_masquerade_cidrs names them",
    "podNamespaceForDualNetwork": "multitenancy is not supported",
    "ipsToRouteViaHost": "routed pods reach host addresses anyway",
    "multiTenancy": "multitenancy is not supported",
    "enableSnatOnHost": "it is for multitenancy; ipMasq decides whether addresses are translated",
    "enableExactMatchForPodName": "pods are distinguished by their container id",
    "disableHairpinOnHostInterface": "without a bridge there is nothing to switch hairpin mode on",
    "disableIPTableLock": "no iptables is called",
    "disableAsyncDelete": "DEL never waits for another service",
    "cnsurl": "CNS is not used",
    "executionMode": "there is only one",
    "windowsSettings": "it is for Windows",
    "AdditionalArgs": "it is for Windows",
    "env": "the source is chosen by ipam.environment",
    "logTarget": "logs go to the file that logFile names",
}
"""Keys of Azure CNI and of the spec that are accepted without effect, with the reason. ``False`` and empty
values are not reported."""
ROUTED_INSTEAD = {
    "bridge": "pods are routed, without a bridge, and reach the same destinations",
    "tunnel": "pods are routed and reach the same destinations, but packets between pods of one node do not "
    "leave it, so no network security group filters them",
}
"""Modes of Azure CNI that are treated as ``transparent``, and what that means. They move the uplink's address
to a bridge; the connectivity they give does not depend on that (docs/configuration.md)."""
IPAM_NO_EFFECT = {
    "addressSpace": "the NIC's is used",
    "mode": "overlays are not supported",
}
"""The same within ``ipam``."""


class IpamConf(DeclaredIpam):
    """``ipam`` when its ``type`` is ``azvnet-ipam``."""

    @cached_property
    def source(self) -> str:
        """The name of the source: aliases resolved."""
        return ENVIRONMENTS[self.environment]

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """The IP versions of which an attachment gets one address each, in the order of the configuration."""
        return tuple(dict.fromkeys(VERSIONS[each] for each in self.families))


class NetConf(DeclaredNetConf):
    """The configuration of one plugin of a network, as libcni passes it."""

    @property
    def ipam_type(self) -> str:
        """The IPAM plugin's name; empty where the configuration names none."""
        return str(self.ipam.get("type") or "")

    @cached_property
    def uses_our_ipam(self) -> bool:
        """Whether addresses come from this executable's own pool, with no delegation."""
        return self.ipam_type == OUR_IPAM

    @cached_property
    def our_ipam(self) -> IpamConf:
        """``ipam``, validated as ours.

        Raises:
            InvalidNetconf: a value is out of its range.
            UnsupportedField: ``ipam.environment`` names a source that is not supported.
        """
        try:
            ipam: IpamConf = _read_ipam(self.ipam)
        except ValidationError as error:
            environment = self.ipam.get("environment")
            if isinstance(environment, str) and environment not in ENVIRONMENTS:
                raise UnsupportedField(
                    f"unsupported value: ipam.environment {quoted(environment)}",
                    f"Supported are {', '.join(ENVIRONMENTS)}.",
                ) from error
            raise InvalidNetconf(
                _first_problem(error, "ipam."), "Correct the configuration in the conflist."
            ) from error
        return ipam

    @cached_property
    def names_nic(self) -> bool:
        """Whether it says which NIC's addresses pods get. Raises as ``our_ipam``."""
        ipam, nic = self.our_ipam, self.our_ipam.nic
        asked = nic is not None and (nic.primary is not None or nic.link or nic.mac)
        return bool(self.master or ipam.subnet or asked)

    def warnings(self, *, as_ipam: bool) -> list[str]:
        """One line for every key that has no effect, and for the first ones that are not known.

        ``as_ipam``: called as ``azvnet-ipam``; the keys outside ``ipam`` are another plugin's.
        """
        said = [] if as_ipam else _without_effect(self.model_extra or {}, NO_EFFECT, "")
        if not as_ipam and self.mode in ROUTED_INSTEAD:
            said.append(f"mode {self.mode} is treated as transparent: {ROUTED_INSTEAD[self.mode]}")
        if self.log_file and not log.is_allowed(self.log_file):
            said.append(f"logFile {quoted(self.log_file)} is not used: name a .log file in {log.DIRECTORY}")
        if self.uses_our_ipam:
            said += _without_effect(self.ipam, IPAM_NO_EFFECT, "ipam.")
        unknown = self.unknown(as_ipam=as_ipam)
        said += [
            f"unknown key {one_line(name, LONGEST_VALUE)} is ignored{_did_you_mean(name)}"
            for name in unknown[:MOST_NAMED]
        ]
        more = len(unknown) - MOST_NAMED
        others = f"{more} more unknown keys are ignored" if more > 1 else "1 more unknown key is ignored"
        return [*said, others] if more > 0 else said

    def unknown(self, *, as_ipam: bool) -> list[str]:
        """Keys that are neither ours, nor the spec's, nor Azure CNI's."""
        top = [] if as_ipam else [key for key in self.model_extra or {} if key not in NO_EFFECT]
        inner = [f"ipam.{key}" for key in self.our_ipam.model_extra or {}] if self.uses_our_ipam else []
        return [key for key in top if not key.startswith("cni.dev/")] + inner


def _without_effect(given: dict[str, Any], reasons: dict[str, str], prefix: str) -> list[str]:
    return [
        f"{prefix}{key} has no effect: {reasons[key]}"
        for key, value in given.items()
        if key in reasons and value not in (None, False, "", [], {})
    ]


_read_ipam = validator(netconf_schema.IPAM_CONF, IpamConf)
_read_netconf = validator(netconf_schema.NET_CONF, NetConf)


def decode(stdin: bytes) -> dict[str, Any]:
    """Stdin as a JSON object. Raises DecodingFailure: it is empty, not valid JSON, or not an object."""
    if not stdin.strip():
        raise DecodingFailure(
            "no network configuration on stdin",
            "The runtime writes it there; to call the plugin by hand, use cnitool.",
        )
    try:
        document = strict_json.loads(stdin)
    except ValueError as error:
        raise DecodingFailure(
            f"the network configuration on stdin is not valid JSON: {one_line(str(error))}",
            "Check the conflist.",
        ) from error
    if not isinstance(document, dict):
        raise DecodingFailure(
            f"the network configuration on stdin is a JSON {type(document).__name__}, not an object",
            "Check the conflist.",
        )
    return document


MOST_REMEMBERED = 16
MOST_REMEMBERED_BYTES = 1 << 17
"""Bytes of all cached stdins; a byte of JSON may take thirty in memory when decoded."""
_remembered: dict[bytes, tuple[dict[str, Any], NetConf]] = {}
_by_content: dict[str, NetConf] = {}


def remembered(stdin: bytes) -> tuple[dict[str, Any], NetConf] | None:
    """The cached results of ``decode`` and ``parse_netconf`` for the same bytes; never modified."""
    return _remembered.get(stdin)


def remember(stdin: bytes, document: dict[str, Any], netconf: NetConf) -> None:
    """Cache what ``parse_netconf`` accepted: the pods of a node share a few configurations."""
    if len(stdin) <= MOST_REMEMBERED_BYTES // 2:
        bytes_before = sum(map(len, tuple(_remembered)))
        if len(_remembered) >= MOST_REMEMBERED or bytes_before + len(stdin) > MOST_REMEMBERED_BYTES:
            _remembered.clear()
            _by_content.clear()
        _remembered[stdin] = document, netconf
        _by_content[_content(document)] = netconf


def remembered_but_for_result(document: dict[str, Any]) -> NetConf | None:
    """As ``remembered``, for a configuration that has a ``prevResult``: that of a CHECK or DEL."""
    previous = document.get("prevResult")
    if not _by_content or not isinstance(previous, dict):
        return None
    known = _by_content.get(_content(document))
    return None if known is None else with_field(known, "prev_result", previous)


def _content(document: dict[str, Any]) -> str:
    """As text: 1 and ``true`` are equal in Python. A runtime sorts the keys (encoding/json of Go)."""
    return repr([pair for pair in document.items() if pair[0] != "prevResult"])


def parse_netconf(document: dict[str, Any], *, lenient: bool = False) -> NetConf:
    """The netconf of a decoded document, with ``cni_version`` negotiated.

    ``lenient`` (DEL and GC) drops what is not valid: a configuration that was damaged after the ADD must not
    keep the pod from being deleted.

    Raises:
        IncompatibleVersion: see ``versions.negotiate``.
        InvalidNetconf: the name is missing or malformed, or a value has the wrong type.
    """
    version = negotiate(document)
    name = document.get("name")
    if not isinstance(name, str) or not NETWORK_NAME.fullmatch(name):
        raise InvalidNetconf(
            f"network name {quoted(name)} is malformed" if name else "the network configuration has no name",
            "name starts with a letter or digit, followed by letters, digits, '_', '.' and '-'.",
        )
    previous = document.get("prevResult")
    document = {
        key: without_nulls(value)
        for key, value in document.items()
        if value is not None and key not in {"cniVersions", "prevResult"}
    }
    document |= {"cniVersion": version, "prevResult": previous}
    try:
        netconf: NetConf = _read_netconf(document)
    except ValidationError as error:
        if lenient:
            bad = {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
            kept = {key: value for key, value in document.items() if key not in bad - {"name", "cniVersion"}}
            if len(kept) < len(document):
                return parse_netconf(kept, lenient=True)
        raise InvalidNetconf(
            _first_problem(error, ""), "Correct the configuration in the conflist."
        ) from error
    return netconf


def require_supported(netconf: NetConf, *, as_ipam: bool) -> tuple[str, ...]:
    """Refuse what is not supported; for ADD, and for STATUS, which says whether an ADD would succeed.

    Returns:
        Warnings about keys that have no effect or are not known; found once for each configuration.

    Raises:
        UnsupportedField: a mode that is not supported, or an unknown key with ``strict``.
        InvalidNetconf: no ``ipam.type``, or this plugin's own name.
    """
    key = f"_warnings_{as_ipam}"
    known: tuple[str, ...] | None = netconf.__dict__.get(key)
    if known is None:
        _refuse_unsupported(netconf, as_ipam=as_ipam)
        known = netconf.__dict__[key] = tuple(netconf.warnings(as_ipam=as_ipam))
    return known


def _refuse_unsupported(netconf: NetConf, *, as_ipam: bool) -> None:
    if not as_ipam and netconf.mode not in {"", "transparent", *ROUTED_INSTEAD}:
        raise UnsupportedField(
            f"unsupported value: mode {quoted(netconf.mode)}",
            "Use transparent, or leave the key out; AKS uses it too, and it never touches the host's links.",
        )
    if not netconf.ipam_type:
        raise InvalidNetconf("ipam.type is missing", f'Use "ipam": {{"type": "{OUR_IPAM}"}}.')
    if netconf.ipam_type == OUR_PLUGIN:
        raise InvalidNetconf(
            f"ipam.type {OUR_PLUGIN!r} is this plugin itself", f'Use "ipam": {{"type": "{OUR_IPAM}"}}.'
        )
    unknown = netconf.unknown(as_ipam=as_ipam)
    if netconf.strict and unknown:
        key = unknown[0]
        value = netconf.ipam.get(key[5:]) if key.startswith("ipam.") else (netconf.model_extra or {})[key]
        raise UnsupportedField(
            f"unsupported field: {one_line(key, LONGEST_VALUE)} {_as_json(value)}{_did_you_mean(key)}",
            'Remove it, or leave out "strict": true to have it ignored with a warning.',
        )


def _did_you_mean(key: str) -> str:
    import difflib  # only for a configuration that has something wrong

    ours = key.startswith("ipam.")
    prefix, schema = ("ipam.", netconf_schema.IPAM_CONF) if ours else ("", netconf_schema.NET_CONF)
    fields = schema["schema"]["fields"]
    names = [field.get("validation_alias", name) for name, field in fields.items()]
    near = difflib.get_close_matches(key.removeprefix(prefix)[:LONGEST_VALUE], names, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def _first_problem(error: ValidationError, prefix: str) -> str:
    problem = error.errors(include_url=False)[0]
    where = prefix + ".".join(str(part) for part in problem["loc"])
    msg = one_line(f"{where}: {problem['msg']}")
    return f"invalid network configuration: {msg} (it is {_as_json(problem['input'])})"


def _as_json(value: object) -> str:
    return one_line(json.dumps(value, default=str), LONGEST_VALUE)
