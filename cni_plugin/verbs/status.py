"""STATUS: whether an ADD could be served now (CNI spec 1.1.0, "STATUS").

No output means yes. The agent's ``/readyz`` asks the pool the same question. The source is read only if no
known address can be given out.
"""

from __future__ import annotations

from cni_plugin.addresses import allocate, way_out
from cni_plugin.cni import delegate, errors
from cni_plugin.cni.call import VerbCall
from cni_plugin.node import Node
from ipam import errors as ipam_errors

READ_SECONDS = 3.0


def require_ready(verb_call: VerbCall, node: Node) -> None:
    """Return, or raise code 50 (an ADD would fail) or 51 (and existing pods may have lost their network too:
    their NIC can't be used, or nothing can be known of them).
    """
    conf = verb_call.netconf
    if not conf.uses_our_ipam:
        if not verb_call.call.as_ipam:
            delegate.forward(verb_call, "STATUS")
        return
    try:
        node.ensure_run_dir()
        _require_addresses(verb_call, node)
    except ipam_errors.StoreUnavailable as error:
        raise errors.LimitedConnectivity(str(error), error.remedy) from error
    except way_out.NicUnusable as error:
        raise errors.LimitedConnectivity(str(error), error.details) from error
    except ipam_errors.IpamError as error:
        raise errors.NotReady(str(error), error.remedy) from error
    except (errors.UplinkUnclear, errors.StateUnavailable) as error:
        raise errors.NotReady(str(error), error.details) from error


def _require_addresses(verb_call: VerbCall, node: Node) -> None:
    try:
        allocate.require_available(verb_call.netconf, node)
    except (ipam_errors.PoolExhausted, ipam_errors.NoAddressesKnown, ipam_errors.SourceEmpty):
        allocate.refresh(verb_call.netconf, node, READ_SECONDS)
        allocate.require_available(verb_call.netconf, node)
