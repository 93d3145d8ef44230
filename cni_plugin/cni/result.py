"""The result of ADD, and its shape in every version of the spec.

Owns the values of a result, reading a ``prevResult`` of any version and writing one in the version
a caller asked for (CNI spec "ADD Success" and the older specs). It must not know what produced a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

from cni_plugin.cni.errors import DecodingFailure, InvalidNetconf
from cni_plugin.cni.versions import at_least
from ipam.model import IPAddress, IPInterface, IPNetwork
from ipam.quoting import one_line, quoted
from ipam.value import Value, field

SCOPE_LINK = 253
"""rtnetlink(7) RT_SCOPE_LINK; results carry route scopes as numbers since 1.1.0."""


class Interface(Value):
    """One network interface; ``sandbox`` is empty for one of the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of newer specs (socketPath, pciID) that another plugin wrote; they are passed on."""


class Address(Value):
    """One address with its interface, as an index into ``Result.interfaces``."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


class Route(Value):
    """One route of the container."""

    dst: IPNetwork
    gateway: IPAddress | None = None
    scope: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """mtu, advmss, priority, table of another plugin's routes, passed on since 1.1.0."""


class Dns(Value):
    """Name resolution for the container; reported, never written into it."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(Value):
    """The result of an ADD, in the terms of spec 1.1.0."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def followed_by(self, other: Result) -> Result:
        """This result, and after it what another plugin added, with its interface indexes shifted.

        A ``dns`` of the later one wins, because the spec lets a plugin later in the chain refine it.
        """
        shift = len(self.interfaces)
        moved = tuple(
            Address(ip.address, ip.gateway, None if ip.interface is None else ip.interface + shift)
            for ip in other.ips
        )
        return Result(
            interfaces=self.interfaces + other.interfaces,
            ips=self.ips + moved,
            routes=self.routes + other.routes,
            dns=other.dns if other.dns != Dns() else self.dns,
        )


def to_json(result: Result, version: str) -> dict[str, Any]:
    """The result as the document of one spec version, ``cniVersion`` included."""
    if not at_least(version, "0.3.0"):
        return _to_020(result, version)
    document: dict[str, Any] = {"cniVersion": version}
    newest, has_family = at_least(version, "1.1.0"), not at_least(version, "1.0.0")
    if result.interfaces:
        document["interfaces"] = [_interface_to_json(each, newest=newest) for each in result.interfaces]
    document["ips"] = [_ip_to_json(ip, has_family=has_family) for ip in result.ips]
    document["routes"] = [_route_to_json(route, newest=newest) for route in result.routes]
    document["dns"] = dns_to_json(result.dns)
    return document


def from_json(document: object, fallback_version: str) -> Result:
    """Read a ``prevResult`` or a delegate's answer of any version.

    Raises:
        DecodingFailure: it is not a result of a known version.
    """
    if not isinstance(document, dict):
        raise DecodingFailure("the result of the previous plugin is not a JSON object")
    try:
        if "ip4" in document or "ip6" in document:
            return _from_020(document)
        return Result(
            interfaces=tuple(_interface_from_json(each) for each in document.get("interfaces") or ()),
            ips=tuple(_ip_from_json(each) for each in document.get("ips") or ()),
            routes=tuple(_route_from_json(each) for each in document.get("routes") or ()),
            dns=dns_from_json(document.get("dns") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        version = document.get("cniVersion", fallback_version)
        raise DecodingFailure(
            f"the result of the previous plugin (version {one_line(str(version), 20)}) can't be read: "
            f"{one_line(str(error))}",
            "See the plugin before this one in the chain, or the IPAM plugin that was called.",
        ) from error


def dns_from_json(document: Mapping[str, Any]) -> Dns:
    """``dns`` of a netconf or a result. Raises InvalidNetconf: a member has the wrong type."""

    def strings(key: str) -> tuple[str, ...]:
        value = document.get(key) or []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise InvalidNetconf(
                f"dns.{key} must be a list of strings, not {quoted(value)}", "Correct the dns section."
            )
        return tuple(value)

    domain = document.get("domain") or ""
    if not isinstance(domain, str):
        raise InvalidNetconf(f"dns.domain must be a string, not {quoted(domain)}", "Correct the dns section.")
    return Dns(strings("nameservers"), domain, strings("search"), strings("options"))


def dns_to_json(dns: Dns) -> dict[str, Any]:
    """``dns`` with the members that are set."""
    members = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    return {key: value for key, value in members.items() if value}


def _interface_to_json(interface: Interface, *, newest: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"name": interface.name}
    if interface.mac:
        document["mac"] = interface.mac
    if newest:
        if interface.mtu:
            document["mtu"] = interface.mtu
        document.update(interface.extra)
    if interface.sandbox:
        document["sandbox"] = interface.sandbox
    return document


def _interface_from_json(document: Mapping[str, Any]) -> Interface:
    known = {"name", "mac", "mtu", "sandbox"}
    return Interface(
        name=_string(document["name"]),
        mac=_string(document.get("mac") or ""),
        mtu=_number(document.get("mtu")) or 0,
        sandbox=_string(document.get("sandbox") or ""),
        extra={key: value for key, value in document.items() if key not in known},
    )


def _ip_to_json(ip: Address, *, has_family: bool) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if has_family:
        document["version"] = str(ip.address.version)
    if ip.interface is not None:
        document["interface"] = ip.interface
    document["address"] = str(ip.address)
    if ip.gateway is not None:
        document["gateway"] = str(ip.gateway)
    return document


def _ip_from_json(document: Mapping[str, Any]) -> Address:
    gateway = document.get("gateway")
    return Address(
        address=ip_interface(_string(document["address"])),
        gateway=ip_address(_string(gateway)) if gateway else None,
        interface=_number(document.get("interface")),
    )


def _route_to_json(route: Route, *, newest: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"dst": str(route.dst)}
    if route.gateway is not None:
        document["gw"] = str(route.gateway)
    if newest:
        if route.scope is not None:
            document["scope"] = route.scope
        document.update(route.extra)
    return document


def _route_from_json(document: Mapping[str, Any]) -> Route:
    known = {"dst", "gw", "scope"}
    gateway = document.get("gw")
    return Route(
        dst=ip_network(_string(document["dst"]), strict=False),
        gateway=ip_address(_string(gateway)) if gateway else None,
        scope=_number(document.get("scope")),
        extra={key: value for key, value in document.items() if key not in known},
    )


def _number(value: object) -> int | None:
    """What has to be an integer, if it is there. Go reads 1.0 as one, and no other float."""
    if value is None or type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise TypeError(f"{quoted(value)} is not an integer")


def _string(value: object) -> str:
    """Refuse what is not a string: ``ipaddress`` takes a number for an address as well."""
    if not isinstance(value, str):
        raise TypeError(f"{quoted(value)} is not a string")
    return value


def _to_020(result: Result, version: str) -> dict[str, Any]:
    """0.1.0 and 0.2.0 have one address of each family, with its routes."""
    document: dict[str, Any] = {"cniVersion": version}
    for key, family in (("ip4", IPv4Address), ("ip6", IPv6Address)):
        first = next((ip for ip in result.ips if isinstance(ip.address.ip, family)), None)
        if first is None:
            continue
        member: dict[str, Any] = {"ip": str(first.address)}
        if first.gateway is not None:
            member["gateway"] = str(first.gateway)
        routes = [route for route in result.routes if route.dst.version == first.address.version]
        if routes:
            member["routes"] = [_route_to_json(route, newest=False) for route in routes]
        document[key] = member
    document["dns"] = dns_to_json(result.dns)
    return document


def _from_020(document: Mapping[str, Any]) -> Result:
    ips: list[Address] = []
    routes: list[Route] = []
    for key in ("ip4", "ip6"):
        member = document.get(key)
        if not member:
            continue
        gateway = member.get("gateway")
        ips.append(
            Address(ip_interface(_string(member["ip"])), ip_address(_string(gateway)) if gateway else None)
        )
        routes.extend(_route_from_json(each) for each in member.get("routes") or ())
    return Result(ips=tuple(ips), routes=tuple(routes), dns=dns_from_json(document.get("dns") or {}))
