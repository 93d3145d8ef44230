"""``azvnet operator``: grows and shrinks the NICs of all nodes of a cluster within one budget of requests.

Agents and operator cooperate through one custom resource per node (``ipam.provision.exchange``). Only the
operator's own bundle contains this package. It must not know CNI, nor how a node is wired.
"""
