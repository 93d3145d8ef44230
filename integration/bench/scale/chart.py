"""The runs as a picture (SVG 1.1): who has an address, who waits, and what is left of the budget, over time.

Owns layout and colours; the pieces are those of `cni_plugin.cli.svg`. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugin.cli.svg import FAINT, FONT, LINE, PAPER, element, svg_text
from integration.bench.scale.scenario import WRITES

if TYPE_CHECKING:
    from collections.abc import Sequence

Document = dict[str, Any]
WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 960, 80, 40, 170, 62, 96
COLOURS = ("#218bff", "#cf222e", "#bf8700", "#8250df", "#4ac26b", "#0a3069", "#57606a")
PANELS = (
    ("addressed", "pods with an address"),
    ("waiting", "pods waiting for an address"),
    ("writes", "writes to Azure in the last 5 minutes, % of its limit"),
)


def chart(runs: Sequence[Document]) -> str:
    """The picture of these runs, as an SVG document."""
    key = TOP + len(PANELS) * (PANEL + GAP)
    height = key + 24 * len(runs) + 10
    end = max(run["series"]["addressed"][-1][0] for run in runs)
    body = [
        element("title", "The operator and a thousand nodes"),
        element("rect", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=8, fill=PAPER, stroke=LINE),
        svg_text(
            LEFT,
            40,
            f"{_scale(runs[0]) * runs[0]['about']['pods']:,.0f} pods on 1,000 nodes in ten minutes",
            size=22,
            weight="bold",
        ),
    ]
    for number, (name, words) in enumerate(PANELS):
        body += _panel(runs, name, words, TOP + number * (PANEL + GAP), end)
    for number, run in enumerate(runs):
        y = key + 24 * number
        colour = COLOURS[number % len(COLOURS)]
        body.append(element("line", x1=LEFT, y1=y - 4, x2=LEFT + 26, y2=y - 4, stroke=colour, stroke_width=3))
        body.append(svg_text(LEFT + 36, y, f"{run['how']}: {run['name']}"))
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONT}">'
    return "\n".join([head, *body, "</svg>"]) + "\n"


def _panel(runs: Sequence[Document], name: str, words: str, top: float, end: float) -> list[str]:
    curves = [_points(run, name) for run in runs]
    most = max(100.0 if name == "writes" else 1.0, *(y for curve in curves for _, y in curve))
    bottom, right = top + PANEL, WIDTH - RIGHT

    def place(x: float, y: float) -> str:
        return f"{LEFT + (right - LEFT) * x / end:.1f},{bottom - PANEL * y / most:.1f}"

    drawn = [svg_text(LEFT, top - 14, words, weight="bold")]
    for part in (0.0, 0.5, 1.0):
        y = bottom - PANEL * part
        drawn.append(element("line", x1=LEFT, y1=y, x2=right, y2=y, stroke=LINE))
        drawn.append(svg_text(LEFT - 10, y + 4, f"{most * part:,.0f}", anchor="end", colour=FAINT, size=12))
    for minute in range(0, int(end / 60) + 1, 2):
        x = LEFT + (right - LEFT) * minute * 60 / end
        drawn.append(svg_text(x, bottom + 18, f"{minute} min", anchor="middle", colour=FAINT, size=12))
    for number, curve in enumerate(curves):
        points = " ".join(place(x, y) for x, y in curve)
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width=2))
    return drawn


def _points(run: Document, name: str) -> list[tuple[float, float]]:
    """A curve; of fewer nodes as if they were a thousand, writes as percent of the limit."""
    factor = _scale(run) * (100 / WRITES if name == "writes" else 1)
    return [(x, y * factor) for x, y in run["series"][name]]


def _scale(run: Document) -> float:
    """By how much a run of fewer nodes is scaled up."""
    return 1_000 / float(run["about"]["nodes"])
