"""Times as a resource has them: RFC 3339 in UTC, whole seconds. It must not know whose they are."""

from __future__ import annotations

import calendar
import time

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def rfc3339(seconds: float) -> str:
    """A time of the wall clock, in seconds since the epoch, as text."""
    return time.strftime(_FORM, time.gmtime(seconds))


def seconds_of(text: str) -> float:
    """The same the other way. Raises ValueError: it is not of that form."""
    return float(calendar.timegm(time.strptime(text, _FORM)))
