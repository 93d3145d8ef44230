"""What an attachment is called in the kernel, and which link is its own."""

from __future__ import annotations

import hashlib
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.datapath import names as naming
from cni_plugin.datapath.names import names_for, names_of
from cni_plugin.kernel.decode import Link
from ipam.model import Attachment, Owner
from ipam.value import replace

ATTACHMENT = Attachment("c1", "eth0")
NAMES = names_of(ATTACHMENT, "default", "web")
CALL_ID = "0123456789abcdef" * 2
FIRST, LAST = 100_000, 999_999


def link(index: int = 7, name: str = "azv0", **more: object) -> Link:
    return Link(index=index, name=name, mac="", mtu=1500, flags=1, **more)  # type: ignore[arg-type]


def test_the_visible_name_is_the_one_that_azure_cni_and_calico_compute() -> None:
    assert NAMES.host_ifname == "azv" + hashlib.sha1(b"default.web").hexdigest()[:11]
    assert names_for(ATTACHMENT, Owner("n", pod_namespace="default", pod_name="web")) == NAMES


def test_without_a_pods_name_it_is_the_attachments_own() -> None:
    nameless = names_of(ATTACHMENT, "default", "")
    assert nameless.host_ifname == nameless.own_ifname == NAMES.own_ifname
    assert NAMES.own_ifname != NAMES.host_ifname


def test_it_is_never_the_name_of_the_pods_end() -> None:
    taken = Attachment("c1", NAMES.host_ifname)
    names = names_of(taken, "default", "web")
    assert names.host_ifname == names.own_ifname != taken.ifname


def test_names_fit_the_kernel_and_differ_between_attachments() -> None:
    other = names_of(Attachment("c1", "net1"), "default", "web")
    assert len(NAMES.host_ifname) == len(NAMES.own_ifname) == 14  # IFNAMSIZ less the NUL is 15
    assert NAMES.mark.startswith("azvnet-")
    assert len(NAMES.mark) == len("azvnet-") + 24
    assert other.mark != NAMES.mark
    assert other.own_ifname != NAMES.own_ifname
    assert other.pod_mac != NAMES.pod_mac
    assert other.host_ifname == NAMES.host_ifname


@given(st.text("abcdef0123456789", min_size=1, max_size=64))
def test_every_derived_mac_is_unicast_and_locally_administered(container: str) -> None:
    first = bytes.fromhex(names_of(Attachment(container, "eth0")).pod_mac.replace(":", ""))[0]
    assert first & 1 == 0
    assert first & 2 == 2


@given(st.integers(0, 2**32 - 1))
def test_index_pairs_lie_in_their_range_do_not_repeat_and_differ_from_each_other(first: int) -> None:
    pairs = list(naming.index_pairs(replace(NAMES, first_index=first)))
    every = [index for pair in pairs for index in pair]
    assert len(pairs) == naming.INDEX_ATTEMPTS
    assert len(set(every)) == len(every)
    assert all(FIRST <= index <= LAST for index in every)
    assert all(pod == host + 1 for host, pod in pairs)


def test_the_pairs_after_the_last_are_the_first_ones() -> None:
    pairs = islice(naming.index_pairs(replace(NAMES, first_index=449_999)), 2)
    assert list(pairs) == [(LAST - 1, LAST), (FIRST, FIRST + 1)]


@pytest.mark.parametrize(
    ("attachment", "network", "call_id", "kept"),
    [
        (ATTACHMENT, "azure", CALL_ID, ("azure", CALL_ID)),
        (ATTACHMENT, "azure", "", ("azure", "")),
        (ATTACHMENT, "azure", CALL_ID[1:], ("azure", "")),
        (ATTACHMENT, "azure", CALL_ID + "0", ("azure", "")),
        (ATTACHMENT, "azure", "no id", ("azure", "")),
        # azvnet1 + container + eth0 + network + call, and the blanks between them
        (Attachment("c" * 200, "eth0"), "n" * 7, CALL_ID, ("n" * 7, CALL_ID)),
        (Attachment("c" * 200, "eth0"), "n" * 8, CALL_ID, ("n" * 8, "")),
        (Attachment("c" * 200, "eth0"), "n" * 40, CALL_ID, ("n" * 40, "")),
        (Attachment("c" * 200, "eth0"), "n" * 41, CALL_ID, ("", "")),
        (Attachment("c" * 241, "eth0"), "n", CALL_ID, ("", "")),
    ],
)
def test_an_alias_says_as_much_as_fits(
    attachment: Attachment, network: str, call_id: str, kept: tuple[str, str]
) -> None:
    written = naming.alias(attachment, network, call_id)
    assert len(written.encode()) <= 254
    assert naming.read_alias(written) == (attachment, *kept)


@pytest.mark.parametrize(
    "text", ["", "azvnet1", "azvnet1 c1", "azvnet2 c1 eth0", "azvnet1 c1 eth0 n id more", "mine c1 eth0 n"]
)
def test_any_other_alias_is_nobodys(text: str) -> None:
    assert naming.read_alias(text) is None
    assert naming.owner_of(link(alias=text, alt_names=(NAMES.mark,))) is None


def test_a_marked_link_is_the_attachments_whatever_else_it_says() -> None:
    foreign_alias = naming.alias(Attachment("c2", "eth0"), "azure")
    assert naming.is_own(link(alt_names=("other", NAMES.mark), alias=foreign_alias), NAMES)
    assert naming.is_marked(link(alt_names=("other", NAMES.mark)))
    assert not naming.is_marked(link(alt_names=("other",)))


def test_a_link_with_another_attachments_mark_is_not_its_own_even_at_its_index() -> None:
    index = next(naming.index_pairs(NAMES))[0]
    theirs = names_of(Attachment("c2", "eth0"))
    assert not naming.is_own(
        link(
            index, NAMES.own_ifname, kind="veth", alt_names=(theirs.mark,), alias=naming.alias(ATTACHMENT, "")
        ),
        NAMES,
    )


def test_a_link_of_an_earlier_version_has_its_name_and_alias() -> None:
    ours = naming.alias(ATTACHMENT, "azure")
    assert naming.is_own(link(name=NAMES.own_ifname, alias=ours), NAMES)
    assert not naming.is_own(link(name=NAMES.own_ifname), NAMES)
    assert not naming.is_own(link(name=NAMES.host_ifname, alias=ours), NAMES)
    theirs = naming.alias(Attachment("c2", "eth0"), "azure")
    assert not naming.is_own(link(name=NAMES.own_ifname, alias=theirs), NAMES)


def test_a_veth_that_a_killed_add_could_not_mark_has_an_index_of_the_attachment() -> None:
    pairs = list(naming.index_pairs(NAMES))
    theirs = naming.alias(Attachment("c2", "eth0"), "azure")
    for host, pod in (pairs[0], pairs[-1]):
        assert naming.is_own(link(host, kind="veth"), NAMES)
        assert naming.is_own(link(host, kind="veth", alias=naming.alias(ATTACHMENT, "")), NAMES)
        assert not naming.is_own(link(host, kind="veth", alias=theirs), NAMES)
        assert not naming.is_own(link(host, kind="dummy"), NAMES)
        assert not naming.is_own(link(pod, kind="veth"), NAMES)


def test_the_owner_is_known_where_mark_and_alias_agree() -> None:
    alias = naming.alias(ATTACHMENT, "azure", CALL_ID)
    assert naming.owner_of(link(alt_names=(NAMES.mark,), alias=alias)) == (ATTACHMENT, "azure", CALL_ID)
    assert naming.owner_of(link(alias=alias)) is None


def test_an_add_is_finished_when_the_alias_names_its_attachment() -> None:
    alias = naming.alias(ATTACHMENT, "azure")
    assert naming.is_finished(link(alias=alias), ATTACHMENT)
    assert not naming.is_finished(link(alias=alias), Attachment("c1", "net1"))
    assert not naming.is_finished(link(), ATTACHMENT)
    assert not naming.is_finished(None, ATTACHMENT)


def test_among_many_links_the_marked_one_is_found_first() -> None:
    older = link(8, NAMES.own_ifname, alias=naming.alias(ATTACHMENT, "azure"))
    marked = link(9, "renamed", alt_names=(NAMES.mark,))
    foreign = link(10, NAMES.host_ifname)
    assert naming.find(NAMES, naming.by_name([older, marked, foreign])) is marked
    assert naming.find(NAMES, naming.by_name([older, foreign])) is older
    assert naming.find(NAMES, naming.by_name([foreign])) is None
    killed = link(next(naming.index_pairs(NAMES))[0], NAMES.host_ifname, kind="veth")
    assert naming.find(NAMES, naming.by_name([killed])) is killed
