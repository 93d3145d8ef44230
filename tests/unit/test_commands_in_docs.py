"""Every command that README and docs show is one that a test runs, spelled as that program takes it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from cni_plugin import cli
from integration.cluster import cli as cluster
from integration.fabric import cli as fabric

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LIFE = "integration/e2e/life"
FABRIC = "integration/tests/fabric/test_cli.py::"
CLUSTER = "integration/e2e/test_cluster.py::"
DUAL = "integration/e2e/dual/test_both_families.py::"
INSTALL = "tests/install/"
KIND = "integration/kind/tests/"
INSTALLED = f"{LIFE}/test_install.py::"
INSTALLED += "test_one_manifest_makes_nodes_ready_and_adopts_running_pods_and_another_takes_it_off_again"

PAGES_TEST = "integration/tests/test_pages.py"
FOLLOWED = {"cnitool.md": "test_cnitool_page", "walkthrough.md": "test_walkthrough_page"}
"""Pages whose commands of root's (after ``# ``) are run in order, and their output compared, by that test."""

RUN_BY = {
    r"ip rule": "tests/netns/test_nics.py::test_one_table_and_the_fewest_rules_serve_all_pods_of_a_nic",
    r"ip -6 (rule|route show table 15503)": (
        "tests/netns/test_nics_v6.py::test_one_table_and_the_fewest_rules_serve_all_pods_of_a_nic"
    ),
    r"make demo( ARGS=.*)?": "integration/tests/test_demo.py::test_demo_holds_all_its_checks",
    r"make (test|check)": ".ci/run",
    r"make cluster ARGS=--dual-stack": f"{DUAL}test_pods_and_nodes_see_each_other",
    r"make conformance-compare( ARGS=.*)?": f"{DUAL}test_specs_of_kubernetes_for_dual_stack_pass",
    r"(\w+=\w+ )*make cluster": CLUSTER + "test_node_is_ready_when_a_plugin_is_there",
    r"make cluster-shell .*": FABRIC + "test_exec_runs_inside_and_gives_back_the_exit_code",
    r"make cluster-conformance": "integration/e2e/test_conformance.py::test_all_45_conformance_specs",
    r"make tools build": "integration/tests/conftest.py",
    r"make cluster-down": FABRIC + "test_down_ends_the_process",
    r"(\w+=\w+ )*make kind( ARGS=.*)?": KIND + "test_cluster.py::test_what_is_printed_says_how_to_go_on",
    r"make kind-reload": KIND + "test_cluster.py::test_changed_build_is_rolled_out",
    r"make kind-down": KIND + "test_life.py::test_kill_9_while_it_comes_up_leaves_what_kind_down_ends",
    r"make bench( ARGS=.*)?": "integration/tests/test_bench.py::test_",
    r"make bench-traffic( ARGS=.*)?": "integration/tests/test_bench.py::test_the_benchmark_of_packets",
    r"make bench-scale( ARGS=.*)?": "integration/apiserver/test_bench_scale.py::test_every_pod_of_a_small",
    r"make traffic-matrix": "integration/tests/test_traffic_matrix.py::test_",
    r"make bench-pods": f"{LIFE}/test_crowd.py::test_hundred_pods_at_once_have_an_address_each",
    r"python -m integration.cluster (kubectl|status) ?.*": CLUSTER + "test_node_is_ready",
    r"python -m integration.cluster load-image .*": CLUSTER + "test_rebooted_node",
    r"python -m integration.cluster reboot .*": CLUSTER + "test_rebooted_node",
    r"python -m integration.cluster proxy .*": CLUSTER + "test_kube_proxy_leaves_nothing",
    r"python -m integration.fabric( up .*)?": FABRIC + "test_up_shows_the_machines",
    r"python -m integration.fabric status": FABRIC + "test_up_shows_the_machines",
    r"python -m integration.fabric (exec|shell) .*": FABRIC + "test_exec_runs_inside",
    r"python -m integration.fabric (--name cluster )?(fault .*|clear)": FABRIC + "test_faults_go_on_and_off",
    r"python -m integration.fabric (lag|reboot) .*": FABRIC + "test_lag_and_vf_and_reboot",
    r"python -m integration.fabric arm .*": FABRIC + "test_writes_through_arm_are_switched_by_words",
    r"python -m integration.fabric address .*": FABRIC + "test_addresses_are_added_and_removed",
    r"python -m integration.fabric (--name cluster )?counters": FABRIC + "test_counters_tell_who_spoofed",
    r"python -m integration.fabric down": FABRIC + "test_down_ends_the_process",
    r"(\./)?azvnet/azvnet install": INSTALL + "test_uninstall.py::test_the_command_is_on_the_path_until_then",
    r"azvnet verify": INSTALL + "test_verify.py::test_each_thing_that_is_wrong_has_a_line",
    r"azvnet status": "integration/tests/test_cnitool.py::test_the_command_line_is_a_command_on_a_node",
    r"azvnet show .*": "tests/netns/test_show.py::test_a_pod_is_found_by_everything",
    r"azvnet explain .*": "tests/netns/test_explain.py::test_for_people_it_is_a_table_with_a_verdict",
    r"azvnet plan --(subnet|from-node) .*": "integration/tests/test_plan.py::test_the_page_shows",
    r"azvnet plan --nodes .*": "tests/unit/cli/test_plan.py::test_the_page_shows_what_the_command_prints",
    r"ip (-d link|route) show .*": "tests/netns/test_datapath.py::test_",
    r"nft list table inet azvnet": "tests/netns/test_masquerade.py::test_what_is_printed_of_the_table",
    r"nsenter --net=/run/netns/NAME ip addr": "tests/netns/test_datapath.py::test_",
    r"curl --unix-socket .*": "tests/netns/test_agent_telling.py::test_status_and_readyz_say_the_same",
    r"cp packaging/systemd/.*": "packaging/systemd",
    r"systemd-tmpfiles --create .*": "packaging/systemd",
    r"kubectl (apply|delete) -f packaging/kubernetes/.*": INSTALLED,
    r"kubectl -n kube-system rollout status daemonset/azvnet(-uninstall)?": INSTALLED,
    r"helm -n kube-system install azvnet packaging/helm/azvnet .*": f"{LIFE}/test_upgrade.py::test_chart",
    r"kubectl -n kube-system (exec|logs) daemonset/azvnet.*": f"{LIFE}/test_install.py::test_one_manifest",
}
"""What a command is, and the beginning of the name of the test that runs what it does. Two kinds have none:
those of ``.ci/run`` run the tests, and of those for a systemd machine the files are looked at, below.
"""


def _shown(page: Path) -> list[str]:
    """The commands of the console blocks of a page, without the comments behind them."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    prompts = "$ " if page.name in FOLLOWED else ("$ ", "# ")
    return [re.sub(r"\s{2,}#.*", "", line[2:]) for line in lines if line.startswith(prompts)]


COMMANDS = sorted({command for page in PAGES for command in _shown(page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_some_test_runs_it(command: str) -> None:
    (place,) = {place for pattern, place in RUN_BY.items() if re.fullmatch(pattern, command)}
    path, _, name = place.partition("::")
    assert (ROOT / path).exists()
    if name:
        assert f"\ndef {name}" in (ROOT / path).read_text()


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_is_followed_by_its_test(page: str) -> None:
    assert f"\ndef {FOLLOWED[page]}(" in (ROOT / PAGES_TEST).read_text()
    assert f'"{page}"' in (ROOT / PAGES_TEST).read_text()
    assert "\n# " in (ROOT / "docs" / page).read_text().split("```console", 1)[1]


def test_every_row_is_about_a_command() -> None:
    assert not [each for each in RUN_BY if not any(re.fullmatch(each, command) for command in COMMANDS)]


@pytest.mark.parametrize("command", [each for each in COMMANDS if "make " in each])
def test_make_knows_it(command: str) -> None:
    words = shlex.split(command)
    settings = [words.pop(0) for _ in range(words.index("make"))]
    done = subprocess.run(
        [*words, *settings, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["test", "test-image", "test-integration", "e2e", "kind", "test-kind"])
def test_arguments_are_those_of_the_target_and_not_of_what_it_needs(target: str) -> None:
    argv = ["make", "--dry-run", target, "ARGS=--given"]
    printed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (taking,) = [line for line in printed.splitlines() if "--given" in line]
    assert "packaging/image/build.sh" not in taking


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("python -m integration.")])
def test_the_emulators_command_line_takes_it(command: str) -> None:
    words = shlex.split(command)
    module = {"integration.fabric": fabric, "integration.cluster": cluster}[words[2]]
    assert module._parser().parse_args(words[3:] or ["status"]).run


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.split()[0].endswith("azvnet")])
def test_our_command_line_takes_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.run([*shlex.split(command.replace("ADDRESS", "10.0.0.1"))[1:], "--help"])
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("command", [each for each in COMMANDS if "packaging/" in each])
def test_the_files_that_it_names_are_there(command: str) -> None:
    for word in command.split():
        if word.startswith("packaging/"):
            assert (ROOT / word).exists()


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name}" not in text]
