"""The runs as a picture (SVG 1.1): who has an address, who waits, and what is left of the budget, over time.

Owns layout and colours; the pieces are those of `cni_plugin.cli.svg`. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_plugin.cli.svg import FAINT, FONT, LINE, PAPER, element, svg_text
from integration.bench.scale.scenario import WRITES

if TYPE_CHECKING:
    from collections.abc import Sequence

Document = dict[str, Any]
WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 960, 80, 40, 170, 62, 96
COLOURS = ("#218bff", "#cf222e", "#bf8700", "#8250df", "#4ac26b", "#0a3069", "#57606a")
"""Who writes."""
DASHES = ("", "7 4", "2 3")
"""With which settings."""
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
"""First digits of the top of an axis, so that its middle is round too."""
PANELS = (
    ("addressed", "pods with an address"),
    ("waiting", "pods waiting for an address"),
    ("writes", "writes to Azure in the last 5 minutes, % of its limit"),
)


class Stroke(NamedTuple):
    """How the line of a run is drawn."""

    colour: str
    dash: str

    def draw(self, name: str, width: float, **where: float | str) -> str:
        """An element with that line."""
        dash: dict[str, float | str] = {"stroke_dasharray": self.dash} if self.dash else {}
        return element(name, "", **where, fill="none", stroke=self.colour, stroke_width=width, **dash)


def strokes(runs: Sequence[Document]) -> list[Stroke]:
    """Of each run: a colour for who writes, dashes for the settings.

    Raises:
        ValueError: two runs would look the same.
    """
    hows, names = (list(dict.fromkeys(run[key] for run in runs)) for key in ("how", "name"))
    found = [
        Stroke(COLOURS[hows.index(run["how"]) % len(COLOURS)], DASHES[names.index(run["name"]) % len(DASHES)])
        for run in runs
    ]
    if len(set(found)) < len(found):
        raise ValueError("the picture has fewer kinds of lines than there are runs")
    return found


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
    for number, (run, stroke) in enumerate(zip(runs, strokes(runs), strict=True)):
        y = key + 24 * number
        body.append(stroke.draw("line", 3, x1=LEFT, y1=y - 4, x2=LEFT + 26, y2=y - 4))
        body.append(svg_text(LEFT + 36, y, f"{run['how']}: {run['name']}"))
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONT}">'
    return "\n".join([head, *body, "</svg>"]) + "\n"


def _panel(runs: Sequence[Document], name: str, words: str, top: float, end: float) -> list[str]:
    curves = [_points(run, name) for run in runs]
    most = _rounded_up(max(100.0 if name == "writes" else 1.0, *(y for curve in curves for _, y in curve)))
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
    for curve, stroke in zip(curves, strokes(runs), strict=True):
        points = " ".join(place(x, y) for x, y in curve)
        drawn.append(stroke.draw("polyline", 2, points=points))
    return drawn


def _rounded_up(most: float) -> float:
    unit = 10.0 ** math.floor(math.log10(most))
    return next(unit * first for first in ROUND if unit * first >= most * 0.999)


def _points(run: Document, name: str) -> list[tuple[float, float]]:
    """A curve; of fewer nodes as if they were a thousand, writes as percent of the limit."""
    factor = _scale(run) * (100 / WRITES if name == "writes" else 1)
    return [(x, y * factor) for x, y in run["series"][name]]


def _scale(run: Document) -> float:
    """By how much a run of fewer nodes is scaled up."""
    return 1_000 / float(run["about"]["nodes"])
