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
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cni_plugin.datapath import names  # noqa: E402
from cni_plugin.kernel import encode, messages, prepared, rules  # noqa: E402
from cni_plugin.kernel.family import IPV4, IPV6, Family  # noqa: E402
from cni_plugin.kernel.templates import (  # noqa: E402
    Key,
    Request,
    Span,
    Template,
    encoded,
    fill,
    parameters_of,
    template_key,
)
from ipam.model import Attachment  # noqa: E402

HEADER_BYTES = 16
HOST_NAME = "x" * 14
"""As long as every name of a host veth (``names.names_of``)."""
NAMES = ["x" * length for length in range(1, 16)]
MARK = "x" * len(names.names_of(Attachment("", "")).mark)
MAC = "02:00:00:00:00:01"


class Templates(dict[Key, Template]):
    """Finds a template for each request that is added."""

    def add(self, request: Callable[..., Request], **values: Any) -> None:
        """Find the template of a request with such values."""
        build = request.__wrapped__  # type: ignore[attr-defined]
        ordered = parameters_of(build) | values
        self[template_key(build, tuple(ordered.values()))] = find(build, ordered)


def find(build: Callable[..., Request], values: dict[str, Any]) -> Template:
    """Find where the values stand, by changing one at a time."""
    probes = {name: pair for name, value in values.items() if (pair := probe(name, value)) is not None}
    first = {**values, **{name: pair[0] for name, pair in probes.items()}}
    second = {**values, **{name: pair[1] for name, pair in probes.items()}}
    data = build(**first).data
    spans: list[Span] = []
    for position, name in enumerate(values):
        if name in probes:
            old, new = (encoded(each, is_mac=name.endswith("mac")) for each in probes[name])
            changed = build(**{**first, name: probes[name][1]}).data
            spans.append((position, name.endswith("mac"), places_of(name, data, changed, old, new)))
    template = data, tuple(spans)
    if fill(template, tuple(second.values())) != build(**second).data:
        raise SystemExit(f"prepare: {build.__name__} with {values} can't be filled in")
    return template


def probe(name: str, value: Any) -> tuple[Any, Any] | None:
    """Two values of the same shape that differ in every byte; None where there is nothing to fill in."""
    if isinstance(value, str):
        size = len(value.encode())
        is_mac = name.endswith("mac")
        pair = ("56:57:58:59:5a:5b", "a6:a7:a8:a9:aa:ab") if is_mac else ("x" * size, "y" * size)
        return pair if value else None
    if isinstance(value, int) or value is None:
        return (0x15161718, 0x25262728) if value else None
    low, high = (ip_address(byte * (value.max_prefixlen // 8)) for byte in (b"\x55", b"\xaa"))
    if hasattr(value, "ip"):
        length = value.network.prefixlen
        return ip_interface((low, length)), ip_interface((high, length))
    return low, high


def places_of(name: str, before: bytes, after: bytes, old: bytes, new: bytes) -> tuple[tuple[int, int], ...]:
    """Where ``old`` became ``new``, and nothing else changed."""
    different = [index for index in range(len(before)) if before[index] != after[index]]
    places: list[tuple[int, int]] = []
    covered: set[int] = set()
    for index in different:
        end = index + len(old)
        if index not in covered and before[index:end] == old and after[index:end] == new:
            places.append((index, end))
            covered.update(range(index, end))
    if len(before) != len(after) or covered != set(different):
        raise SystemExit(f"prepare: the place of {name} in the request is ambiguous")
    return tuple(places)


def templates() -> dict[Key, Template]:
    """Templates for all requests of the verbs."""
    found = Templates()
    for name in NAMES:
        found.add(
            encode.new_veth,
            host_name=HOST_NAME,
            host_index=7,
            host_mac=MAC,
            pod_name=name,
            pod_index=8,
            pod_mac=MAC,
            mtu=1500,
            netns_fd=9,
        )
        found.add(encode.get_link, name=name)
    found.add(encode.own_link, index=7, alt_name=MARK)
    found.add(encode.get_link, alt_name=MARK)
    found.add(encode.delete_link, alt_name=MARK)
    for request in (encode.delete_link, encode.get_link, encode.set_link):
        found.add(request, index=7)
    for length in range(1, names.ALIAS_MAX_BYTES + 1):
        found.add(encode.finish_link, index=7, alias="x" * length)
    for family in (IPV4, IPV6):
        for_family(found, family)
    return dict(found)


def for_family(found: Templates, family: Family) -> None:
    """Those with addresses in them."""
    address = family.gateway
    for length in range(1, address.max_prefixlen + 1):
        interface = ip_interface((address, length))
        found.add(encode.new_pod_address, index=7, address=interface, mac=MAC)
    found.add(encode.new_address, index=7, address=ip_interface(address))
    found.add(encode.own_link, index=7, alt_name=MARK, address=address)
    found.add(encode.new_route, index=7, address=address)
    found.add(encode.learn_neighbour, index=7, address=address, mac=MAC)
    found.add(encode.get_route, dst=address)
    found.add(encode.get_forwarded_route, dst=address, source=address, index=7)


def compiled() -> dict[str, bytes]:
    """The requests that are the same in every call: the dumps."""
    encode.dump_links()
    for family in (encode.AF_INET, encode.AF_INET6):
        rules.dump_rules(family)
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
