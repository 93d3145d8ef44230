"""Growing and shrinking the NIC's secondary IP configurations, so that the pool follows demand.

Loaded only if the settings enable it. ``plan`` and ``demand`` decide how many addresses, without I/O. It
must not know CNI, pods' links or how a node is wired.
"""
