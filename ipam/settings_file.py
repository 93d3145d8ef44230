"""A program's settings in a JSON file: reading it, and the error for one that can't be used.

It must not know which keys exist, nor whose settings they are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from ipam.validation import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Read = TypeVar("Read")


class SettingsError(Exception):
    """The file can't be read, or has an unknown key or an impossible value; says which."""


def checked(document: object, validate: Callable[[object], Read]) -> Read:
    """A decoded document, validated.

    Raises:
        SettingsError: it has an unknown key or an impossible value; names it.
    """
    if not isinstance(document, dict):
        raise SettingsError(f"it is a JSON {type(document).__name__}, not an object")
    try:
        return validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise SettingsError(f"{where}: {problem['msg']}") from error


def settings_in(path: Path, of: Callable[[object], Read]) -> Read:
    """What a file holds, as ``of`` makes it of the decoded document.

    Raises:
        SettingsError: it can't be read, is not valid JSON, or is not what ``of`` takes; names the file.
    """
    try:
        document: Any = json.loads(path.read_bytes())
        return of(document)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid JSON: {error}") from error
