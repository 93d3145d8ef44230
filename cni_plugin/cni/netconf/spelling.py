"""Other spellings of the configuration: conversions before a value is validated.

They return unknown values unchanged, for the validation to report.
"""

from __future__ import annotations


def seconds(value: object) -> object:
    """Azure CNI writes seconds as strings (``"queryInterval": "10"``)."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def lower_keys(value: object) -> object:
    """Go matches JSON keys without regard to case, and containerd relies on it: its structs for
    capabilities have no tags, so it sends ``Servers`` where the spec says ``servers``.
    """
    return {str(key).lower(): each for key, each in value.items()} if isinstance(value, dict) else value


def level(value: object) -> object:
    """Log levels in any case, also under the names that other programs use."""
    if isinstance(value, str):
        lower = value.lower()
        return {"": "info", "warn": "warning", "none": "off"}.get(lower, lower)
    return value


def without_nulls(value: object, depth: int = 2) -> object:
    """Go treats a key whose value is ``null`` as missing, and so do those who write our configuration.

    ``depth``: levels to go down, as many as our keys have.
    """
    if not isinstance(value, dict) or not depth:
        return value
    return {key: without_nulls(each, depth - 1) for key, each in value.items() if each is not None}
