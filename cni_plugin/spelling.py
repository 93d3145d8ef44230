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
