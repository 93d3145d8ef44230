"""Limits of Azure that several modules count with ("Azure networking limits", "Private IP address blocks").

It holds values only.
"""

NIC_CONFIGURATIONS = 256
"""IP configurations of one family on a NIC, the primary one included; a block counts as one."""
VNET_CONFIGURATIONS = 65_536
"""Private addresses in a virtual network; a block counts as one."""
BLOCK = 16
"""Addresses of a block: /28 is the only size, and begins at a multiple of 16."""
