"""What a call is told in its environment: verbs, container ids, interface names, CNI_ARGS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.node import Node, pod_args

LONGEST_ID = "a" + "0123456789_.-" * 15 + "zzzz"
INVALID_ENVIRONMENT, INVALID_NETNS, ATTACHMENT_EXISTS = 4, 8, 104

NEEDED = [
    ("ADD", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
    ("CHECK", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
    ("DEL", ("CNI_CONTAINERID", "CNI_IFNAME")),
]


@pytest.mark.parametrize(("verb", "names"), NEEDED)
def test_every_missing_variable_is_named_at_once(node: Node, verb: str, names: tuple[str, ...]) -> None:
    for env in ({}, dict.fromkeys(names, "")):
        failed = node.call(verb, env=env)
        assert failed.code == INVALID_ENVIRONMENT
        assert all(name in failed.msg for name in names), failed.msg


def test_only_what_is_missing_is_named(node: Node) -> None:
    failed = node.add(node.sandbox.pod("c1"), env={"CNI_NETNS": None})
    assert failed.code == INVALID_ENVIRONMENT
    assert "CNI_NETNS" in failed.msg
    assert "CNI_IFNAME" not in failed.msg
    assert "CNI_CONTAINERID" not in failed.msg


@pytest.mark.parametrize("verb", ["add", "Add", "UPDATE", "GET", "ADD ", "ADD\n", "\u00c4DD"])
def test_a_verb_is_known_by_its_exact_name_alone(busy_node: Node, verb: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    failed = busy_node.call(verb, pod)
    assert failed.code == INVALID_ENVIRONMENT
    assert "CNI_COMMAND" in failed.msg
    assert not busy_node.residue()


def test_a_call_without_a_verb_is_told_so(node: Node) -> None:
    for value in (None, ""):
        failed = node.call("ADD", env={"CNI_COMMAND": value})
        assert failed.code == INVALID_ENVIRONMENT
        assert "CNI_COMMAND" in failed.msg


def test_variables_the_spec_calls_optional_are_optional(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    bare: dict[str, str | None] = {"CNI_PATH": None, "CNI_ARGS": None, "PATH": None}
    previous = node.add(pod, env=bare)
    node.check(pod, previous, env=bare).done()
    node.delete(pod, env=bare).done()
    node.status(env=bare).done()
    node.gc([], env=bare).done()
    node.call("VERSION", env=bare).done()


def test_variables_of_the_runtime_itself_do_not_disturb(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    strange = {
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "LANG": "tlh_KX.UTF-8",
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "PYTHONSTARTUP": "/nowhere",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "EMPTY": "",
        "LONG": "x" * 100_000,
        "BYTES": "\udcff\udcfe",
    }
    if node.caller.environ:  # type: ignore[attr-defined] # from source it is Python's own start that obeys these
        strange = {name: value for name, value in strange.items() if not name.startswith("PYTHON")}
    node.add(pod, env=strange).done()
    node.delete(pod, env=strange).done()


@pytest.mark.parametrize("container_id", ["1", "A", "z_.-", "0.-_-.0", LONGEST_ID])
def test_every_legal_container_id_works(busy_node: Node, container_id: str) -> None:
    assert len(LONGEST_ID) == 200
    pod = busy_node.sandbox.pod(container_id, namespace="ns")
    previous = busy_node.add(pod)
    busy_node.check(pod, previous).done()
    (link,) = busy_node.veths().values()
    assert container_id in link["ifalias"]
    busy_node.delete(pod).done()
    assert not busy_node.residue()


@pytest.mark.parametrize(
    "container_id", ["-a", ".a", "_a", "a/b", "../../etc", "a b", "a\n", "a\tb", "\u00e4", "a:b", "a\udcff"]
)
def test_an_illegal_container_id_is_refused_and_named(busy_node: Node, container_id: str) -> None:
    pod = busy_node.sandbox.pod("ns")
    for verb in ("ADD", "DEL"):
        failed = busy_node.call(verb, pod, env={"CNI_CONTAINERID": container_id})
        assert failed.code == INVALID_ENVIRONMENT
        assert "CNI_CONTAINERID" in failed.msg
    assert not busy_node.residue()


@pytest.mark.parametrize(
    "ifname",
    [
        "a",
        "exactly15bytes_",
        "eth0.100",
        "-x",
        "net-1_2",
        "0",
        "\u00e9th0",
        "\u7db2\u7d61",
        "a\\b",
        "a'b\"",
        "$(id)",
    ],
)
def test_every_legal_interface_name_works(busy_node: Node, ifname: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    previous = busy_node.add(pod, ifname=ifname)
    assert previous.result["interfaces"][1]["name"] == ifname
    assert [link["ifname"] for link in pod.ip("link")] == ["lo", ifname]
    busy_node.check(pod, previous, ifname=ifname).done()
    busy_node.delete(pod, ifname=ifname).done()
    assert not busy_node.residue()


@pytest.mark.parametrize(
    "ifname",
    [
        "sixteen_bytes_xx",
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "eth0\n",
        "a\tb",
        "\u00e9" * 8,
        "a\u00a0b",
        "eth%d",
        "%s",
        "\u00e0",
        "e\udcff0",
    ],
)
def test_a_name_that_no_interface_can_have_is_refused(busy_node: Node, ifname: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    failed = busy_node.add(pod, ifname=ifname)
    assert failed.code == INVALID_ENVIRONMENT
    assert "CNI_IFNAME" in failed.msg
    assert [link["ifname"] for link in pod.ip("link")] == ["lo"]
    assert not busy_node.residue()


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("CNI_IFNAME", "eth\udcff", INVALID_ENVIRONMENT),
        ("CNI_NETNS", "/run/netns/c\udcff", INVALID_NETNS),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=c\udcff", INVALID_ENVIRONMENT),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_UID=\udcff", INVALID_ENVIRONMENT),
    ],
)
def test_bytes_that_no_result_can_hold_are_refused_and_keep_no_pod_from_going_away(
    busy_node: Node, variable: str, value: str, code: int
) -> None:
    pod = busy_node.sandbox.pod("c1")
    busy_node.sandbox.do(lambda: Path("/run/netns/c\udcff").symlink_to("c1"))
    for as_ipam in (False, True):
        failed = busy_node.add(pod, env={variable: value}, as_ipam=as_ipam)
        assert failed.code == code
        assert variable in failed.msg
        if variable != "CNI_IFNAME":
            busy_node.delete(pod, env={variable: value}, as_ipam=as_ipam).done()
        assert not busy_node.residue()


def test_a_call_id_of_any_bytes_does_no_harm(busy_node: Node) -> None:
    pod = busy_node.sandbox.pod("c1")
    for env in ({"AZVNET_CALL_ID": "\udcff"}, {"AZVNET_CALL_ID": "x" * 10_000}):
        busy_node.add(pod, env=env).done()
        assert busy_node.add(pod).code == ATTACHMENT_EXISTS
        busy_node.delete(pod, env=env).done()
        assert not busy_node.residue()


@pytest.mark.parametrize("ignore", ["IgnoreUnknown=1", "IgnoreUnknown=true", "IgnoreUnknown=TRUE"])
def test_unknown_arguments_are_ignored_when_asked_to(busy_node: Node, ignore: str) -> None:
    pod = busy_node.sandbox.pod("c1")
    for args in (f"{ignore};FOO=1", f"FOO=1;{ignore}", f"{ignore};FOO=", f"{ignore};FOO=a=b;;"):
        busy_node.add(pod, args=args).done()
        busy_node.delete(pod, args=args).done()


@pytest.mark.parametrize(
    "args", ["FOO=1", "IgnoreUnknown=0;FOO=1", "IgnoreUnknown=false;FOO=1", "k8s_pod_name=x"]
)
def test_unknown_arguments_are_an_error_otherwise(busy_node: Node, args: str) -> None:
    failed = busy_node.add(busy_node.sandbox.pod("c1"), args=args)
    assert failed.code == INVALID_ENVIRONMENT
    assert args.rpartition(";")[2].partition("=")[0] in failed.msg
    assert "IgnoreUnknown=1" in failed.error["details"]
    assert not busy_node.residue()


@pytest.mark.parametrize("args", ["FOO", "IgnoreUnknown=1;FOO", "K8S_POD_NAME", "IgnoreUnknown=1;=;x"])
def test_arguments_that_are_no_pairs_are_an_error(busy_node: Node, args: str) -> None:
    assert busy_node.add(busy_node.sandbox.pod("c1"), args=args).code == INVALID_ENVIRONMENT


def test_every_verb_accepts_the_arguments_of_kubernetes(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    args = pod_args("c1").removeprefix("IgnoreUnknown=1;")
    previous = node.add(pod, args=args)
    node.check(pod, previous, args=args).done()
    node.status(args=args).done()
    node.gc([(pod, "eth0")], args=args).done()
    node.call("VERSION", args=args).done()
    node.delete(pod, args=args).done()


def test_no_argument_keeps_a_pod_from_going_away(node: Node) -> None:
    pod = node.sandbox.pod("c1")
    for args in ("FOO=1", "FOO", ";;;", "IP=nonsense"):
        node.add(pod).done()
        node.delete(pod, args=args).done()
        assert not node.residue()
