"""A plan as a picture (SVG 1.1): the subnet as squares, what they are for, and how it fills over time.

Owns layout and colours. Pure: the numbers are those of ``plan_views``. It has a background of its own and no
style sheet, so that it looks the same on a light page, on a dark one, and in a ticket that strips styles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cni_plugin.cli.drawing import broken
from cni_plugin.cli.plan_views import USES, duration, headline, outlook, share, use_words
from cni_plugin.cli.svg import ALARM, FAINT, FONT, INK, LINE, PAPER, element, svg_text
from ipam import planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_plugin.cli.plan_views import SubnetPlan

WIDTH, MARGIN = 960, 40
INNER = WIDTH - 2 * MARGIN
COLUMNS, MOST_ROWS, STEP, SQUARE = 64, 8, INNER / 64, 11.5
LINE_LENGTH, TITLE_LENGTH = 110, 62
"""Characters of a line."""
ROW = 24
"""Height of a row of the legend."""
PLOT_HEIGHT, LEFT, RIGHT = 230, 66, 84
"""The diagram's height, and the room for labels beside it."""
COLOURS = {
    "reserved": "#6e7781",
    "others": "#a0785a",
    "hosts": "#0a3069",
    "pods": "#218bff",
    "rounding": "#bf8700",
    "alignment": "#eac54f",
    "surge": "#8250df",
    "growth": "#4ac26b",
    "free": "#dfe5eb",
    "missing": ALARM,
}
_OPACITY = {"surge": 0.35, "pods": 0.55}
"""Opacity of areas, so that lines show through."""


def chart(plan: SubnetPlan) -> str:
    """The picture, as an SVG document."""
    title, answer = broken(_title(plan), TITLE_LENGTH), broken(outlook(plan), LINE_LENGTH)
    top = 60 + 28 * len(title)
    squares, legend_top = _squares(plan, top + 20 * len(answer))
    legend, diagram_top = _legend(plan, legend_top + 42)
    diagram, bottom = _diagram(plan, diagram_top + 34) if plan.cluster.growth.amount else ([], diagram_top)
    height = math.ceil(bottom + 26)
    colour = INK if plan.fits_now and plan.recommended else ALARM
    body = [
        element("title", f"{plan.subnet}: {headline(plan)}"),
        element("rect", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=8, fill=PAPER, stroke=LINE),
        *(svg_text(MARGIN, 46 + 28 * at, line, size=22, weight="bold") for at, line in enumerate(title)),
        svg_text(MARGIN, top - 18, headline(plan).partition(": ")[2], colour=FAINT),
        *(svg_text(MARGIN, top + 2 + 20 * at, line, colour=colour) for at, line in enumerate(answer)),
        *squares,
        *legend,
        *diagram,
    ]
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONT}">'
    return "\n".join([head, *body, "</svg>"]) + "\n"


def _title(plan: SubnetPlan) -> str:
    return f"{plan.subnet[0].upper()}{plan.subnet[1:]} for {headline(plan).partition(':')[0]}"


# The subnet


def _squares(plan: SubnetPlan, top: float) -> tuple[list[str], float]:
    """The subnet, each square standing for the same number of addresses; and their lower edge."""
    size = planning.subnet_size(plan.shown)
    count = min(COLUMNS * MOST_ROWS, size)
    colours = [name for name, squares in _shares(plan, count) for _ in range(squares)]
    drawn = [
        element(
            "rect",
            x=MARGIN + index % COLUMNS * STEP,
            y=top + index // COLUMNS * STEP,
            width=SQUARE,
            height=SQUARE,
            rx=2,
            fill=COLOURS[name],
        )
        for index, name in enumerate(colours)
    ]
    bottom = top + -(-count // COLUMNS) * STEP
    each = size // count
    words = "one address" if each == 1 else f"{each:,} addresses"
    drawn.append(
        svg_text(WIDTH - MARGIN, bottom + 13, f"a square is {words}", colour=FAINT, anchor="end", size=12)
    )
    return drawn, bottom


def _shares(plan: SubnetPlan, count: int) -> list[tuple[str, int]]:
    """How many squares each use has: at least one, and ``count`` altogether."""
    seen = planning.uses(plan.cluster, plan.shown, plan.days)
    size = planning.subnet_size(plan.shown)
    wanted = {name: getattr(seen, name) for name in USES if getattr(seen, name)}
    squares = {name: max(1, round(addresses * count / size)) for name, addresses in wanted.items()}
    while (over := sum(squares.values()) - count) != 0:
        name = max(squares, key=lambda each: squares[each])
        squares[name] -= over if squares[name] > over else squares[name] - 1
    return list(squares.items())


def _legend(plan: SubnetPlan, top: float) -> tuple[list[str], float]:
    """What each colour is, and how many addresses, in two columns."""
    seen = planning.uses(plan.cluster, plan.shown, plan.days)
    shown = [(name, getattr(seen, name)) for name in COLOURS if getattr(seen, name)]
    rows = -(-len(shown) // 2)
    drawn = []
    for index, (name, count) in enumerate(shown):
        left = MARGIN + (index // rows) * (INNER / 2 + 16)
        middle = top + index % rows * ROW
        right = left + INNER / 2 - 16
        colour = ALARM if name == "missing" else INK
        drawn += [
            _swatch(left, middle, name),
            svg_text(left + 22, middle, use_words(plan, name), colour=colour),
            svg_text(right - 64, middle, f"{count:,}", anchor="end", colour=colour),
            svg_text(right, middle, share(plan, name, count), anchor="end", colour=FAINT),
        ]
    return drawn, top + (rows - 1) * ROW


# Growth


def _diagram(plan: SubnetPlan, top: float) -> tuple[list[str], float]:
    """Addresses taken over months, with the sizes of subnets as lines."""
    scale = _Scale(plan, top + 30)
    months = [month / 4 for month in range(scale.months * 4 + 1)]
    nodes = [(month, plan.cluster.nodes_after(month * planning.MONTH)) for month in months]
    steady = [(month, plan.cluster.taken(count)) for month, count in nodes]
    peak = [(month, plan.cluster.taken(plan.cluster.with_surge(count))) for month, count in nodes]
    drawn = [
        svg_text(MARGIN, top, "Addresses taken, month by month", weight="bold"),
        *scale.grid(),
        scale.area(peak, "surge"),
        scale.area(steady, "pods"),
        scale.line(peak, COLOURS["surge"]),
        scale.line(steady, COLOURS["hosts"]),
        *_sizes(plan, scale),
        *_ends(plan, scale),
    ]
    key = scale.bottom + 44
    for left, name, words in ((0, "pods", "without an upgrade"), (190, "surge", "during an upgrade")):
        swatch = _swatch(scale.left + left, key, name, _OPACITY[name])
        drawn += [swatch, svg_text(scale.left + left + 22, key, words)]
    return drawn, key


class _Scale:
    """Where months and addresses are on the paper."""

    def __init__(self, plan: SubnetPlan, top: float) -> None:
        self.months = _months_shown(plan)
        self.left, self.right = MARGIN + LEFT, WIDTH - MARGIN - RIGHT
        self.top, self.bottom = top, top + PLOT_HEIGHT
        last = plan.cluster.nodes_after(self.months * planning.MONTH)
        capacity = plan.cluster.capacity(plan.shown)
        headroom = 1.3 if self.months > plan.months or capacity < plan.cluster.taken(last) else 1.08
        self.most = headroom * max(
            min(plan.cluster.taken(plan.cluster.with_surge(last)), 2 * capacity), capacity, 1
        )

    def x(self, month: float) -> float:
        """Horizontal position of a month."""
        return self.left + (self.right - self.left) * month / self.months

    def y(self, addresses: float) -> float:
        """Vertical position of a number of addresses; one that is too large is at the upper edge."""
        return self.bottom - (self.bottom - self.top) * min(addresses / self.most, 1)

    def grid(self) -> Iterator[str]:
        """Both axes with their numbers."""
        step = _step(self.most / 6)
        for count in range(0, int(self.most) + 1, step):
            y = self.y(count)
            yield element("line", x1=self.left, y1=y, x2=self.right, y2=y, stroke=LINE)
            yield svg_text(self.left - 10, y + 4, f"{count:,}", anchor="end", colour=FAINT, size=12)
        for month in range(0, self.months + 1, _step(self.months / 12)):
            yield svg_text(
                self.x(month), self.bottom + 18, str(month), anchor="middle", colour=FAINT, size=12
            )
        yield svg_text(self.right + 20, self.bottom + 18, "months", colour=FAINT, size=12)

    def area(self, points: list[tuple[float, int]], name: str) -> str:
        """What is below a curve."""
        path = " ".join(f"L{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        path = f"M{self.left:.1f},{self.bottom:.1f} {path} L{self.x(points[-1][0]):.1f},{self.bottom:.1f} Z"
        return element("path", d=path, fill=COLOURS[name], fill_opacity=_OPACITY[name])

    def line(self, points: list[tuple[float, int]], colour: str) -> str:
        """A curve."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return element("polyline", points=path, fill="none", stroke=colour, stroke_width=1.5)


def _months_shown(plan: SubnetPlan) -> int:
    """As far as the plan goes, or a little further if the subnet is full by then."""
    full = plan.cluster.nodes_until(plan.shown)
    if full is None or full > 3 * plan.days:
        return plan.months
    return max(plan.months, math.ceil(full / planning.MONTH) + 1)


def _step(least: float) -> int:
    """The first of 1, 2, 5, 10, 20, 50, ... that is not less."""
    if least <= 1:
        return 1
    power = 10 ** math.floor(math.log10(least))
    return int(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least))


def _sizes(plan: SubnetPlan, scale: _Scale) -> Iterator[str]:
    """A line for each size of subnet: what may be taken of it."""
    for length in range(planning.SMALLEST, planning.LARGEST - 1, -1):
        capacity = plan.cluster.capacity(length)
        is_shown = length == plan.shown
        if capacity > scale.most or (not is_shown and capacity < scale.most / 12):
            continue
        y, colour = scale.y(capacity), ALARM if is_shown else FAINT
        dashes = {} if is_shown else {"stroke_dasharray": "2 4"}
        width = 2 if is_shown else 1
        yield element(
            "line", x1=scale.left, y1=y, x2=scale.right, y2=y, stroke=colour, stroke_width=width, **dashes
        )
        words = f"/{length}"
        yield svg_text(scale.right + 10, y + 4, words, colour=colour, weight="bold" if is_shown else "")


def _ends(plan: SubnetPlan, scale: _Scale) -> Iterator[str]:
    """When upgrades, and then nodes, don't fit any more; and how far the plan goes."""
    moments = [
        (plan.days if scale.months > plan.months else None, "end of the plan", FAINT),
        (plan.cluster.upgrades_until(plan.shown), "no room for the surge of an upgrade", COLOURS["surge"]),
        (plan.cluster.nodes_until(plan.shown), "full", ALARM),
    ]
    shown = [each for each in moments if each[0] and each[0] <= scale.months * planning.MONTH]
    shown.sort(key=lambda each: each[0] or 0)
    middle = (scale.left + scale.right) / 2
    to_right = sum(scale.x((days or 0) / planning.MONTH) < middle for days, _, _ in shown)
    # Words to the right of a line are above those lines that come later, words to the left below them.
    rows = [*range(to_right), *reversed(range(to_right, len(shown)))]
    for row, (days, words, colour) in zip(rows, shown, strict=True):
        x, y = scale.x((days or 0) / planning.MONTH), scale.top + 2 + 17 * row
        yield element("line", x1=x, y1=y - 12, x2=x, y2=scale.bottom, stroke=colour, stroke_width=1.5)
        anchor, beside = ("start", 7) if row < to_right else ("end", -7)
        label = f"{words}: {duration(days or 0)}"
        yield svg_text(x + beside, y, label, colour=colour, anchor=anchor, weight="bold", size=13)


def _swatch(x: float, y: float, name: str, opacity: float = 1) -> str:
    """The colour of a use, before words at that height."""
    colour = COLOURS[name]
    return element("rect", x=x, y=y - 11, width=13, height=13, rx=2, fill=colour, fill_opacity=opacity)
