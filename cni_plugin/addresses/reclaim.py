"""Letting an address go, so that nobody who still sends to its pod reaches whoever has it next.

Owns the order of that: connections are forgotten before the address is free. It must not make or remove
links, nor decide that a pod is gone.
"""

from __future__ import annotations

from contextlib import suppress

from cni_plugin.cni.netconf import NetConf
from cni_plugin.kernel import conntrack
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import Attachment, Reservation


def may_have_host_ports(netconf: NetConf) -> bool:
    """Whether a pod may have had host ports; the runtime tells, where the configuration asks for it."""
    return not netconf.capabilities.get("portMappings") or bool(netconf.runtime_config.portmappings)


def forget_connections(attachment: Attachment, node: Node) -> list[str]:
    """Let the kernel forget the connections to the address of an attachment; what can't be, in words.

    A host port is a way there: portmap's rules are gone by now, but for who goes on sending they would
    apply for good, whoever has the address. What can't be forgotten keeps no pod from going.
    """
    try:
        for held in node.ipam.held_by(attachment):
            conntrack.forget(held.ip)
    except ipam_errors.StoreUnavailable:
        return []  # releasing the address says so
    except OSError as error:
        return [f"connections to the pod may be remembered for a while: {error}"]
    return []


def release_dead(dead: Reservation, node: Node) -> bool:
    """Free the address of an endpoint that went without a DEL. False when it is another's by now."""
    with suppress(OSError):
        conntrack.forget(dead.ip)
    return node.ipam.release_dead(dead)
