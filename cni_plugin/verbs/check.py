"""CHECK: compare the kernel, the store and prevResult (CNI spec 1.1.0, "CHECK").

It changes nothing. Changes by later plugins of the chain are expected as prevResult has them.
"""

from __future__ import annotations

from cni_plugin import host
from cni_plugin.addresses import recovery
from cni_plugin.cni import errors, result
from cni_plugin.cni.call import VerbCall
from cni_plugin.datapath import drift, for_mode
from cni_plugin.datapath.drift import Expected
from cni_plugin.kernel import netns
from cni_plugin.kernel.family import family_of
from cni_plugin.node import Node
from cni_plugin.verbs.add import pod_mac
from ipam import errors as ipam_errors

REMEDY = "Delete the pod so that it is created again; `azvnet status` and the log say what happened to it."


def check_attachment(verb_call: VerbCall, node: Node) -> None:
    """Raise an error that names the damage, or return."""
    previous = _previous(verb_call)
    if verb_call.call.as_ipam:
        _require_reservation(verb_call, node, ())
        return
    expected = _expected(verb_call, previous)
    found_damage = _kernel_damage(verb_call, node, expected)
    if verb_call.netconf.uses_our_ipam:
        _require_reservation(verb_call, node, found_damage, expected)
    elif not found_damage:
        from cni_plugin.cni import delegate  # it runs programs, which our own IPAM does not need

        delegate.forward(verb_call, "CHECK")
    verb_call.warnings.extend(host.warnings(node))
    if found_damage:
        raise errors.CheckFailed("; ".join(found_damage), REMEDY)


def _previous(verb_call: VerbCall) -> result.Result:
    document = verb_call.netconf.prev_result
    if not document:
        raise errors.InvalidNetconf(
            "CHECK needs prevResult, which is missing", "The runtime stores it after the ADD."
        )
    return result.from_json(document, verb_call.netconf.cni_version)


def _expected(verb_call: VerbCall, previous: result.Result) -> Expected:
    """What prevResult says of our interface; before 0.3.0 a result has addresses only."""
    parameters, ifname = verb_call.parameters, verb_call.parameters.attachment.ifname
    own = next(
        (
            index
            for index, interface in enumerate(previous.interfaces)
            if interface.name == ifname and interface.sandbox
        ),
        None,
    )
    if previous.interfaces and own is None:
        raise errors.CheckFailed(f"prevResult has no interface {ifname} in a sandbox", REMEDY)
    interface = previous.interfaces[own] if own is not None else result.Interface(ifname)
    if interface.sandbox and interface.sandbox != parameters.netns:
        raise errors.CheckFailed(
            f"prevResult has sandbox {interface.sandbox}, CNI_NETNS is {parameters.netns}", REMEDY
        )
    # An address without an interface is ours only if no address names it: earlier plugins may leave that out.
    named = [ip for ip in previous.ips if own is not None and ip.interface == own]
    candidates = named or [each for each in previous.ips if each.interface is None]
    routed = [ip for ip in candidates if ip.gateway == family_of(ip.address.ip).gateway]
    # IPv6 addresses of a pod to which we gave none come from a later plugin, which checks them.
    versions = {4, *(ip.address.version for ip in routed)}
    ips = [ip for ip in candidates if ip.address.version in versions]
    return Expected(
        names=verb_call.names,
        ifname=ifname,
        addresses=tuple(ip.address for ip in ips),
        routed=tuple(ip.address for ip in routed),
        given_mac=pod_mac(verb_call),
        routes=tuple(
            (route.dst, route.gateway) for route in previous.routes if route.dst.version in versions
        ),
        pod_mac=interface.mac,
        mtu=interface.mtu,
    )


def _kernel_damage(verb_call: VerbCall, node: Node, expected: Expected) -> list[str]:
    with netns.opened(verb_call.call.netns_fd, verb_call.parameters.netns) as netns_fd:
        found = for_mode(verb_call.netconf.mode).inspect(
            verb_call.names, expected.ifname, expected.routed, node.host, netns_fd
        )
    return [each.text for each in drift.differences(expected, found)]


def _require_reservation(
    verb_call: VerbCall, node: Node, damage: list[str] | tuple[str, ...], expected: Expected | None = None
) -> None:
    """Raise if there is damage; that the attachment holds no address, or other ones, is damage too."""
    attachment = verb_call.parameters.attachment
    try:
        known = node.ipam.held_if_adopted(attachment)
        if known is None:
            return  # the store was lost: until the next ADD only the kernel can be compared
        if not known and verb_call.call.netns_fd is not None:
            identity = netns.identity(verb_call.call.netns_fd)
            known = node.ipam.held_by(recovery.stranger(identity, attachment.ifname))
    except ipam_errors.StoreUnavailable as error:
        raise errors.TryAgainLater(str(error), error.remedy) from error
    problems = list(damage)
    if not known:
        problems.append(f"no address is reserved for {attachment}")
    elif expected is not None:
        has = {address.ip for address in expected.addresses}
        problems += [
            f"the store has {held.ip} for it, prevResult another address"
            for held in known
            if held.ip not in has
        ]
        problems += [
            f"no IPv{ip.version} address is reserved for {attachment}, prevResult has {ip}"
            for ip in [each.ip for each in expected.routed]
            if ip.version not in {held.ip.version for held in known}
        ]
    if problems:
        raise errors.CheckFailed("; ".join(problems), REMEDY)
