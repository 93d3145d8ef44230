"""``azvnet show`` as a picture: aligned, within 100 columns, and nothing left out because it is unknown."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_plugin.cli.drawing import ASCII, LINES, broken, picture, printable, strokes_for
from cni_plugin.cli.facts import End, Facts, Provision
from cni_plugin.kernel.decode import KernelRoute, Link, LinkAddress, Neighbour
from ipam.model import Attachment, Holder, Owner
from ipam.value import replace

NOW = 1_800_000_000.0
OWNER = Owner("azvnet", pod_namespace="demo", pod_name="web", netns="/run/netns/web", call_id="c0ffee")
HOST = Link(104, "azv0123456789a", "aa:aa:aa:aa:aa:aa", 1500, 1, kind="veth", lower=105)
POD = Link(105, "eth0", "02:00:00:00:00:01", 1500, 1, kind="veth", lower=104)
NIC = Link(2, "eth0", "00:0d:3a:00:00:01", 1500, 1)
WEB = Facts(
    Attachment("0123456789abcdef" * 4, "eth0"),
    OWNER,
    confirmed=True,
    since=NOW - 90,
    addresses=(
        Provision(
            ip_interface("10.10.0.5/16"), ip_address("10.10.0.1"), "arm", NIC.mac, NIC, "ipconfig-pod-7"
        ),
    ),
    host=End(HOST, routes=(KernelRoute(ip_network("10.10.0.5/32"), None, 104, 155, 253, 1),)),
    pod=End(
        POD,
        (LinkAddress(105, ip_address("10.10.0.5"), 32),),
        (KernelRoute(ip_network("0.0.0.0/0"), ip_address("169.254.1.1"), 105, 155, 0, 1),),
        (Neighbour(105, ip_address("169.254.1.1"), "aa:aa:aa:aa:aa:aa", 0x80),),
    ),
    paired=True,
)
EXPECTED = """\
pod        demo/web
container  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
interface  eth0, network azvnet, made by azvnet
namespace  /run/netns/web
since      2027-01-15 07:58:30Z, 1m30s ago
CNI call   c0ffee
┌─ pod ──────────────────────────────────────┐        ┌─ node ─────────────────────────────────────┐
│ eth0       index 105, peer 104             ╞════════╡ azv0123456789a index 104, peer 105         │
│ MAC        02:00:00:00:00:01, MTU 1500, up │        │ MAC        aa:aa:aa:aa:aa:aa, MTU 1500, up │
│ address    10.10.0.5/32                    │        │ address    none                            │
│ route      default via 169.254.1.1         │        │ route      10.10.0.5 scope link            │
│ neighbour  169.254.1.1 aa:aa:aa:aa:aa:aa   │        │ neighbour  none                            │
│            permanent                       │        └──────────────────────┬─────────────────────┘
└────────────────────────────────────────────┘        ┌─ NIC ────────────────┴─────────────────────┐
                                                      │ eth0       index 2, MTU 1500               │
                                                      │ MAC        00:0d:3a:00:00:01               │
                                                      │ address    10.10.0.5/16, gateway 10.10.0.1 │
                                                      │ IP config  ipconfig-pod-7                  │
                                                      │ source     arm                             │
                                                      └────────────────────────────────────────────┘
"""


def drawn(facts: Facts, strokes: Any = LINES) -> str:
    return picture(facts, strokes, NOW)


def words(text: str) -> str:
    """Without frames and line breaks, to look for a sentence in it."""
    return " ".join(text.translate(str.maketrans("│┌┐└┘─╞╡═|+-", " " * 12)).split())


def test_the_whole_picture() -> None:
    assert drawn(WEB) == EXPECTED


def test_plain_ascii_has_the_same_words_in_the_same_places() -> None:
    plain = drawn(WEB, ASCII)
    assert plain.isascii()
    lines = str.maketrans("─│┌┐└┘┬┴╞╡═", "-|++++++++=")
    assert plain == EXPECTED.translate(lines)


@pytest.mark.parametrize("strokes", [LINES, ASCII])
def test_whatever_stands_in_it_fits_into_100_columns(strokes: Any) -> None:
    long = "x" * 70
    pod = End(
        replace(POD, name="a" * 15),
        tuple(
            LinkAddress(105, ip_address(each), 128) for each in ("fd00:1234:5678:9abc:def0:1234:5678:9abc",)
        ),
        (
            KernelRoute(
                ip_network("fd00:1234:5678:9abc:def0:1234:5678:0/112"),
                ip_address("fe80::1"),
                105,
                9,
                0,
                1,
            ),
        ),
    )
    facts = replace(
        WEB,
        pod=pod,
        host=None,
        paired=None,
        unknown={"hostEnd": f"because of {long}", "ipConfiguration": long},
        addresses=(replace(WEB.addresses[0], configuration=""),),
    )
    lines = drawn(facts, strokes).splitlines()
    assert max(map(len, lines)) <= 100
    frames = [line for line in lines if line[:1] in "┌│└|+"]
    assert {line[45] for line in frames} <= set("┐│┘╞|+"), "the pod's frame is straight"
    assert long in "".join(words(drawn(facts, strokes)).split()), "nothing is cut off"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pod": None, "unknown": {"podEnd": "its namespace is gone"}}, "not known: its namespace is gone"),
        ({"host": None, "unknown": {"hostEnd": "it is missing"}}, "not known: it is missing"),
        ({"since": 0.0, "unknown": {"since": "found in the kernel"}}, "not known: found in the kernel"),
        ({"owner": replace(OWNER, pod_name=""), "unknown": {"pod": "nobody said"}}, "not known: nobody said"),
        ({"owner": replace(OWNER, call_id=""), "unknown": {"callID": "no log"}}, "not known: no log"),
        ({"owner": replace(OWNER, netns=""), "unknown": {"netns": "no path"}}, "not known: no path"),
        ({"addresses": (), "unknown": {"addresses": "no store"}}, "not known: no store"),
        ({"paired": False}, "not each other's peers"),
        ({"confirmed": False}, "ADD not finished"),
        ({"owner": replace(OWNER, holder=Holder.DELEGATED)}, "made by another plugin"),
    ],
)
def test_what_is_not_known_is_said(change: dict[str, Any], said: str) -> None:
    assert said in words(drawn(replace(WEB, **change)))


def test_a_name_that_is_not_known_to_the_source_is_said_so() -> None:
    nameless = replace(WEB.addresses[0], configuration="", source="imds")
    facts = replace(WEB, addresses=(nameless,), unknown={"ipConfiguration": "not known to source imds"})
    assert "IP config not known to source imds" in words(drawn(facts))


@pytest.mark.parametrize(
    ("environ", "strokes"),
    [
        ({"LANG": "en_US.UTF-8"}, LINES),
        ({"LANG": "C.utf8"}, LINES),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, ASCII),
        ({"LC_CTYPE": "UTF-8", "LANG": "C"}, LINES),
        ({"LC_ALL": "", "LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({}, ASCII),
    ],
)
def test_the_locale_says_what_can_be_shown(environ: dict[str, str], strokes: Any) -> None:
    assert strokes_for(environ) is strokes


def test_a_terminal_gets_no_commands_from_names() -> None:
    assert printable("azv\x1b[2Jx\n") == "azv?[2Jx?"
    assert "\x1b" not in drawn(replace(WEB, host=End(replace(HOST, name="azv\x1b[2J"))))


def test_lines_break_between_words_where_they_can() -> None:
    assert list(broken("one two three", 7)) == ["one two", "three"]
    assert list(broken("abcdefghij", 4)) == ["abcd", "efgh", "ij"]
    assert list(broken("a bcdefgh", 4)) == ["a", "bcde", "fgh"]
    assert list(broken("", 4)) == [""]
