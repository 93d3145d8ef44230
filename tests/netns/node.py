"""A node of the virtual network for one test: a sandbox with an uplink, addresses, and the plugin.

Owns the node's addressing plan, the verbs as methods, and reading back what kernel and store hold. It must
not know how a call is started (``calls``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

from ipam.ipam import Ipam
from tests.netns.calls import Caller, Outcome, Running
from tests.netns.sandbox import Pod, Sandbox

T = TypeVar("T")

MAC = "00:0d:3a:00:00:01"
ADDRESS = "10.10.0.4"
GATEWAY = "10.10.0.1"
SUBNET = "10.10.0.0/16"
FIRST_POD_ADDRESS = IPv4Address("10.10.0.5")
OUTSIDE = "192.0.2.7"
"""A host beyond the virtual network's gateway."""
RUN_DIR = "/run/azvnet"
LOG_FILE = "/var/log/azvnet/azvnet.log"
INTERFACES = "/etc/kubernetes/interfaces.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
FABRIC = "fabric"

NETCONF: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "azvnet",
    "type": "azvnet",
    "ipam": {"type": "azvnet-ipam", "environment": "file"},
}


class Node:
    """A machine with the plugin. Every method that is a verb makes one call and waits for it."""

    def __init__(self, sandbox: Sandbox, caller: Caller, *, addresses: int = 8, mtu: int = 1500) -> None:
        self.sandbox = sandbox
        self.caller = caller
        self.netconf: dict[str, Any] = json.loads(json.dumps(NETCONF))
        self.environ: dict[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": "/opt/cni/bin"}
        """What every call gets beside its own parameters."""
        self._wire(mtu)
        self.list_addresses(addresses)

    def _wire(self, mtu: int) -> None:
        """The uplink and, at its other end, a fabric that delivers by address without asking for it."""
        # No duplicate address detection: nothing of the uplink changes by itself later.
        self.sandbox.do(lambda: Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0"))
        self.sandbox.new_pods([FABRIC])
        self.sandbox.batch(
            f"link add eth0 address {MAC} mtu {mtu} type veth peer name wire mtu {mtu} netns {FABRIC}",
            "link set eth0 up",
        )
        self.sandbox.batch(
            "link set wire up",
            f"address add {GATEWAY}/32 dev wire",
            f"address add {OUTSIDE}/32 dev lo",
            f"route add {ADDRESS}/32 dev wire",
            f"route add {SUBNET} via {ADDRESS} dev wire",
            namespace=FABRIC,
        )
        self.sandbox.batch(f"address add {ADDRESS}/16 dev eth0", f"route add default via {GATEWAY} dev eth0")

    # Addresses

    def list_addresses(self, count: int, *, also: Sequence[str] = ()) -> list[str]:
        """Have the source list this many pod addresses; returns them."""
        wanted = [str(FIRST_POD_ADDRESS + number) for number in range(count)] + list(also)
        own = [{"Address": ADDRESS, "IsPrimary": True}]
        listed = own + [{"Address": each, "IsPrimary": False} for each in wanted]
        subnets = [{"Prefix": SUBNET, "IPAddresses": listed}]
        mac = MAC.replace(":", "").upper()
        interface = {"MacAddress": mac, "IsPrimary": True, "IPSubnets": subnets}
        self.sandbox.write(INTERFACES, json.dumps({"Interfaces": [interface]}))
        return wanted

    def conf(self, **keys: Any) -> dict[str, Any]:
        """The node's netconf with other keys; ``ipam`` is merged, None removes a key."""
        document = {**self.netconf, **keys}
        if "ipam" in keys and isinstance(keys["ipam"], dict) and "type" not in keys["ipam"]:
            document["ipam"] = {**self.netconf["ipam"], **keys["ipam"]}
        return {key.replace("__", "/"): value for key, value in document.items() if value is not None}

    # Calls

    def start(
        self,
        verb: str,
        pod: Pod | None = None,
        *,
        ifname: str = "eth0",
        conf: object = None,
        stdin: bytes | None = None,
        args: str | None = None,
        env: Mapping[str, str | None] | None = None,
        as_ipam: bool = False,
    ) -> Running:
        """Start a call; ``env`` adds variables, or with None leaves them unset."""
        variables: dict[str, str | None] = {**self.environ, "CNI_COMMAND": verb}
        if pod is not None:
            variables |= {"CNI_CONTAINERID": pod.container_id, "CNI_NETNS": pod.netns, "CNI_IFNAME": ifname}
            variables["CNI_ARGS"] = args if args is not None else pod_args(pod.container_id)
        elif args is not None:
            variables["CNI_ARGS"] = args
        variables |= env or {}
        given = json.dumps(self.netconf if conf is None else conf).encode() if stdin is None else stdin
        chosen = {name: value for name, value in variables.items() if value is not None}
        return self.caller.start(self.sandbox, chosen, given, as_ipam=as_ipam)

    def call(self, verb: str, pod: Pod | None = None, **how: Any) -> Outcome:
        """Make a call and wait for it; see ``start``."""
        return self.start(verb, pod, **how).finish()

    def add(self, pod: Pod, **how: Any) -> Outcome:
        """ADD."""
        return self.call("ADD", pod, **how)

    def delete(self, pod: Pod, **how: Any) -> Outcome:
        """DEL."""
        return self.call("DEL", pod, **how)

    def check(self, pod: Pod, previous: Outcome | Mapping[str, Any], **how: Any) -> Outcome:
        """CHECK with the result of an ADD as prevResult."""
        document = previous.result if isinstance(previous, Outcome) else previous
        conf = {**(how.pop("conf", None) or self.netconf), "prevResult": document}
        return self.call("CHECK", pod, conf=conf, **how)

    def gc(self, valid: Iterable[tuple[Pod, str]], **how: Any) -> Outcome:
        """GC with the attachments that are valid, as pairs of pod and interface name."""
        listed = [{"containerID": pod.container_id, "ifname": ifname} for pod, ifname in valid]
        conf = {**(how.pop("conf", None) or self.netconf), "cni.dev/valid-attachments": listed}
        return self.call("GC", conf=conf, **how)

    def status(self, **how: Any) -> Outcome:
        """STATUS."""
        return self.call("STATUS", **how)

    # What is there

    def pool(self, look: Callable[[Ipam], T]) -> T:
        """What the node's pool answers when it is read."""

        def work() -> T:
            pool = Ipam(Path(RUN_DIR))
            try:
                return look(pool)
            finally:
                pool.close()

        return self.sandbox.ask(work)

    def held(self) -> dict[str, str]:
        """Address to container id, as the store has it."""
        return {
            str(each.ip): each.attachment.container_id for each in self.pool(lambda pool: pool.reservations())
        }

    def counts(self) -> dict[str, int]:
        """The pool by state."""
        counts = self.pool(lambda pool: pool.overview().counts)
        return {name: getattr(counts, name) for name in ("free", "assigned", "cooling", "quarantined")}

    def reads(self) -> tuple[int, int]:
        """How often a source was read since the store was created, and how often in vain."""
        counters = self.pool(lambda pool: dict(pool.overview().counters))
        events = [(name.partition(" ")[0], number) for name, number in counters.items()]
        reads, errors = (
            sum(number for event, number in events if event == wanted)
            for wanted in ("source_reads", "source_errors")
        )
        return reads, errors

    def veths(self) -> dict[str, dict[str, Any]]:
        """The host's ends of pods, by name."""
        links = self.sandbox.ip("-details", "link", "show", "type", "veth")
        return {link["ifname"]: link for link in links if link["ifname"].startswith("azv")}

    def host_routes(self) -> dict[str, str]:
        """Routes to pods: address to the name of the link."""
        routes = self.sandbox.ip("route", "show", "proto", "155")
        return {route["dst"]: route["dev"] for route in routes}

    def residue(self) -> list[str]:
        """Everything of pods that is on the node: links, routes, reservations. Empty when all are gone."""
        held = self.held() if self.sandbox.path(RUN_DIR).is_dir() else {}
        return [
            *(f"link {name} {link.get('ifalias', '')}" for name, link in self.veths().items()),
            *(f"route {dst} dev {dev}" for dst, dev in self.host_routes().items()),
            *(f"{address} held by {container}" for address, container in held.items()),
        ]

    def log(self) -> list[dict[str, Any]]:
        """The records of the log of calls."""
        path = self.sandbox.path(LOG_FILE)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def set_boot_id(self, text: str) -> None:
        """From now on the kernel tells another boot id, as after a reboot."""
        from integration.fabric import syscalls as sc

        self.sandbox.write("/run/.boot_id", text + "\n")
        self.sandbox.do(lambda: sc.mount("/run/.boot_id", BOOT_ID, flags=sc.MS_BIND))


def pod_args(container_id: str, *, namespace: str = "default", name: str = "") -> str:
    """CNI_ARGS as containerd writes them."""
    return (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name or container_id};"
        f"K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID=uid-{container_id}"
    )


def pod_addresses(pod: Pod, ifname: str = "eth0") -> list[str]:
    """The IPv4 addresses that a pod carries, with their prefix lengths."""
    links = pod.ip("-4", "address", "show", "dev", ifname)
    return [f"{info['local']}/{info['prefixlen']}" for link in links for info in link["addr_info"]]


def ping(pod: Pod, target: str, *options: str) -> bool:
    """Whether the pod gets an answer to one packet, for which it waits a second."""
    done = pod.sandbox.run(
        "ip", "netns", "exec", Path(pod.netns).name, "ping", "-n", "-c1", "-W1", *options, target, check=False
    )
    return done.returncode == 0


def sort_addresses(addresses: Iterable[str]) -> list[str]:
    """In the order of numbers, not of text."""
    return sorted(addresses, key=lambda each: int(ip_address(each)))
