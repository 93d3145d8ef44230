"""The part of a page of the documentation that a program writes, between two comments.

Pure. Must not know what is in it.
"""

from __future__ import annotations

END = "<!-- Up to here. -->\n"
"""Behind every such part; the comment before it is the part's own and names the program."""


def written(page: str, begin: str) -> str:
    """What a page has behind the comment ``begin``. Raises ValueError: there is no such part."""
    start = page.index(begin) + len(begin)
    return page[start : page.index(END, start)]


def with_part(page: str, begin: str, text: str) -> str:
    """The page with another text there. Raises ValueError, as above."""
    return page.replace(begin + written(page, begin) + END, begin + text + END)
