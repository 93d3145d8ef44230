"""One spelling of a MAC address, whatever spelling it came in.

Azure writes the same MAC as ``000D3AE51CC0`` (IMDS, wireserver), ``00-0D-3A-E5-1C-C0`` (ARM) and the
kernel as ``00:0d:3a:e5:1c:c0``. It must not know where a MAC comes from.
"""

from __future__ import annotations

from ipam.quoting import quoted

ANY_NIC = "*"
"""Used by the wireserver instead of a MAC: the addresses may belong to any NIC."""

_HEX = frozenset("0123456789abcdef")


def normalize_mac(text: str) -> str:
    """Lower case with colons; ``*`` stays ``*``. Raises ValueError: it is not a MAC address of six bytes."""
    bare = text.strip().lower()
    if bare == ANY_NIC:
        return ANY_NIC
    digits = bare.replace(":", "").replace("-", "").replace(".", "")
    if len(digits) != 12 or not _HEX.issuperset(digits):
        message = f"{quoted(text)} is not a MAC address"
        raise ValueError(message)
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
