"""``make traffic-matrix``: measure it again, and write the table into docs/traffic.md."""

from __future__ import annotations

import sys

from integration.screen import Screen
from integration.traffic.measure import measure
from integration.traffic.scene import FAMILIES, scene
from integration.traffic.table import PAGE, table, with_table


def main() -> int:
    """Write the table; 1 when ``azvnet explain`` says something else than was measured."""
    screen = Screen()
    found = []
    for family in FAMILIES:
        screen.line(f"IPv{family.version}")
        with scene(family) as made:
            of_family = measure(made, screen.line)
        text = table([each.cell for each in of_family])
        PAGE.write_text(with_table(PAGE.read_text(), family, text))
        found += of_family
    wrong = [each.disagreement for each in found if each.disagreement]
    for each in wrong:
        screen.verdict(each, ok=False)
    screen.verdict(f"{len(found)} packets; {PAGE.name} has the table", ok=not wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
