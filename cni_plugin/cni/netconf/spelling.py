"""How others spell what the configuration means: conversions before a value is validated.

They return what they don't understand as it is; the validation says what is wrong with it.
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
    """Levels of the log in any case, and with the names that other programs have for them."""
    if isinstance(value, str):
        lower = value.lower()
        return {"": "info", "warn": "warning", "none": "off"}.get(lower, lower)
    return value


def without_nulls(value: object, depth: int = 2) -> object:
    """Go takes a key whose value is ``null`` for one that is not there, and so do those who write our
    configuration for us. ``depth``: how far down, which is as far as we have keys.
    """
    if not isinstance(value, dict) or not depth:
        return value
    return {key: without_nulls(each, depth - 1) for key, each in value.items() if each is not None}
