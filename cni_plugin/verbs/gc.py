"""GC: free what the runtime does not list as valid (CNI spec 1.1.0, "GC").

Only attachments of this network, and none if the call has no list. An attachment with a call in progress is
left alone. An error with one does not keep the others from being freed.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_plugin.addresses import reclaim, recovery
from cni_plugin.cni import delegate, errors
from cni_plugin.cni.call import VerbCall
from cni_plugin.datapath import for_mode, names
from cni_plugin.kernel import encode, locks
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import Attachment, Holder


def collect_garbage(verb_call: VerbCall, node: Node) -> None:
    """Free every stale attachment of the network; raise at the end if some could not be freed."""
    conf = verb_call.netconf
    listed = conf.valid_attachments if conf.valid_attachments is not None else conf.attachments
    failures: list[str] = []
    if listed is not None:
        valid = {Attachment(each.container_id, each.ifname) for each in listed}
        node.ensure_run_dir()
        for attachment in sorted(_stale(verb_call, node, valid)):
            try:
                _free_stale(attachment, verb_call, node)
            except (errors.CniError, ipam_errors.IpamError, OSError) as error:
                failures.append(f"{attachment.container_id}/{attachment.ifname}: {error}")
        verb_call.warnings.extend(reclaim.drop_nics(node))
    if not verb_call.call.as_ipam and conf.ipam_type and not conf.uses_our_ipam:
        delegate.forward(verb_call, "GC")
    if failures:
        raise errors.KernelRefused(
            f"{len(failures)} stale attachments could not be freed: {'; '.join(failures)}",
            "The runtime repeats GC.",
        )


def _stale(verb_call: VerbCall, node: Node, valid: set[Attachment]) -> set[Attachment]:
    """Attachments of this network, in the store or in the kernel, that are not valid."""
    holder = Holder.DELEGATED if verb_call.call.as_ipam else Holder.ENDPOINT
    network = verb_call.netconf.name
    if node.ipam.needs_adoption():
        recovery.adopt(node)
    reserved = node.ipam.reservations(network)
    known = {each.attachment for each in reserved if each.owner.holder is holder}
    if holder is Holder.ENDPOINT:
        known.update(_in_kernel(network, node))
    return known - valid


def _in_kernel(network: str, node: Node) -> Iterator[Attachment]:
    for link in node.host.links(encode.dump_links()):
        named = names.owner_of(link)
        if named is not None and named[1] == network:
            yield named[0]


def _free_stale(attachment: Attachment, verb_call: VerbCall, node: Node) -> None:
    with locks.locked(node.run_dir, names.names_of(attachment).lock_offset, 0) as ours:
        if not ours:
            return
        verb_call.warnings.extend(reclaim.forget_connections(attachment, node))
        if not verb_call.call.as_ipam:
            for_mode(verb_call.netconf.mode).detach(_names(attachment, node), node.host)
        node.ipam.release(attachment)


def _names(attachment: Attachment, node: Node) -> names.Names:
    """With the pod's name where the store knows it: a killed ADD may have left a link of that name alone."""
    held = next(iter(node.ipam.held_by(attachment)), None)
    return names.names_for(attachment, held.owner) if held else names.names_of(attachment)
