"""DEL: remove exactly one interface of one container, whatever is left of it (CNI spec 1.1.0, "DEL").

It works from derived names alone: ADD need not have finished, and neither the namespace nor prevResult is
needed. Nothing to do is success.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from cni_plugin.addresses import reclaim
from cni_plugin.cni import errors, params
from cni_plugin.cni.call import Call, VerbCall
from cni_plugin.datapath import for_mode
from cni_plugin.datapath.names import names_of, owner_of
from cni_plugin.kernel import locks
from cni_plugin.kernel.decode import Link
from cni_plugin.node import Node
from ipam import errors as ipam_errors
from ipam.model import Holder

LOCK_SECONDS = 5.0
"""An ADD that is stuck for longer is overtaken: it finds its reservation gone and rolls back."""


def delete(verb_call: VerbCall, node: Node) -> None:
    """Detach, then free: no address may be free while a link still has it."""
    attachment = verb_call.parameters.attachment
    with _in_order(verb_call, node):
        if reclaim.may_have_host_ports(verb_call.netconf):
            # First, or packets still sent to the pod would leave by the uplink with a foreign source.
            verb_call.warnings.extend(reclaim.forget_connections(attachment, node))
        if verb_call.call.as_ipam:
            _free(verb_call, node)
            return
        for_mode(verb_call.netconf.mode).detach(verb_call.names, node.host)
        _free(verb_call, node)
        verb_call.warnings.extend(reclaim.drop_nics(node))
    if verb_call.netconf.ipam_type and not verb_call.netconf.uses_our_ipam:
        from cni_plugin.cni import delegate  # as in CHECK

        delegate.forward(verb_call, "DEL")


@contextmanager
def _in_order(verb_call: VerbCall, node: Node) -> Iterator[None]:
    """Hold the attachment's lock. If the state directory can't be written, go on without it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(node.run_dir, verb_call.names.lock_offset, LOCK_SECONDS))
        except errors.StateUnavailable as error:
            verb_call.warnings.append(str(error))
        yield


def _free(verb_call: VerbCall, node: Node) -> None:
    """Free what the attachment holds, and nothing else: another pod's namespace may be at CNI_NETNS by now.

    A store that can't be written must not keep the pod from being deleted: its endpoint is gone, so the
    address is reclaimed later.
    """
    try:
        node.ipam.release(verb_call.parameters.attachment)
    except ipam_errors.StoreUnavailable as error:
        verb_call.warnings.append(f"the address is freed later: {error}")
        if isinstance(error.__cause__, PermissionError):
            raise


def delete_made_by(call: Call, node: Node) -> None:
    """Remove what an ADD created whose result was not delivered, if it still belongs to that very call."""
    parameters = params.parse_environment(call.environ)
    attachment, args = parameters.attachment, parameters.args
    names = names_of(attachment, args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", ""))
    ignored = (errors.CniError, ipam_errors.IpamError)
    with suppress(*ignored), locks.locked(node.run_dir, names.lock_offset, LOCK_SECONDS):
        held = next(iter(node.ipam.held_by(attachment)), None)
        link = for_mode().host_link(names, node.host)
        made_by = held.owner.call_id if held else _call_in_alias(link)
        if made_by != call.call_id:
            return
        if link is not None and (held is None or held.owner.holder is Holder.ENDPOINT):
            for_mode().detach(names, node.host)
        if held is not None:
            node.ipam.release(attachment, expected=held)


def _call_in_alias(link: Link | None) -> str:
    """The call that made an endpoint which the store does not know: it was lost."""
    named = owner_of(link) if link is not None else None
    return named[2] if named is not None else ""
