"""Releasing an address, so that traffic for its old pod does not reach its next one.

Owns the order: connections are deleted before the address is free. It must not make or remove
links, nor decide that a pod is gone.
"""

from __future__ import annotations

from contextlib import suppress

from cni_plugin.cni.netconf import NetConf
from cni_plugin.host import nics
from cni_plugin.kernel import conntrack
from cni_plugin.kernel.family import IPV4, IPV6
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import Attachment, Reservation


def may_have_host_ports(netconf: NetConf) -> bool:
    """Whether a pod may have had host ports; the runtime passes them where the configuration asks for it."""
    return not netconf.capabilities.get("portMappings") or bool(netconf.runtime_config.portmappings)


def forget_connections(attachment: Attachment, node: Node) -> list[str]:
    """Delete the conntrack entries of an attachment's address; returns what failed, in words.

    A host port leads there: portmap's rules are gone by now, but for a client that keeps sending its entry
    still applies, whichever pod has the address. A failure does not keep the pod from being deleted.
    """
    if not conntrack.anything_tracked():
        return []
    try:
        for held in node.ipam.held_by(attachment):
            conntrack.forget(held.ip)
    except ipam_errors.StoreUnavailable:
        return []  # reported when the address is released
    except OSError as error:
        return [f"the kernel may still track connections to the pod for a while: {error}"]
    return []


def release_dead(dead: Reservation, node: Node) -> bool:
    """Free the addresses of an endpoint that is gone without a DEL. False: something else has them now."""
    with suppress(OSError):
        for held in node.ipam.held_by(dead.attachment):  # all of them are released
            conntrack.forget(held.ip)
    return node.ipam.release_dead(dead)


def drop_nics(node: Node) -> list[str]:
    """As ``own_nic.drop_unused``, which only nodes with several NICs load."""
    if not any(nics.read_nics(node.run_dir, family) for family in (IPV4, IPV6)):
        return []
    from cni_plugin.addresses import own_nic

    return own_nic.drop_unused(node)
