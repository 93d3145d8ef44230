"""Elements of a picture (SVG 1.1) as text, and the colours that pictures have in common. Pure.

There is no style sheet, so that a picture looks the same on a light page, on a dark one, and in a ticket.
"""

from __future__ import annotations

INK, FAINT, PAPER, LINE, ALARM = "#1f2328", "#59636e", "#ffffff", "#d0d7de", "#cf222e"
FONT = "system-ui, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


def svg_text(
    x: float, y: float, words: str, *, size: int = 14, weight: str = "", anchor: str = "", colour: str = INK
) -> str:
    """A line of text; ``anchor``: what of it is at ``x``."""
    given = {"font_weight": weight, "text_anchor": anchor}
    chosen = {name: value for name, value in given.items() if value}
    return element("text", words, x=x, y=y, font_size=size, fill=colour, **chosen)


def element(name: str, content: str = "", **attributes: float | str) -> str:
    """One element; an attribute's name is written with ``_`` for ``-``."""
    shown = "".join(f' {key.replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{shown}>{_escaped(content)}</{name}>" if content else f"<{name}{shown}/>"


def _value(value: float | str) -> str:
    return _escaped(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
