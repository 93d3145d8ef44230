"""Compiles the netlink requests of ordinary calls, once, for the bundle.

    prepare.py BUNDLE/azvnet-lib

What pyroute2 makes of them is the same on every node, so a call need not load pyroute2 to have it made
again. Requests with names, indexes and addresses in them become templates (cni_plugin/kernel/templates.py),
for every length that a name can have. The result takes the place of cni_plugin/kernel/prepared.py.
"""

import marshal
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cni_plugin.datapath import names  # noqa: E402
from cni_plugin.kernel import encode, prepared  # noqa: E402
from cni_plugin.kernel.templates import Templates  # noqa: E402
from ipam.model import Attachment  # noqa: E402

HEADER_BYTES = 16
HOST_NAME = "x" * 14
"""As long as every name of a host veth (``names.names_of``)."""
NAMES = ["x" * length for length in range(1, 16)]
MAC = "02:00:00:00:00:01"


def templates() -> dict[tuple[object, ...], Any]:
    """Templates for whatever the verbs ask for; each is found as the agent finds it."""
    found = Templates(learn=True)
    for name in NAMES:
        found.new_veth(
            host_name=HOST_NAME,
            host_index=7,
            host_mac=MAC,
            pod_name=name,
            pod_index=8,
            pod_mac=MAC,
            mtu=1500,
            netns_fd=9,
        )
        found.get_link(name=name)
    mark = "x" * len(names.names_of(Attachment("", "")).mark)
    found.set_mark(7, mark)
    found.get_link(alt_name=mark)
    found.delete_link(alt_name=mark)
    found.delete_link(index=7)
    for length in range(names.ALIAS_MAX_BYTES + 1):
        found.set_link(7, alias="x" * length)
    for length in range(1, 33):
        found.new_address(7, IPv4Interface((1, length)))
    address = IPv4Address(1)
    for route in (found.new_route, found.new_pod_route):
        route(7, IPv4Network(address))
        route(7, IPv4Network("0.0.0.0/0"), gateway=address)
    found.set_link(7)
    found.new_neighbour(7, address, MAC)
    found.get_link(index=7)
    found.get_route(address)
    return found.found()


def compiled() -> dict[str, bytes]:
    """The requests that are the same in every call: the dumps."""
    encode.dump_links()
    for family in (encode.AF_INET, encode.AF_INET6):
        for dump in (encode.dump_addresses, encode.dump_routes, encode.dump_neighbours):
            dump(family)
    return encode.COMPILED


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
