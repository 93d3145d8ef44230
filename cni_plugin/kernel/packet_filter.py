"""Whether the host's packet filter drops what it forwards unless a rule allows it.

Owns asking nf_tables, which iptables-nft uses as well, and the older iptables (``iptables-legacy``), this
only where it is loaded: asking would load it. It must not know what is forwarded. Layouts:
include/uapi/linux/netfilter/nf_tables.h, include/uapi/linux/netfilter_ipv4/ip_tables.h, and
include/uapi/linux/netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import _socket as socket
import ctypes
import errno
import os
import struct

from cni_plugin.kernel.decode import read_attributes, read_text
from cni_plugin.kernel.encode import AF_INET, AF_INET6, NLM_F_DUMP, NLM_F_REQUEST
from cni_plugin.kernel.netlink import HEADER, NETLINK_NETFILTER, Netlink
from cni_plugin.kernel.templates import Request
from ipam.value import Value

NFT_GETCHAIN = 0xA04
"""NFT_MSG_GETCHAIN of NFNL_SUBSYS_NFTABLES."""
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE, HOOK_NUMBER = 1, 3, 4, 5, 7, 1
NFPROTO_INET = 1
FORWARD, DROP = 2, 0
"""NF_INET_FORWARD, NF_DROP."""
IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES = 64, 65
INFO = struct.Struct("=32sI5I5III")
"""Struct ipt_getinfo: name, valid hooks, entry and policy by hook, number and size of the entries."""
ENTRIES_HEADER = 40
"""Struct ipt_get_entries: name and size, padded to the alignment of what follows."""
VERDICT = struct.Struct("=i")
TARGET_HEADER = 32
"""Struct xt_entry_target."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Legacy(Value):
    """Where the two differ."""

    name: str
    tables: str
    level: int
    entry_bytes: int
    """Struct ipt_entry, struct ip6t_entry."""


LEGACY = {
    AF_INET: _Legacy("iptables-legacy", "/proc/self/net/ip_tables_names", socket.IPPROTO_IP, 112),
    AF_INET6: _Legacy("ip6tables-legacy", "/proc/self/net/ip6_tables_names", socket.IPPROTO_IPV6, 168),
}


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
        family = "ip6 " if self.family == AF_INET6 else ""
        return f"chain {self.name} of nf_tables table {family}{self.table}"


def forward_drops(family: int = AF_INET) -> list[str]:
    """The chains that drop what no rule allows to be forwarded, as an operator would name them; of packets of
    a family, IPv4 by default.

    Raises:
        OSError: the kernel does not answer.
    """
    found = [str(chain) for chain in base_chains(family) if chain.hook == FORWARD and chain.drops]
    return [*found, *_of_iptables(family)]


def has_legacy() -> bool:
    """Whether the older iptables filters here: the kernel does not notify of what is changed with it."""
    return any(map(_is_loaded, LEGACY.values()))


def base_chains(family: int) -> list[FilterChain]:
    """Every base chain that packets of a family meet. Raises OSError when the kernel does not answer."""
    return [chain for chain in map(_read_chain, _chains(family)) if chain is not None]


def has_chain(name: str) -> bool:
    """Whether a chain of nf_tables, or of iptables-nft, that IPv4 packets can meet has this name.

    Raises:
        OSError: the kernel does not answer.
    """
    return any(read_text(dict(read_attributes(body, 4)), CHAIN_NAME) == name for body in _chains(AF_INET))


def _chains(family: int) -> list[bytes]:
    request = Request(_get_chains(), lambda: ["list the chains of nf_tables"])
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        try:
            bodies = netlink.dump(request)
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:  # this kernel has no nf_tables
                return []
            raise
    return [body for body in bodies if body[0] in {family, NFPROTO_INET}]


def _read_chain(body: bytes) -> FilterChain | None:
    chain = dict(read_attributes(body, 4))
    hook = dict(read_attributes(chain.get(CHAIN_HOOK, b""), 0)).get(HOOK_NUMBER)
    if hook is None:
        return None
    table, name, kind = (read_text(chain, each) for each in (CHAIN_TABLE, CHAIN_NAME, CHAIN_TYPE))
    policy = int.from_bytes(chain.get(CHAIN_POLICY, b"\1"), "big")
    return FilterChain(body[0], table, name, kind, int.from_bytes(hook, "big"), policy == DROP)


def _get_chains() -> bytes:
    body = struct.pack("=BBH", 0, 0, 0)
    return HEADER.pack(HEADER.size + len(body), NFT_GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body


def _of_iptables(family: int) -> list[str]:
    """The policy of FORWARD in table ``filter``: the verdict of the rule that ends the chain."""
    of = LEGACY[family]
    if not _is_loaded(of):
        return []
    asked = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    try:
        info = INFO.unpack(_getsockopt(asked, of, IPT_SO_GET_INFO, b"filter".ljust(INFO.size, b"\0")))
        policy, size = info[7 + FORWARD], info[-1]
        header = struct.pack("=32sI", b"filter", size).ljust(ENTRIES_HEADER, b"\0")
        entries = _getsockopt(asked, of, IPT_SO_GET_ENTRIES, header + bytes(size))
    finally:
        asked.close()
    (verdict,) = VERDICT.unpack_from(entries, ENTRIES_HEADER + policy + of.entry_bytes + TARGET_HEADER)
    return [f"chain FORWARD of {of.name}"] if verdict == -DROP - 1 else []


def _is_loaded(of: _Legacy) -> bool:
    try:
        fd = os.open(of.tables, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return b"filter" in os.read(fd, 4096).split()
    finally:
        os.close(fd)


def _getsockopt(sock: socket.socket, of: _Legacy, option: int, asked: bytes) -> bytes:
    """Python's own passes nothing in; these options want to know which table."""
    buffer = ctypes.create_string_buffer(asked, len(asked))
    size = ctypes.c_uint(len(asked))
    if _libc.getsockopt(sock.fileno(), of.level, option, buffer, ctypes.byref(size)):
        number = ctypes.get_errno()
        raise OSError(number, f"ask for the policy of {of.name}: {os.strerror(number)}")
    return buffer.raw
