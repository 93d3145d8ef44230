"""The environment of a call: what is refused, what is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.cni import params
from cni_plugin.cni.errors import InvalidEnvironment, InvalidNetns
from ipam.model import Attachment

WHOLE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/libexec/cni",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0",
}


def test_a_whole_environment_is_read() -> None:
    read = params.parse_environment(WHOLE)
    assert read.attachment == Attachment("c1", "eth0")
    assert read.netns == "/run/netns/c1"
    assert read.path == ("/opt/cni/bin", "/usr/libexec/cni")
    assert read.pod == "default/web-0"
    assert params.parse_environment({**WHOLE, "CNI_ARGS": ""}).pod == "c1"


@pytest.mark.parametrize(("verb", "said"), [("", "CNI_COMMAND is not set"), ("add", "CNI_COMMAND is 'add'")])
def test_a_verb_is_one_of_the_specs(verb: str, said: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        params.parse_environment({**WHOLE, "CNI_COMMAND": verb})
    assert str(caught.value) == said
    assert all(each in caught.value.details for each in params.NEEDED)


@pytest.mark.parametrize("verb", params.NEEDED)
def test_whatever_is_missing_is_named(verb: str) -> None:
    needed = params.NEEDED[verb]
    for count in range(len(needed)):
        given_names = needed[:count]
        environ = {"CNI_COMMAND": verb, **{name: WHOLE[name] for name in given_names}}
        with pytest.raises(InvalidEnvironment) as caught:
            params.parse_environment(environ)
        assert all((name in str(caught.value)) == (name not in given_names) for name in needed)
    params.parse_environment({"CNI_COMMAND": verb, **{name: WHOLE[name] for name in needed}})


@given(st.text(max_size=300))
def test_a_container_id_is_taken_exactly_when_the_spec_allows_it(text: str) -> None:
    import re

    legal = re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", text, re.ASCII) is not None and "\n" not in text
    environ = {**WHOLE, "CNI_COMMAND": "DEL", "CNI_CONTAINERID": text}
    if legal:
        assert params.parse_environment(environ).attachment.container_id == text
    else:
        with pytest.raises(InvalidEnvironment):
            params.parse_environment(environ)


def test_an_add_needs_a_container_id_that_an_alias_can_hold() -> None:
    for length, works in ((200, True), (241, True), (242, False), (5000, False)):
        environ = {**WHOLE, "CNI_CONTAINERID": "c" * length}
        if works:
            assert params.parse_environment(environ).attachment.container_id == "c" * length
        else:
            with pytest.raises(InvalidEnvironment, match=f"{length} bytes"):
                params.parse_environment(environ)
        assert (
            params.parse_environment({**environ, "CNI_COMMAND": "DEL"}).attachment.container_id
            == "c" * length
        )


@given(st.text(max_size=20))
def test_no_interface_name_gets_through_that_the_kernel_would_change_or_refuse(name: str) -> None:
    try:
        read = params.parse_environment({**WHOLE, "CNI_IFNAME": name})
    except InvalidEnvironment:
        return
    raw = read.attachment.ifname.encode(errors="surrogateescape")
    assert 1 <= len(raw) <= 15
    assert raw not in (b".", b"..")
    assert not set(raw) & set(b"/:% \t\n\v\f\r\xa0")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", {}),
        ("IP=10.0.0.7", {"IP": "10.0.0.7"}),
        ("IgnoreUnknown=1;FOO=a=b", {"IgnoreUnknown": "1", "FOO": "a=b"}),
        ("K8S_POD_NAME=;", {"K8S_POD_NAME": ""}),
        (";;MAC=x;;", {"MAC": "x"}),
    ],
)
def test_arguments_are_pairs(text: str, read: dict[str, str]) -> None:
    assert params.parse_environment({**WHOLE, "CNI_ARGS": text}).args == read


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS", "VERSION"])
def test_only_add_is_strict_about_arguments(verb: str) -> None:
    for args in ("FOO=1", "FOO", "=", "IgnoreUnknown=maybe;X=1"):
        params.parse_environment({**WHOLE, "CNI_COMMAND": verb, "CNI_ARGS": args})


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_namespace_that_no_result_can_contain_is_refused(verb: str) -> None:
    with pytest.raises(InvalidNetns, match="is not UTF-8"):
        params.parse_environment({**WHOLE, "CNI_COMMAND": verb, "CNI_NETNS": "/run/netns/\udcff"})


def test_clean_up_takes_any_bytes_for_a_namespace_and_for_arguments() -> None:
    environ = {**WHOLE, "CNI_COMMAND": "DEL", "CNI_NETNS": "/run/netns/\udcff", "CNI_ARGS": "FOO=\udcff"}
    read = params.parse_environment(environ)
    assert (read.netns, read.args) == ("/run/netns/\udcff", {"FOO": "\udcff"})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("K8S_POD_NAME=\udcff", "is not UTF-8"),
        ("IgnoreUnknown=1;FOO", "'FOO', which is not KEY=VALUE"),
        ("FOO=1;IP=10.0.0.7;BAR=2", "unknown keys: BAR, FOO"),
        ("IgnoreUnknown=0;FOO=1", "unknown keys: FOO"),
    ],
)
def test_an_add_refuses_arguments_that_it_does_not_understand(args: str, said: str) -> None:
    with pytest.raises(InvalidEnvironment, match=said):
        params.parse_environment({**WHOLE, "CNI_ARGS": args})


@pytest.mark.parametrize("word", ["1", "true", "True", "TRUE", "t"])
def test_unknown_arguments_are_ignored_where_that_is_asked_for(word: str) -> None:
    assert params.parse_environment({**WHOLE, "CNI_ARGS": f"IgnoreUnknown={word};FOO=1"}).args["FOO"] == "1"
