"""Whether the host's packet filter drops what it forwards unless a rule allows it.

Owns asking nf_tables, which iptables-nft uses as well, and the older iptables (``iptables-legacy``), this
only where it is loaded: asking would load it. It must not know what is forwarded. Layouts:
include/uapi/linux/netfilter/nf_tables.h, include/uapi/linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import _socket as socket
import ctypes
import errno
import os
import struct

from cni_plugin.kernel.decode import read_attributes
from cni_plugin.kernel.encode import AF_INET, NLM_F_DUMP, NLM_F_REQUEST
from cni_plugin.kernel.netlink import HEADER, NETLINK_NETFILTER, Netlink
from cni_plugin.kernel.templates import Request
from ipam.value import Value

NFT_GETCHAIN = 0xA04
"""NFT_MSG_GETCHAIN of NFNL_SUBSYS_NFTABLES."""
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE, HOOK_NUMBER = 1, 3, 4, 5, 7, 1
NFPROTO_INET = 1
FORWARD, DROP = 2, 0
"""NF_INET_FORWARD, NF_DROP."""
LEGACY_TABLES = "/proc/self/net/ip_tables_names"
IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES = 64, 65
INFO = struct.Struct("=32sI5I5III")
"""Struct ipt_getinfo: name, valid hooks, entry and policy by hook, number and size of the entries."""
ENTRIES_HEADER = 40
"""Struct ipt_get_entries: name and size, padded to the alignment of what follows."""
VERDICT = struct.Struct("=i")
ENTRY_BYTES, TARGET_HEADER = 112, 32
"""Struct ipt_entry; struct xt_entry_target."""

_libc = ctypes.CDLL(None, use_errno=True)


class FilterChain(Value):
    """A base chain of nf_tables: one that the kernel calls at a hook."""

    family: int
    table: str
    name: str
    kind: str
    """``filter``, ``nat`` or ``route``."""
    hook: int
    drops: bool
    """Whether its policy is DROP."""

    def __str__(self) -> str:
        return f"chain {self.name} of nf_tables table {self.table}"


def forward_drops() -> list[str]:
    """The chains that drop what no rule allows to be forwarded, as an operator would name them.

    Raises:
        OSError: the kernel does not answer.
    """
    found = [str(chain) for chain in base_chains() if chain.hook == FORWARD and chain.drops]
    return [*found, *_of_iptables()]


def base_chains() -> list[FilterChain]:
    """Every base chain that IPv4 packets meet. Raises OSError when the kernel does not answer."""
    return [chain for chain in map(_read_chain, _chains()) if chain is not None]


def has_chain(name: str) -> bool:
    """Whether a chain of nf_tables, or of iptables-nft, that IPv4 packets can meet has this name.

    Raises:
        OSError: the kernel does not answer.
    """
    wanted = name.encode() + b"\0"
    return any(dict(read_attributes(body, 4)).get(CHAIN_NAME) == wanted for body in _chains())


def _chains() -> list[bytes]:
    request = Request(_get_chains(), lambda: ["list the chains of nf_tables"])
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        try:
            bodies = netlink.dump(request)
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:  # this kernel has no nf_tables
                return []
            raise
    return [body for body in bodies if body[0] in {AF_INET, NFPROTO_INET}]


def _read_chain(body: bytes) -> FilterChain | None:
    chain = dict(read_attributes(body, 4))
    hook = dict(read_attributes(chain.get(CHAIN_HOOK, b""), 0)).get(HOOK_NUMBER)
    if hook is None:
        return None
    table, name, kind = (
        chain.get(each, b"").rstrip(b"\0").decode(errors="replace")
        for each in (CHAIN_TABLE, CHAIN_NAME, CHAIN_TYPE)
    )
    policy = int.from_bytes(chain.get(CHAIN_POLICY, b"\1"), "big")
    return FilterChain(body[0], table, name, kind, int.from_bytes(hook, "big"), policy == DROP)


def _get_chains() -> bytes:
    body = struct.pack("=BBH", 0, 0, 0)
    return HEADER.pack(HEADER.size + len(body), NFT_GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body


def _of_iptables() -> list[str]:
    """The policy of FORWARD in table ``filter``: the verdict of the rule that ends the chain."""
    try:
        fd = os.open(LEGACY_TABLES, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if b"filter" not in os.read(fd, 4096).split():
            return []
    finally:
        os.close(fd)
    asked = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    try:
        info = INFO.unpack(_getsockopt(asked.fileno(), IPT_SO_GET_INFO, b"filter".ljust(INFO.size, b"\0")))
        policy, size = info[7 + FORWARD], info[-1]
        header = struct.pack("=32sI", b"filter", size).ljust(ENTRIES_HEADER, b"\0")
        entries = _getsockopt(asked.fileno(), IPT_SO_GET_ENTRIES, header + bytes(size))
    finally:
        asked.close()
    (verdict,) = VERDICT.unpack_from(entries, ENTRIES_HEADER + policy + ENTRY_BYTES + TARGET_HEADER)
    return ["chain FORWARD of iptables-legacy"] if verdict == -DROP - 1 else []


def _getsockopt(fd: int, option: int, asked: bytes) -> bytes:
    """Python's own passes nothing in; these options want to know which table."""
    buffer = ctypes.create_string_buffer(asked, len(asked))
    size = ctypes.c_uint(len(asked))
    if _libc.getsockopt(fd, socket.IPPROTO_IP, option, buffer, ctypes.byref(size)):
        number = ctypes.get_errno()
        raise OSError(number, f"ask for the policy of iptables-legacy: {os.strerror(number)}")
    return buffer.raw
