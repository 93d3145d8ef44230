"""Which address: the pool of the node, its store and the sources that fill it.

Owns the addresses of this node: what Azure says the NIC has (``sources``), which of them is
free (``pool``), who holds which (``store``) and the operations on them (``ipam``).
It must not know of ``cni_plugin``, of netlink, of network namespaces, of the CNI contract or
of stdin and stdout: what it needs of the kernel (addresses the host carries, attachments that
are alive) is passed in as plain values.
"""
