"""The digest of an attachment, from which names, MACs, interface indexes and the lock's offset are derived.

It has to be the same in every version, as DEL derives from it what an ADD of another version made. It must
not know what they are for.
"""

from __future__ import annotations

from ipam.model import Attachment

try:
    # The interpreter's own. Importing ``hashlib`` loads OpenSSL: 5 ms of every call.
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha1


def digest(attachment: Attachment) -> bytes:
    """SHA-1 of the container id, NUL, and the interface name: 20 bytes."""
    return sha1_of(f"{attachment.container_id}\0{attachment.ifname}")


def sha1_of(text: str) -> bytes:
    """SHA-1 of a text, 20 bytes; of bytes of the environment that are not UTF-8, as they were."""
    value: bytes = sha1(text.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    return value
