"""``azvnet operator``: the NICs of all nodes of a cluster, grown and shrunk within one budget of requests.

Agents and operator talk through one custom resource for each node (``ipam.provision.exchange``). Only the
operator's own bundle has this package. It must not know CNI, nor how a node is wired.
"""
