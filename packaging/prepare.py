"""Compiles the netlink requests of ordinary calls, once, for the bundle.

    prepare.py BUNDLE/azvnet-lib

What pyroute2 makes of them is the same on every node, so a call need not load pyroute2 to have it made
again. Requests with names, indexes and addresses in them become templates (cni_plugin/kernel/templates.py),
for every length that a name can have. The result takes the place of cni_plugin/kernel/prepared.py.

A template is compiled with two sets of values, and where the bytes differ is where the values stand: no
offset is ever typed in. If the two do not differ exactly there, or filling in the second set does not give
the second request byte for byte, the build fails.
"""

import marshal
import sys
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cni_plugin.datapath import names  # noqa: E402
from cni_plugin.kernel import encode, messages, prepared, rules  # noqa: E402
from cni_plugin.kernel.encode import Request  # noqa: E402
from cni_plugin.kernel.family import IPV4, IPV6, Family  # noqa: E402
from cni_plugin.kernel.templates import (  # noqa: E402
    Build,
    Key,
    Span,
    Template,
    Templates,
    encoded,
    fill,
    is_mac,
    template_key,
)
from ipam.model import Attachment  # noqa: E402

HEADER_BYTES = 16
HOST_NAME = "x" * 14
"""As long as every name of a host veth (``names.names_of``)."""
NAMES = ["x" * length for length in range(1, 16)]
MAC = "02:00:00:00:00:01"


class Finder(Templates):
    """Finds a template for every request that it is asked for."""

    def __init__(self) -> None:
        self.found: dict[Key, Template] = {}

    def request(self, build: Build, values: dict[str, Any]) -> Request:
        """Find the template, and compile the request."""
        key = template_key(build, values)
        if key not in self.found:
            self.found[key] = find(build, values)
        return build(**values)


def find(build: Build, values: dict[str, Any]) -> Template:
    """Find where the values stand, by changing one at a time."""
    probes = {name: pair for name, value in values.items() if (pair := probe(name, value)) is not None}
    first = {**values, **{name: pair[0] for name, pair in probes.items()}}
    second = {**values, **{name: pair[1] for name, pair in probes.items()}}
    data = build(**first).data
    spans: list[Span] = []
    for name, pair in probes.items():
        changed = build(**{**first, name: pair[1]}).data
        spans += spans_of(name, data, changed, encoded(name, pair[0]), encoded(name, pair[1]))
    if fill((data, spans), second) != build(**second).data:
        raise SystemExit(f"prepare: {build.__name__} with {values} can't be filled in")
    return data, spans


def probe(name: str, value: Any) -> tuple[Any, Any] | None:
    """Two values of the same shape that differ in every byte; None where there is nothing to fill in."""
    if isinstance(value, str):
        size = len(value.encode())
        pair = ("56:57:58:59:5a:5b", "a6:a7:a8:a9:aa:ab") if is_mac(name) else ("x" * size, "y" * size)
        return pair if value else None
    if isinstance(value, int) or value is None:
        return (0x15161718, 0x25262728) if value else None
    low, high = (ip_address(byte * (value.max_prefixlen // 8)) for byte in (b"\x55", b"\xaa"))
    if hasattr(value, "ip"):
        length = value.network.prefixlen
        return ip_interface((low, length)), ip_interface((high, length))
    if hasattr(value, "prefixlen"):
        return (ip_network(low), ip_network(high)) if value.prefixlen == value.max_prefixlen else None
    return low, high


def spans_of(name: str, before: bytes, after: bytes, old: bytes, new: bytes) -> list[Span]:
    """Where ``old`` became ``new``, and nothing else changed."""
    different = [index for index in range(len(before)) if before[index] != after[index]]
    spans: list[Span] = []
    covered: set[int] = set()
    for index in different:
        end = index + len(old)
        if index not in covered and before[index:end] == old and after[index:end] == new:
            spans.append((name, index, end))
            covered.update(range(index, end))
    if len(before) != len(after) or covered != set(different):
        raise SystemExit(f"prepare: where {name} stands is not beyond doubt")
    return spans


def templates() -> dict[Key, Template]:
    """Templates for whatever the verbs ask for."""
    finder = Finder()
    for name in NAMES:
        finder.new_veth(
            host_name=HOST_NAME,
            host_index=7,
            host_mac=MAC,
            pod_name=name,
            pod_index=8,
            pod_mac=MAC,
            mtu=1500,
            netns_fd=9,
        )
        finder.get_link(name=name)
    mark = "x" * len(names.names_of(Attachment("", "")).mark)
    finder.set_mark(7, mark)
    finder.get_link(alt_name=mark)
    finder.delete_link(alt_name=mark)
    finder.delete_link(index=7)
    finder.get_link(index=7)
    finder.set_link(7)
    finder.secure_link(7)
    for length in range(names.ALIAS_MAX_BYTES + 1):
        finder.set_link(7, alias="x" * length)
    for family in (IPV4, IPV6):
        for_family(finder, family)
    return finder.found


def for_family(finder: Finder, family: Family) -> None:
    """Those with addresses in them."""
    address = family.gateway
    for length in range(1, address.max_prefixlen + 1):
        finder.new_address(7, ip_interface((address, length)))
    for route in (finder.new_route, finder.new_pod_route):
        route(7, ip_network(address))
        route(7, family.default, gateway=address)
    finder.new_neighbour(7, address, MAC)
    finder.learn_neighbour(7, address, MAC)
    finder.get_route(address)
    finder.get_forwarded_route(address, address, 7)


def compiled() -> dict[str, bytes]:
    """The requests that are the same in every call: the dumps."""
    encode.dump_links()
    rules.dump_rules()
    for family in (encode.AF_INET, encode.AF_INET6):
        for dump in (encode.dump_addresses, encode.dump_routes, encode.dump_neighbours):
            dump(family)
    return messages.COMPILED


def main(contents: Path) -> None:
    """Put them into the bundle."""
    made_templates, made_requests = templates(), compiled()
    text = f"{prepared.__doc__!r}\nCOMPILED = {made_requests!r}\nTEMPLATES = {made_templates!r}\n"
    path = contents / "cni_plugin" / "kernel" / "prepared.pyc"
    code = compile(text, "cni_plugin/kernel/prepared.py", "exec", dont_inherit=True, optimize=2)
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + marshal.dumps(code))
    print(f"prepare: {len(made_templates)} templates, {len(made_requests)} requests")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
