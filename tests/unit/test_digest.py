"""What is derived from an attachment never changes: DEL of one version removes what another made."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.datapath.names import index_pairs, names_of
from cni_plugin.kernel.digest import digest
from ipam.model import Attachment


def test_names_macs_indexes_and_lock_are_those_of_every_version() -> None:
    names = names_of(Attachment("c1", "eth0"))
    assert names.host_ifname == names.own_ifname == "azv369c8d47e56"
    assert names.mark == "azvnet-369c8d47e56b850a7fbc519a"
    assert names.pod_mac == "86:0a:7f:bc:51:9a"
    assert next(index_pairs(names)) == (331616, 331617)
    assert names.lock_offset == 0x369C8D47E56B85


def test_the_visible_name_is_the_one_that_azure_cni_and_calico_compute() -> None:
    names = names_of(Attachment("c1", "eth0"), "default", "web-0")
    expected = hashlib.sha1(b"default.web-0", usedforsecurity=False).hexdigest()[:11]
    assert (names.host_ifname, names.own_ifname) == (f"azv{expected}", "azv369c8d47e56")


def test_the_two_ends_of_a_pod_never_have_one_name() -> None:
    """containerd keys interfaces by name."""
    taken = names_of(Attachment("c1", "eth0"), "default", "web-0").host_ifname
    assert names_of(Attachment("c1", taken), "default", "web-0").host_ifname != taken


@given(st.text(max_size=70), st.text(max_size=15))
def test_it_is_the_sha1_of_container_id_and_interface_name(container_id: str, ifname: str) -> None:
    expected = hashlib.sha1(f"{container_id}\0{ifname}".encode(), usedforsecurity=False).digest()
    assert digest(Attachment(container_id, ifname)) == expected


def test_bytes_of_the_environment_that_are_no_text_are_kept_apart() -> None:
    first, second = (Attachment(raw.decode(errors="surrogateescape"), "eth0") for raw in (b"\xff", b"\xfe"))
    assert digest(first) != digest(second)
