"""One token for all threads: requested once when it is needed, however many threads need it at that moment.

The SDK's policy keeps a token, but a thousand requests that find it expired request a thousand new ones,
and after a refusal every request tries again. It must not know whose token it is.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.core.credentials import AccessToken, TokenCredential

EARLY_SECONDS = 360.0
"""Seconds before its expiry at which a token is replaced: a little earlier than the SDK would do so."""
REFUSED_SECONDS = 5.0
"""Seconds without another request after one that returned no token."""


class SharedToken:
    """A credential (``azure.core.credentials.TokenCredential``) in front of another one. Thread-safe."""

    def __init__(self, credential: TokenCredential, clock: Callable[[], float] = time.time) -> None:
        self._credential = credential
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, ...], AccessToken] = {}
        self._refused: tuple[float, Exception] | None = None

    def get_token(self, *scopes: str, **asked: Any) -> AccessToken:
        """A token that lasts for a while. Raises what the credential raises.

        With ``claims``, which ARM names where it does not accept a token any more, it is always a new one.
        """
        with self._lock:
            now = self._clock()
            kept = self._tokens.get(scopes)
            if kept is not None and not asked.get("claims") and now < kept.expires_on - EARLY_SECONDS:
                return kept
            if self._refused is not None and 0 <= now - self._refused[0] < REFUSED_SECONDS:
                raise self._refused[1]
            try:
                token = self._credential.get_token(*scopes, **asked)
            except Exception as error:
                self._refused = now, error
                raise
            self._refused = None
            self._tokens[scopes] = token
            return token
