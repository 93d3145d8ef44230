"""The parameters of a call that come in the environment.

Owns the rules for CNI_CONTAINERID, CNI_IFNAME and CNI_ARGS (CNI spec 1.1.0 "Parameters"). It must not
read the environment itself: ``process`` does, and hands it over as a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cni_plugin.cni.errors import InvalidEnvironment, InvalidNetns
from ipam.model import Attachment
from ipam.quoting import one_line, quoted
from ipam.value import Value

NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
"""The variables that each verb requires."""

ATTACHMENT_MAX_BYTES = 245
"""Container id and interface name together: the alias of the host veth has to hold both. The spec sets no
limit; the ids of runtimes have 64 bytes."""
CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
IFNAME_MAX_BYTES = 15
"""IFNAMSIZ of the kernel less the closing NUL."""
IFNAME_BAD_BYTES = frozenset(b"/:%\xa0")
"""Besides white space. The kernel takes '%' for a pattern (``eth%d`` becomes ``eth0``, dev_alloc_name) and
the byte 0xa0 for a space of Latin-1 (lib/ctype.c), also within a character of UTF-8."""

KNOWN_ARGS = frozenset(
    {
        "IgnoreUnknown",
        "K8S_POD_NAMESPACE",
        "K8S_POD_NAME",
        "K8S_POD_INFRA_CONTAINER_ID",
        "K8S_POD_UID",
        "IP",
        "MAC",
    }
)


class Parameters(Value):
    """The parameters of a call, checked."""

    verb: str
    attachment: Attachment
    """What the call is about."""
    netns: str
    path: tuple[str, ...]
    """Directories of CNI_PATH, for delegation."""
    args: Mapping[str, str]

    @property
    def pod(self) -> str:
        """``namespace/name`` for people, or the container id where the runtime names no pod."""
        name = self.args.get("K8S_POD_NAME", "")
        return f"{self.args.get('K8S_POD_NAMESPACE', '')}/{name}" if name else self.attachment.container_id


def parse_environment(environ: Mapping[str, str]) -> Parameters:
    """Check the environment of a call.

    Raises:
        InvalidEnvironment: naming every variable that is missing, or the one that is malformed.
        InvalidNetns: CNI_NETNS is not UTF-8, so no result can contain it.
    """
    verb = environ.get("CNI_COMMAND", "")
    if verb not in NEEDED:
        raise InvalidEnvironment(
            f"CNI_COMMAND is {quoted(verb)}" if verb else "CNI_COMMAND is not set",
            f"It must be one of {', '.join(NEEDED)}. To use the command line instead, run `azvnet --help`.",
        )
    missing = [name for name in NEEDED[verb] if not environ.get(name)]
    if missing:
        raise InvalidEnvironment(
            f"{verb} needs {', '.join(missing)}, which the environment does not have",
            "The container runtime sets these variables; to call the plugin by hand, use cnitool.",
        )
    container_id = _container_id(environ.get("CNI_CONTAINERID", ""))
    ifname = _ifname(environ.get("CNI_IFNAME", ""))
    most = ATTACHMENT_MAX_BYTES - len(ifname.encode(errors="surrogateescape"))
    if verb == "ADD" and len(container_id) > most:
        raise InvalidEnvironment(
            f"CNI_CONTAINERID has {len(container_id)} bytes",
            f"At most {most} are supported with this CNI_IFNAME; container runtimes use 64.",
        )
    return Parameters(
        verb=verb,
        attachment=Attachment(container_id, ifname),
        netns=_netns(environ.get("CNI_NETNS", ""), strict=verb in {"ADD", "CHECK"}),
        path=tuple(filter(None, environ.get("CNI_PATH", "").split(":"))),
        args=_args(environ.get("CNI_ARGS", ""), strict=verb == "ADD"),
    )


def _container_id(value: str) -> str:
    if value and not CONTAINER_ID.fullmatch(value):
        raise InvalidEnvironment(
            f"CNI_CONTAINERID {quoted(value)} is malformed",
            "It starts with a letter or digit, followed by letters, digits, '_', '.' and '-'.",
        )
    return value


def _ifname(value: str) -> str:
    """The kernel's own rule (dev_valid_name in net/core/dev.c)."""
    raw = value.encode(errors="surrogateescape")
    bad = value in {".", ".."} or any(map(str.isspace, value)) or IFNAME_BAD_BYTES.intersection(raw)
    if bad or len(raw) > IFNAME_MAX_BYTES or not _is_text(value):
        raise InvalidEnvironment(
            f"CNI_IFNAME {quoted(value)} is not a valid interface name",
            "Use 1 to 15 bytes of UTF-8 without '/', ':', '%' and white space; '.' and '..' are not allowed.",
        )
    return value


def _netns(value: str, *, strict: bool) -> str:
    if strict and not _is_text(value):
        raise InvalidNetns(
            f"CNI_NETNS {quoted(value)} is not UTF-8", "The result, which is JSON, contains it."
        )
    return value


def _is_text(value: str) -> bool:
    """Whether it is UTF-8: other bytes of the environment are surrogates in Python, which neither a result
    nor the store can hold (RFC 8259, 8.1).
    """
    return value.isascii() or value == value.encode(errors="replace").decode()


def _args(value: str, *, strict: bool) -> Mapping[str, str]:
    """``K=V;K=V``. Only ADD is strict: clean-up must not fail because of a pod's name."""
    if strict and not _is_text(value):
        raise InvalidEnvironment(f"CNI_ARGS is not UTF-8: {quoted(value)}", "Names of pods are ASCII.")
    args: dict[str, str] = {}
    for pair in filter(None, value.split(";")):
        key, equals, text = pair.partition("=")
        if not equals and strict:
            raise InvalidEnvironment(
                f"CNI_ARGS contains {quoted(pair)}, which is not KEY=VALUE", "Separate pairs with ';'."
            )
        args[key] = text
    unknown = sorted(set(args) - KNOWN_ARGS)
    if unknown and strict and args.get("IgnoreUnknown", "").lower() not in {"1", "true", "t"}:
        raise InvalidEnvironment(
            f"CNI_ARGS has unknown keys: {one_line(', '.join(unknown))}",
            "Add IgnoreUnknown=1 to CNI_ARGS to have them ignored.",
        )
    return args
