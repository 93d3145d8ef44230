"""``azvnet plan``: its documentation is true, its answers are whole, and a wrong question gets one line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from cni_plugin.cli import run
from cni_plugin.cli.plan_chart import COLOURS, LINE_LENGTH, chart
from cni_plugin.cli.plan_views import SubnetPlan, duration, outlook, plan_document, plan_text, until
from cni_plugin.cli.table import Paint
from ipam.planning import MONTH, Cluster, Growth, Surge, per_node, subnet_size
from ipam.sources.arm_subnet import SubnetUsage

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "plan.md").read_text()
SUBNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n"
Capture = pytest.CaptureFixture[str]


def shown() -> list[tuple[str, str]]:
    """Each command of the page, and what stands below it."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if block.startswith("$ ")]  # those of root's are run on a node
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def plan(capsys: Capture, words: str) -> tuple[int, str, str]:
    code = run(["plan", *shlex.split(words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def document(capsys: Capture, words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(capsys, f"{words} --output json")[1])
    return found


@pytest.mark.parametrize(("command", "output"), shown())
def test_the_page_shows_what_the_command_prints(capsys: Capture, command: str, output: str) -> None:
    words, _, into = command.removeprefix("azvnet plan ").partition(" > ")
    _, printed, refused = plan(capsys, words)
    assert (DOCS / into).read_text() == printed if into else output == printed + refused


class TestPage:
    """docs/plan.md is what the command prints."""

    def test_the_table_of_formulas_is_right(self) -> None:
        rows = re.findall(r"^\| (\d+) \+ (\d+) \| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
        assert len(rows) == 6
        for nodes, surge, pods, cells in rows:
            peak = int(nodes) + int(surge)
            formula, *computed = cells.split(" | ")
            assert formula.startswith(f"{peak * (int(pods) + 1):,}: ")
            ways: list[dict[str, Any]] = [{}, {"batch": 16}, {"prefixes": True}]
            for way, cell in zip(ways, computed, strict=True):
                cluster = Cluster(int(nodes), per_node(int(pods), **way))
                length = cluster.smallest(peak)
                assert cell == f"{cluster.taken(peak):,}: {f'/{length}' if length else 'none'}"
            assert formula == computed[0]

    def test_every_key_is_documented_and_no_other(self) -> None:
        table = PAGE[PAGE.index("## JSON") :]
        rows = [line for line in table.splitlines() if line.startswith("| `")]
        words = {word for row in rows for word in re.findall(r"`(\w+)`", row)} - {"null"}
        live = SubnetUsage("pods", IPv4Network("10.0.0.0/24"), 7, 0)
        assert keys(plan_document(SubnetPlan(Cluster(3, per_node(30)), 1, 24, live=live))) == words

    def test_every_option_is_documented_and_no_other(self, capsys: Capture) -> None:
        with pytest.raises(SystemExit):
            run(["plan", "--help"])
        options = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
        assert options == set(re.findall(r"^\| `(--[\w-]+)", PAGE, re.MULTILINE)) - {"--prefixes"} | {
            "--prefixes"
        }


def keys(value: Any) -> set[str]:
    """Every key of a document, on every level."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()


class TestAnswer:
    """Exit code and verdict say the same."""

    @pytest.mark.parametrize(
        ("words", "code", "verdict"),
        [
            ("--nodes 50 --max-pods 30", 0, "recommended: a /21: room for 65 nodes"),
            ("--nodes 50 --max-pods 30 --size /21", 0, "fits: room for 65 nodes"),
            (
                "--nodes 50 --max-pods 30 --size /22",
                1,
                "too small: 562 addresses are missing; now a /21 is needed",
            ),
            (
                "--nodes 50 --max-pods 30 --size 21 --growth 24nodes/year",
                0,
                "fits for now: its nodes fit for 7.5 months, with the surge of an upgrade for 7 months; in",
            ),
            ("--nodes 300 --max-pods 250", 1, "does not fit: 75,551 IP configurations are needed"),
            ("--nodes 300 --max-pods 250 --prefixes", 0, "recommended: a /15"),
            ("--nodes 1 --max-pods 1 --surge 0", 0, "recommended: a /29: room for 1 node"),
            ("--nodes 0", 0, "recommended: a /25"),
        ],
    )
    def test_verdict(self, capsys: Capture, words: str, code: int, verdict: str) -> None:
        answered, printed, _ = plan(capsys, words)
        assert answered == code
        assert f"\n{verdict}" in printed

    def test_a_surge_is_named_where_it_fits_for_less_long_than_the_nodes(self, capsys: Capture) -> None:
        words = "--nodes 2 --max-pods 30 --size 24 --growth 1nodes/month"
        fits = "fits for now: its nodes fit for 6 months"
        assert f"{fits}, with the surge of an upgrade for 5 months; " in plan(capsys, words)[1]
        assert f"{fits}; " in plan(capsys, f"{words} --surge 0")[1]

    def test_a_subnet_that_fills_in_centuries_has_room(self, capsys: Capture) -> None:
        printed = plan(capsys, "--nodes 2 --max-pods 1 --surge 0 --size 16 --growth 1nodes/year")[1]
        assert "\nfits: room for 32,765 nodes\n" in printed

    def test_limit_of_the_virtual_network_is_named_where_it_is_the_narrower_one(
        self, capsys: Capture
    ) -> None:
        _, printed, _ = plan(capsys, "--nodes 100 --max-pods 250 --size /14")
        assert (
            "note: the virtual network's limit of 65,536 IP configurations is reached before a /14" in printed
        )

    def test_blocks_beside_addresses_in_use_are_not_certain(self, capsys: Capture) -> None:
        code, printed, _ = plan(capsys, "--nodes 10 --prefixes --used 40")
        assert code == 1
        assert "\nrecommended if there are enough whole /28 blocks: a /21: " in printed
        assert "note: the 40 addresses in use already are taken to lie side by side" in printed

    @pytest.mark.parametrize(("words", "fits"), [("", True), ("--used 40", None), ("--size /29", False)])
    def test_whether_it_fits_is_told_to_programs(
        self, capsys: Capture, words: str, fits: bool | None
    ) -> None:
        assert document(capsys, f"--nodes 10 --prefixes {words}")["fits"] is fits

    def test_blocks_fit_where_there_are_enough_wherever_addresses_lie(self, capsys: Capture) -> None:
        code, printed, _ = plan(capsys, "--nodes 10 --prefixes --used 20 --size /20")
        assert code == 0
        assert "\nfits: room for " in printed

    def test_a_live_subnet_is_named_with_what_azure_does_not_say(self) -> None:
        live = SubnetUsage("pods", IPv4Network("10.0.0.0/22"), 700, 0, ("gatewaysubnet",))
        cluster = Cluster(5, per_node(30, prefixes=True), others=live.used)
        printed = plan_text(SubnetPlan(cluster, 12, 22, live=live), Paint(wanted=False))
        assert printed.startswith("5 more nodes with 30 pods each: ")
        assert "\nIN subnet pods (10.0.0.0/22)  " in printed
        assert "note: 700 addresses are in use now, as Azure counts" in printed
        assert "note: Azure does not count gatewaysubnet, in the same virtual network" in printed
        assert "note: the 700 addresses in use already are taken to lie side by side" in printed

    def test_a_live_subnet_is_told_to_programs(self) -> None:
        live = SubnetUsage("pods", IPv4Network("10.0.0.0/22"), 700, 5, ("gatewaysubnet",))
        found = plan_document(SubnetPlan(Cluster(5, per_node(30)), 1, 22, live=live))
        assert found["live"] == {
            "name": "pods",
            "prefix": "10.0.0.0/22",
            "used": 700,
            "elsewhere": 5,
            "uncounted": ["gatewaysubnet"],
        }
        assert len(found["notes"]) == 2
        assert plan_document(SubnetPlan(Cluster(5, per_node(30)), 1, 22))["live"] is None

    def test_room_for_an_upgrade_is_never_less_than_for_no_node(self, capsys: Capture) -> None:
        sizes = document(capsys, "--nodes 1 --max-pods 30 --surge 3 --size 27")["sizes"]
        beside = {each["prefixLength"]: (each["nodes"], each["nodesBesideSurge"]) for each in sizes}
        assert beside[27] == (0, 0)
        assert beside[25] == (3, 0)

    def test_sizes_from_one_too_small_to_one_more_than_enough_are_compared(self, capsys: Capture) -> None:
        def lengths(words: str) -> list[int]:
            return [each["prefixLength"] for each in document(capsys, words)["sizes"]]

        assert lengths("--nodes 50 --max-pods 30") == [22, 21, 20]
        assert lengths("--nodes 50 --max-pods 30 --size 24") == [25, 24, 23, 22, 21, 20]
        assert lengths("--nodes 50 --max-pods 30 --size 19") == [22, 21, 20, 19, 18]
        assert lengths("--nodes 50 --max-pods 30 --growth 24nodes/year") == [22, 21, 20, 19]
        assert lengths("--nodes 1 --max-pods 1 --surge 0") == [29, 28]
        assert lengths("--nodes 1 --max-pods 1 --surge 0 --size 8") == [*range(29, 7, -1)]

    def test_how_a_node_gets_its_addresses_is_said_first(self, capsys: Capture) -> None:
        def first(words: str) -> str:
            return plan(capsys, words)[1].partition("\n")[0]

        assert first("--nodes 1 --max-pods 30 --batch 16").startswith(
            "1 node with 30 pods each: 32 addresses in batches of 16 and the node's own, 33 of the 256 "
        )
        assert first("--nodes 1000 --max-pods 1").startswith(
            "1,000 nodes with 1 pod each: 1 address and the node's own, 2 of the 256 IP configurations"
        )
        assert ": 1 block of 16 and the node's own, 2 of" in first("--nodes 2 --max-pods 16 --prefixes")

    def test_what_is_lost_to_batches_and_to_blocks_is_called_that(self, capsys: Capture) -> None:
        batches = plan(capsys, "--nodes 4 --max-pods 30 --batch 16 --growth 1nodes/month --months 1")[1]
        assert re.search(r"^unused in batches +8 +3\.1%$", batches, re.MULTILINE)
        assert re.search(r"^growth in 1 month +33 +12\.9%$", batches, re.MULTILINE)
        assert "unused in blocks" in plan(capsys, "--nodes 4 --max-pods 30 --prefixes")[1]
        small = plan(capsys, "--nodes 4 --max-pods 30 --size 26")[1]
        assert re.search(r"^missing +96$", small, re.MULTILINE), "it is no share of the subnet"

    def test_what_order_saves_and_growth_needs_is_said_beside_the_answer(self, capsys: Capture) -> None:
        ordered = plan(capsys, "--nodes 100 --max-pods 32 --surge 0 --prefixes")[1]
        assert "\nrecommended: a /19: room for " in ordered
        assert "note: a /20 would do as long as no node is replaced; " in ordered
        small = plan(capsys, "--nodes 50 --max-pods 30 --size 22 --growth 24nodes/year")[1]
        assert small.endswith(
            "\ntoo small: 1,306 addresses are missing; now a /21 is needed, and in 12 months a /20\n"
        )

    def test_colours_say_how_good_an_answer_is(self) -> None:
        def verdict(plan: SubnetPlan) -> str:
            return outlook(plan, Paint(wanted=True)).partition(":")[0]

        few, blocks = Cluster(5, per_node(30)), per_node(30, prefixes=True)
        assert verdict(SubnetPlan(few, 1, None)) == "\033[32mrecommended\033[0m"
        assert verdict(SubnetPlan(few, 1, 24)) == "\033[32mfits\033[0m"
        assert verdict(SubnetPlan(few, 1, 29)) == "\033[31mtoo small\033[0m"
        assert verdict(SubnetPlan(Cluster(300, per_node(250)), 1, None)) == "\033[31mdoes not fit\033[0m"
        unsure = SubnetPlan(Cluster(5, blocks, others=40), 1, 23)
        assert verdict(unsure) == "\033[33mfits if there are enough whole /28 blocks\033[0m"
        assert outlook(unsure).startswith("fits if")

    def test_the_limit_of_the_network_is_no_matter_where_the_subnet_is_full_first(
        self, capsys: Capture
    ) -> None:
        for words in ("--nodes 10 --max-pods 30", "--nodes 10 --max-pods 110 --prefixes"):
            assert "limit" not in plan(capsys, words)[1]

    def test_json_and_text_have_the_same_numbers(self, capsys: Capture) -> None:
        words = "--nodes 50 --max-pods 110 --surge 10% --growth 5%/month --prefixes"
        found = document(capsys, words)
        printed = plan(capsys, words)[1]
        assert f"{found['now']['addressesWithSurge']:,}" in printed
        assert f"recommended: a /{found['recommended']}:" in printed
        assert [each["month"] for each in found["timeline"]] == list(range(13))
        assert found["timeline"][0].items() >= found["now"].items()
        assert found["timeline"][12].items() >= found["atEnd"].items()
        uses = found["subnet"]["uses"]
        assert sum(uses.values()) - uses["missing"] == subnet_size(found["subnet"]["prefixLength"])

    @pytest.mark.parametrize(
        ("days", "words"),
        [
            (0.0, "for less than a day"),
            (0.5, "for less than a day"),
            (1.2, "for 1 day"),
            (59, "for 59 days"),
            (MONTH * 3, "for 3 months"),
        ],
    )
    def test_times_are_in_days_and_then_in_months(self, days: float, words: str) -> None:
        assert until(days) == words

    def test_what_does_not_fit_and_what_only_fits_today_are_told_apart(self, capsys: Capture) -> None:
        _, printed, _ = plan(capsys, "--nodes 32 --max-pods 30 --surge 0 --growth 1nodes/month")
        assert re.search(r"^/23 +512 +16 +no +no$", printed, re.MULTILINE)
        assert re.search(r"^/22 +1,024 +32 +for less than a day +for less than a day$", printed, re.MULTILINE)

    def test_what_takes_longer_than_anybody_plans_is_always(self) -> None:
        assert until(None) == until(40_000) == "always"
        assert duration(MONTH * 3.25) == "3.2 months"


class TestRefusal:
    """A question that can't be answered gets one line and exit code 2."""

    @pytest.mark.parametrize(
        ("words", "wrong", "remedy"),
        [
            (
                "--nodes 5 --max-pods 256",
                "256 pods on a node are too many for single addresses: Azure allows a NIC 256",
                "Use --prefixes (blocks of 16), or at most --max-pods 255.",
            ),
            (
                "--nodes 5 --max-pods 5000 --prefixes",
                "5,000 pods on a node need 313 blocks of 16, and Azure allows a NIC 256 IP configurations",
                "Use more nodes with fewer pods.",
            ),
            ("", "how many nodes there are is not given", "Give --nodes, or --subnet."),
            (f"--subnet {SUBNET} --used 3", "Azure says how large and how full", "Omit --used and --size."),
            (
                f"--subnet {SUBNET} --growth 5%/month",
                "--growth in percent is of --nodes",
                "Give it in nodes or pods, such as 3nodes/week.",
            ),
            (
                f"--subnet {SUBNET} --config /nowhere",
                "settings: cannot read",
                "Correct them, or omit --config.",
            ),
            ("--nodes 5 --batch 16 --prefixes", "--batch is for single addresses", "Give one of the two."),
        ],
    )
    def test_limits(self, capsys: Capture, words: str, wrong: str, remedy: str) -> None:
        code, printed, said = plan(capsys, words)
        assert (code, printed, said.count("\n")) == (2, "", 1)
        assert said.startswith(f"azvnet plan: {wrong}")
        assert said.endswith(f". {remedy}\n")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--nodes -1", "'-1' is not a number from 0 to 1,000,000"),
            ("--nodes x", "'x' is not a number from 0"),
            ("--nodes ٣", "is not a number from 0"),
            ("--nodes 5 --max-pods 0", "0 is too few: at least 1"),
            ("--nodes 5 --surge 10%%", "is not a number from 0"),
            (
                "--nodes 5 --growth 5",
                "'5' is not AMOUNT/PERIOD, such as 5%/month, 3nodes/week or 200pods/day",
            ),
            ("--nodes 5 --growth 5%/century", "is not AMOUNT/PERIOD"),
            ("--nodes 5 --growth 9999999pods/day", "9999999 is too much"),
            ("--nodes 5 --size /30", "'/30' is not the size of a subnet: Azure has /8 to /29"),
            ("--nodes 5 --size 10.0.0.0", "is not the size of a subnet"),
            ("--subnet pods", "'pods' is not the resource id of a subnet: /subscriptions/"),
            ("--nodes 5 --months 121", "121 months are too many: at most 120"),
        ],
    )
    def test_values(self, capsys: Capture, words: str, said: str) -> None:
        with pytest.raises(SystemExit) as end:
            plan(capsys, words)
        assert end.value.code == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


PICTURES = [
    "--nodes 50 --prefixes --growth 5%/month",
    "--nodes 1 --max-pods 1 --surge 0",
    "--nodes 0 --surge 0",
    "--nodes 50 --max-pods 30 --size /29",
    "--nodes 5 --growth 0nodes/day",
    "--nodes 1000000 --max-pods 4080 --prefixes --growth 999999%/day --months 120",
    "--nodes 50 --max-pods 30 --size /21 --batch 16 --used 300 --growth 1nodes/week",
]


class TestPicture:
    """What is drawn, as far as a test can see it."""

    @pytest.mark.parametrize("words", PICTURES)
    def test_it_is_a_whole_document_within_its_edges(self, capsys: Capture, words: str) -> None:
        picture = etree.fromstring(plan(capsys, f"{words} --output svg")[1].encode())
        width, height = (float(picture.get(name, "")) for name in ("width", "height"))
        for each in picture.iter("{*}rect", "{*}text", "{*}line"):
            for name, edge in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y2", height)):
                assert 0 <= float(each.get(name, 0)) <= edge

    def test_a_long_name_is_broken(self) -> None:
        live = SubnetUsage("p" * 80, IPv4Network("10.0.0.0/22"), 0, 0)
        picture = etree.fromstring(chart(SubnetPlan(Cluster(5, per_node(30)), 12, 22, live=live)).encode())
        assert max(len(each.text or "") for each in picture.iter("{*}text")) <= LINE_LENGTH

    @pytest.mark.parametrize("words", PICTURES)
    def test_squares_are_the_whole_subnet(self, capsys: Capture, words: str) -> None:
        found = document(capsys, words)["subnet"]
        picture = etree.fromstring(plan(capsys, f"{words} --output svg")[1].encode())
        squares = [each.get("fill") for each in picture.iter("{*}rect") if each.get("width") == "11.5"]
        assert len(squares) == min(512, found["addresses"])
        used = [name for name, count in found["uses"].items() if count and name != "missing"]
        assert set(squares) == {COLOURS[name] for name in used}

    def test_words_are_readable_on_any_page(self, capsys: Capture) -> None:
        """Its own paper is below everything, whatever is below the picture."""
        picture = etree.fromstring(plan(capsys, f"{PICTURES[0]} --output svg")[1].encode())
        title, paper, *_ = picture
        assert title.tag.endswith("title")
        assert (paper.get("fill"), paper.get("width"), paper.get("x")) == ("#ffffff", "959", "0.5")
        assert not [*picture.iter("{*}style", "{*}script", "{*}image")]


def test_nothing_heavy_is_loaded_without_need() -> None:
    code = (
        "import sys; from cni_plugin.cli import run; run(['plan', '--nodes', '3', '--output', 'svg']);"
        "print([each for each in sys.modules if each.split('.')[0] in "
        "('azure', 'pydantic', 'pyroute2', 'sqlite3', 'requests', 'lxml', 'ssl')], file=sys.stderr)"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=DOCS.parent, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_surge_and_growth_are_understood(capsys: Capture) -> None:
    found = document(capsys, "--nodes 11 --surge 10% --growth 2.5nodes/week --months 1")
    assert found["now"]["nodesWithSurge"] == 11 + Surge(10, percent=True).of(11)
    assert found["atEnd"]["nodes"] == Growth(2.5, "nodes", 7).nodes_after(MONTH, 11, 110)
