"""Requests in one send: what the kernel says of each, and what is asked of it only once."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from ipaddress import ip_address

import pytest

from cni_plugin.cni.errors import KernelRefused
from cni_plugin.kernel import encode, netlink, netns, nftables, sysctl
from cni_plugin.kernel.decode import WayOut
from cni_plugin.kernel.host_cache import KnownHost
from cni_plugin.kernel.netlink import Netlink
from integration.fabric import syscalls as sc
from ipam.model import IPAddress
from tests.netns.sandbox import Sandbox

pytestmark = pytest.mark.alone("about parts that both ways have in common")

DUMMY = "link add d0 index 50 mtu 1400 type veth peer name d1"


def test_the_first_failure_of_a_batch_is_raised_and_the_rest_is_carried_out(sandbox: Sandbox) -> None:
    def work() -> tuple[str, list[str]]:
        sandbox.batch(DUMMY, "link set d0 up", "link set d1 up")
        host = Netlink()
        wanted = [encode.new_route(50, ip_address(f"10.9.0.{each}")) for each in (1, 2, 2, 3, 3, 4)]
        try:
            host.change(wanted)
        except FileExistsError as error:
            said = str(error)
        else:
            said = ""
        found = host.routes(encode.dump_routes(encode.AF_INET))
        return said, sorted(str(route.dst) for route in found if route.dst.prefixlen == 32)

    said, there = sandbox.ask(work)
    assert "add the route to 10.9.0.2/32: File exists" in said
    assert there == [f"10.9.0.{each}/32" for each in (1, 2, 3, 4)]


def test_answers_to_a_batch_before_do_not_answer_the_next(sandbox: Sandbox) -> None:
    def work() -> list[str]:
        sandbox.batch(DUMMY, "link set d0 up", "link set d1 up")
        host = Netlink()
        twice = [encode.new_route(50, ip_address("10.9.0.1"))] * 3
        host.send(host.numbered(twice))  # two failures that nobody reads
        host.change([encode.new_route(50, ip_address("10.9.0.2"))])
        link = host.one_link(encode.get_link(name="d0"))
        return [link.name if link else "", *sorted(each.name for each in host.links(encode.dump_links()))]

    assert sandbox.ask(work) == ["d0", "d0", "d1", "lo"]


def test_an_answer_that_is_longer_than_the_memory_for_it_is_an_error(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "RECEIVE_BYTES", 64)

    def work() -> str:
        try:
            Netlink().one_link(encode.get_link(name="lo"))
        except OSError as error:
            return str(error.strerror)
        return "it was cut off"

    assert "more than 64" in sandbox.ask(work)


def test_a_batch_that_ends_with_reading_ends_with_that_answer(sandbox: Sandbox) -> None:
    def work() -> list[str]:
        sandbox.batch(DUMMY, "link set d0 up", "link set d1 up")
        host, said = Netlink(), []
        read = encode.get_link(index=50)
        routes = [encode.new_route(50, ip_address(f"10.9.0.{each}")) for each in (1, 1, 2)]
        for batch in (
            [encode.finish_link(50, "words")],
            [*routes, read],
            [encode.get_link(index=51)],
            [read],
        ):
            try:
                host.change(batch)
            except OSError as error:
                said.append(f"{type(error).__name__} {error.strerror}")
            else:
                said.append("")
        link = host.one_link(encode.get_link(name="d0"))  # the answer to this, not to one before
        return [*said, link.alias if link else ""]

    done, failed, missing, read, alias = sandbox.ask(work)
    assert (done, read, alias) == ("", "", "words")
    assert failed.startswith("FileExistsError add the route to 10.9.0.1/32")
    assert missing.startswith("NoSuchDevice read link 51")


def test_whether_the_host_may_carry_an_address_is_asked_each_time(sandbox: Sandbox) -> None:
    def work() -> tuple[list[bool], int]:
        host, found = Netlink(), []
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for line in (DUMMY, "address add 10.9.0.1/24 dev d0", "address del 10.9.0.1/24 dev d0"):
            sandbox.batch(line)
            found += [host.may_carry(ip_address(each)) for each in ("10.9.0.1", "10.9.0.2")]
        host.close()
        return found, len(os.listdir("/proc/self/fd")) - before  # noqa: PTH208

    carried, left_open = sandbox.ask(work)
    assert carried == [False, False, True, False, False, False]
    assert left_open == -1  # the socket of netlink, and nothing else that it had opened


class TestNamespaces:
    def test_a_sibling_is_of_the_other_namespace_and_its_thread_is_where_it_was(
        self, sandbox: Sandbox
    ) -> None:
        def work() -> tuple[list[str], bool, int]:
            sandbox.batch(DUMMY)
            before = netns.own_identity()
            host, fds = Netlink(), [_another_namespace() for _ in range(3)]
            opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            seen = []
            for fd in fds:
                with host.sibling_in(fd) as pod:
                    seen += [each.name for each in pod.links(encode.dump_links())]
            seen += sorted(each.name for each in host.links(encode.dump_links()))
            host.close()
            left_open = len(os.listdir("/proc/self/fd")) - opened  # noqa: PTH208
            return seen, netns.own_identity() == before, left_open

        assert sandbox.ask(work) == (["lo", "lo", "lo", "d0", "d1", "lo"], True, -1)

    def test_after_work_in_another_namespace_the_thread_is_where_it_was(self, sandbox: Sandbox) -> None:
        def work() -> tuple[bool, str, bool, str]:
            sandbox.batch(DUMMY)
            fd = _another_namespace()
            before = netns.own_identity()
            inside = netns.call_in(fd, netns.own_identity)
            said = ""
            try:
                netns.call_in(fd, lambda: 1 // 0)
            except ZeroDivisionError as error:
                said = str(error)
            found = netns.call_in(fd, Netlink).links(encode.dump_links())
            there = ",".join(each.name for each in found)
            return inside == netns.identity(fd), said, netns.own_identity() == before, there

        assert sandbox.ask(work) == (True, "integer division or modulo by zero", True, "lo")

    def test_what_can_not_be_entered_is_said_and_nothing_is_left_open(self, sandbox: Sandbox) -> None:
        def work() -> tuple[str, int]:
            with open(os.devnull) as no_namespace:  # noqa: PTH123
                before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
                try:
                    netns.call_in(no_namespace.fileno(), netns.own_identity)
                except KernelRefused as error:
                    return str(error), len(os.listdir("/proc/self/fd")) - before  # noqa: PTH208
            return "it was entered", 0

        assert sandbox.ask(work) == ("enter the pod's network namespace: Invalid argument", 0)

    def test_a_process_that_can_not_come_back_ends_at_once(self, sandbox: Sandbox) -> None:
        """What it did next would be done to the pod, as if that were the host."""

        def work() -> int:
            fd = _another_namespace()
            pid = os.fork()
            if pid == 0:
                faulthandler.disable()
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                netns.call_in(fd, lambda: sc.drop_capability(sc.CAP_SYS_ADMIN))
                os._exit(0)
            return os.waitpid(pid, 0)[1]

        status = sandbox.ask(work)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGABRT


class TestKnownHost:
    def test_addresses_are_those_the_host_has_now(self, sandbox: Sandbox) -> None:
        def work() -> list[list[str]]:
            host, known = Netlink(), KnownHost()
            seen = [known.addresses(host)]
            for line in (
                DUMMY,
                "address add 10.9.0.1/24 dev d0",
                "address add 10.9.1.1/24 dev d0",
                "address del 10.9.0.1/24 dev d0",
                "link del d0",
            ):
                sandbox.batch(line)
                seen.append(known.addresses(host))
            return [sorted(map(str, each)) for each in seen]

        first, second = "10.9.0.1", "10.9.1.1"
        assert sandbox.ask(work) == [
            sorted(["127.0.0.1", *expected]) for expected in ([], [], [first], [first, second], [second], [])
        ]

    def test_addresses_are_listed_again_only_when_the_kernel_told_of_a_change(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed: list[Netlink] = []
        original = Netlink.own_addresses

        def counted(host: Netlink) -> frozenset[IPAddress]:
            listed.append(host)
            return original(host)

        monkeypatch.setattr(Netlink, "own_addresses", counted)

        def work() -> int:
            host, known = Netlink(), KnownHost()
            sandbox.batch(DUMMY, "link set d0 up", "link set d0 alias words")
            for _ in range(10):
                known.addresses(host)
            return len(listed)

        assert sandbox.ask(work) == 1

    def test_a_list_that_could_not_be_made_is_made_the_next_time(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: Netlink) -> frozenset[IPAddress]:
            raise InterruptedError

        def work() -> bool:
            host, known = Netlink(), KnownHost()
            known.addresses(host)
            sandbox.batch(DUMMY, "address add 10.9.0.1/24 dev d0")
            with monkeypatch.context() as patch:
                patch.setattr(Netlink, "own_addresses", refuse)
                with pytest.raises(InterruptedError):
                    known.addresses(host)
            return ip_address("10.9.0.1") in known.addresses(host)

        assert sandbox.ask(work)

    def test_an_answer_is_asked_again_after_a_while(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def work() -> list[list[int]]:
            found = []
            for seconds in (1e9, 0.0):
                monkeypatch.setattr("cni_plugin.kernel.host_cache.ANSWER_SECONDS", seconds)
                known, asked = KnownHost(), iter(range(9))
                found.append([known.answer("key", asked.__next__) for _ in range(3)])
            return found

        assert sandbox.ask(work) == [[0, 0, 0], [0, 1, 2]]

    def test_an_answer_that_could_not_be_had_is_asked_the_next_time(self, sandbox: Sandbox) -> None:
        def work() -> list[str]:
            known, failing = KnownHost(), iter([True, False])

            def ask() -> str:
                if next(failing):
                    raise InterruptedError
                return "answer"

            with pytest.raises(InterruptedError):
                known.answer("key", ask)
            return [known.answer("key", ask), known.answer("key", ask)]

        assert sandbox.ask(work) == ["answer", "answer"]

    def test_what_concerns_rules_for_packets_is_asked_again_when_a_table_changes(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cni_plugin.kernel.host_cache.ANSWER_SECONDS", 1e9)

        def work() -> list[list[str]]:
            known = KnownHost()
            seen: list[list[str]] = []
            rule = nftables.Rule("a rule", (nftables.RETURN,))
            chain = nftables.Chain("c", "filter", nftables.FORWARD, 0, (rule,))

            def look() -> None:
                seen.append(known.packet_rules_answer("key", lambda: nftables.comments_of("another")))

            look()
            nftables.replace_table("another", [chain])
            look()
            look()
            nftables.delete_table("another")
            look()
            return seen

        assert sandbox.ask(work) == [[], ["a rule"], ["a rule"], []]

    def test_how_packets_leave_is_asked_again_when_the_kernel_tells_of_a_change(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And not for what every ADD and DEL does: a pod's link, and a route to its address."""
        monkeypatch.setattr("cni_plugin.kernel.host_cache.ANSWER_SECONDS", 1e9)

        def work() -> list[str]:
            sysctl.write("ipv6/conf/default/disable_ipv6", "1")  # it would change by itself later
            host, known = Netlink(), KnownHost()
            asked: list[str] = []

            def after(what: str, *commands: str) -> None:
                sandbox.batch(*commands)

                def ask() -> WayOut:
                    asked.append(what)
                    return WayOut(host.one_link(encode.get_link(name="d0")), by_sender=False)

                known.answer("way out", ask)

            after("the first time", DUMMY, "link set d0 up", "address add 10.9.0.4/24 dev d0")
            after("nothing")
            pair = "link add p0 index 100000 group 155 type veth peer name p1 index 100001 group 155"
            after("a pod", pair, "link set p0 up", "route add 10.9.0.7 dev p0")
            after("its end", "link delete p0")
            after("a link that is not a pod's", "link add e0 type veth peer name e1")
            after("a default route", "route add default via 10.9.0.1")
            after("a rule", "rule add from 10.9.0.0/24 lookup 200")
            after("a route of another table", "route add default via 10.9.0.2 table 200")
            after("the link", "link set d0 down")
            after("nothing more")
            return asked

        assert sandbox.ask(work) == [
            "the first time",
            "a link that is not a pod's",
            "a default route",
            "a rule",
            "a route of another table",
            "the link",
        ]


def _another_namespace() -> int:
    """A namespace that this process is not in."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    sc.unshare(sc.CLONE_NEWNET)
    other = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    sc.setns(home, sc.CLONE_NEWNET)
    return other


def test_addresses_are_of_ipv4(sandbox: Sandbox) -> None:
    def work() -> bool:
        sandbox.batch("link set lo up", "address add fd00::1/128 dev lo")
        return Netlink().own_addresses() == {ip_address("127.0.0.1")}

    assert sandbox.ask(work)
