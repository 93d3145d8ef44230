"""The files of ip-masq-agent: what they say, together, and which are refused."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from cni_plugin.agent.ip_masq_files import LARGEST_BYTES, IpMasq, IpMasqError, read_ip_masq

AKS = """nonMasqueradeCIDRs:
  - 10.244.0.0/16   # pods
  - "10.0.0.0/16"
masqLinkLocal: true
resyncInterval: 60s
"""
SAYS = {
    "nothing": ("", IpMasq()),
    "a document start and a comment": ("---\n# none\n", IpMasq()),
    "what AKS writes": (AKS, IpMasq((IPv4Network("10.244.0.0/16"), IPv4Network("10.0.0.0/16")), True)),
    "dashes at the left": ("nonMasqueradeCIDRs:\n- 10.1.0.0/16\n", IpMasq((IPv4Network("10.1.0.0/16"),))),
    "a list in brackets": (
        "nonMasqueradeCIDRs: ['10.1.0.0/16', 10.2.0.0/16]\nmasqLinkLocal: false",
        IpMasq((IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"))),
    ),
    "an empty list": ("nonMasqueradeCIDRs: []\n", IpMasq(())),
    "JSON": (
        '{"nonMasqueradeCIDRs": ["10.1.0.0/16"], "masqLinkLocal": true}',
        IpMasq((IPv4Network("10.1.0.0/16"),), True),
    ),
    "white space at the end of lines": (
        "nonMasqueradeCIDRs:\t \n- 10.1.0.0/16\t\nmasqLinkLocal: true \t\n",
        IpMasq((IPv4Network("10.1.0.0/16"),), True),
    ),
    "as much as a file may": ("# ".ljust(LARGEST_BYTES), IpMasq()),
    "IPv6": (
        "nonMasqueradeCIDRs: [fd00::/8]\nmasqLinkLocalIPv6: true\n",
        IpMasq((IPv6Network("fd00::/8"),), link_local_v6=True),
    ),
}
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "host bits": (
        "nonMasqueradeCIDRs: [10.1.0.1/16]",
        "nonMasqueradeCIDRs: 10.1.0.1/16 has host bits set",
    ),
    "no prefix length": ("nonMasqueradeCIDRs: [10.1.0.1]", "'10.1.0.1' is not a network"),
    "no network": ("nonMasqueradeCIDRs: [here/8]", "here/8"),
    "nothing in quotes": ("nonMasqueradeCIDRs: ['']", "'' is not a network"),
    "a quote alone": ("nonMasqueradeCIDRs: [']", '"\'" is not a network'),
    "a quote that does not end": ("nonMasqueradeCIDRs: ['10.1.0.0/16]", '"\'10.1.0.0/16" does not appear'),
    "no list": ("nonMasqueradeCIDRs: 10.0.0.0/8", "is not a list"),
    "neither true nor false": ("masqLinkLocal: maybe", "'maybe', neither true nor false"),
    "too many": (
        "nonMasqueradeCIDRs: [" + ", ".join(f"10.{n}.0.0/16" for n in range(65)) + "]",
        "65 entries",
    ),
    "a list that does not end": ("nonMasqueradeCIDRs: [10.0.0.0/8,", "does not end"),
    "a dash without a list": ("- 10.0.0.0/8", "line 1"),
    "a nested key": ("config:\n  masqLinkLocal: true\n", "line 2"),
    "prose": ("all of it, please", "line 1"),
    "a list as JSON's end": ('{"nonMasqueradeCIDRs": [', "Expecting"),
    "JSON without end": ('{"nonMasqueradeCIDRs": ' + "[" * 50_000, "recursion"),
    "a byte too much": ("# ".ljust(LARGEST_BYTES + 1), "larger than"),
    "what is not text": (b"\xff\xfe", "can't decode"),
    "much too large": (b" " * (1 << 18), "larger than"),
}


@pytest.mark.parametrize("what", SAYS)
def test_a_file_says(what: str, tmp_path: Path) -> None:
    content, meant = SAYS[what]
    (tmp_path / "ip-masq-agent").write_text(content)
    assert read_ip_masq(f"{tmp_path}/ip-masq*") == meant


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_not_valid_is_refused_and_named(what: str, tmp_path: Path) -> None:
    content, words = REFUSED[what]
    path = tmp_path / "ip-masq-agent"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / "ip-masq-agent-good").write_text(AKS)
    with pytest.raises(IpMasqError) as refused:
        read_ip_masq(f"{tmp_path}/ip-masq*")
    assert str(path) in str(refused.value)
    assert words in str(refused.value)


def test_several_files_are_merged_and_others_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "ip-masq-agent").write_text("nonMasqueradeCIDRs: [10.1.0.0/16]\n")
    (tmp_path / "ip-masq-agent-reconciled").write_text(
        "nonMasqueradeCIDRs: [10.2.0.0/16]\nmasqLinkLocal: true\n"
    )
    (tmp_path / "other").write_text("nonMasqueradeCIDRs: nonsense\n")
    merged = IpMasq((IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16")), link_local=True)
    assert read_ip_masq(f"{tmp_path}/ip-masq*") == merged
    assert read_ip_masq("") == IpMasq()


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ip-masq-agent").mkdir()
    with pytest.raises(IpMasqError, match="ip-masq-agent can't be read: Is a directory"):
        read_ip_masq(f"{tmp_path}/ip-masq*")
