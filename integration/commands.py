"""Commands of a command line: how one is declared, run, and ends when it fails.

Owns what the command lines of the fabric, of clusters and of kind have in common. Must not know any command.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence


def declare(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, *positional: str
) -> argparse.ArgumentParser:
    """Add a command to argparse's ``commands``, with the arguments that it requires; returns its parser.

    ``run`` does what is asked for and returns the exit code.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about)
    for each in positional:
        parser.add_argument(each)
    parser.set_defaults(run=run)
    return parser


def perform(
    parser: argparse.ArgumentParser, argv: Sequence[str], errors: tuple[type[Exception], ...], program: str
) -> int:
    """Run the command that ``argv`` names; an error of these classes is a line on stderr and code 1."""
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except errors as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
