"""What is derived from an attachment never changes: DEL of one version removes what another made."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.datapath import endpoint
from cni_plugin.kernel.digest import digest
from ipam.model import Attachment


def test_names_macs_and_indexes_are_those_of_every_version() -> None:
    attachment = Attachment("c1", "eth0")
    assert endpoint.host_ifname(attachment) == "azv369c8d47e56"
    assert endpoint.default_pod_mac(attachment) == "86:0a:7f:bc:51:9a"
    assert next(endpoint.index_pairs(attachment)) == (331616, 331617)


@given(st.text(max_size=70), st.text(max_size=15))
def test_it_is_the_sha1_of_container_id_and_interface_name(container_id: str, ifname: str) -> None:
    expected = hashlib.sha1(f"{container_id}\0{ifname}".encode(), usedforsecurity=False).digest()
    assert digest(Attachment(container_id, ifname)) == expected


def test_bytes_of_the_environment_that_are_no_text_are_kept_apart() -> None:
    first, second = (Attachment(raw.decode(errors="surrogateescape"), "eth0") for raw in (b"\xff", b"\xfe"))
    assert digest(first) != digest(second)
